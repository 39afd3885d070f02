//! `--active`: some of the connections, as a number or as a share.

use crate::cli::units::{Count, Percent};
use std::fmt;
use std::str::FromStr;

/// Some of a number of things.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Share {
    Count(u64),
    Percent(Percent),
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A number is one of connections here, so a fraction cannot be one; it is no share either without its sign.
        if text.ends_with('%') || text.starts_with("0.") {
            let percent: Percent = text.parse().map_err(|error| format!("{error}"))?;
            return match percent.0 {
                0.0..=100.0 => Ok(Self::Percent(percent)),
                _ => Err("a share is 0% to 100%; write for example 20%, or a number".to_owned()),
            };
        }
        let count: Result<Count, _> = text.parse();
        count
            .map(|count| Self::Count(count.0))
            .map_err(|error| format!("{error}, or 20%"))
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => Count(*count).fmt(f),
            Self::Percent(percent) => percent.fmt(f),
        }
    }
}

impl Share {
    pub(super) fn of(self, all: usize) -> usize {
        match self {
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX).min(all),
            // Some, however few, if not none.
            Self::Percent(percent) => (all as f64 * percent.0 / 100.0).ceil() as usize,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_has_its_sign() {
        assert!("101%".parse::<Share>().is_err());
        let said = "0.5".parse::<Share>().unwrap_err();
        assert!(said.contains("0.5% or 50%"), "{said}");
    }
}
