//! Bad clients as they are typed, for example `resetters=5`.

use crate::cli::units::Count;
use clap::ValueEnum;
use std::str::FromStr;

/// So many bad clients of a kind, as in `resetters=5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bad {
    pub(super) kind: BadKind,
    pub(super) count: Count,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum BadKind {
    Resetters,
    Dribblers,
    HalfClosers,
}

impl FromStr for Bad {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = "write resetters=COUNT, dribblers=COUNT or half-closers=COUNT";
        let (kind, count) = text.split_once('=').ok_or(wrong)?;
        Ok(Self {
            kind: BadKind::from_str(kind, false)
                .map_err(|_| format!("there are no '{kind}'; {wrong}"))?,
            count: count
                .parse()
                .map_err(|error| format!("'{count}': {error}"))?,
        })
    }
}
