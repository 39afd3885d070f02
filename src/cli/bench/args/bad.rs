//! Bad clients as they are typed, for example `slow-reader=2`.

use crate::cli::units::Count;
use clap::ValueEnum;
use std::str::FromStr;

/// A number of bad clients of one kind, as in `reset=5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) kind: BadKind,
    pub(super) count: Count,
}

/// The kinds, by the names that [`BadClients::counts`](crate::load::BadClients::counts) has for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum BadKind {
    SlowReader,
    Reset,
    Slowloris,
    HalfClose,
}

impl FromStr for Bad {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "write slow-reader=COUNT, reset=COUNT, slowloris=COUNT or half-close=COUNT";
        let (kind, count) = text.split_once('=').ok_or(form)?;
        Ok(Self {
            kind: BadKind::from_str(kind, false)
                .map_err(|_| format!("'{kind}' is no kind of bad client; {form}"))?,
            count: count
                .parse()
                .map_err(|error| format!("'{count}': {error}"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_and_a_count_are_needed() {
        for wrong in ["reset", "reset=x", "reset=", "idlers=5", "=5"] {
            assert!(wrong.parse::<Bad>().is_err(), "{wrong}");
        }
    }
}
