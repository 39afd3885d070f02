//! What is wrong with a text that should be a number with a unit.

use crate::net::escape::Escaped;
use std::fmt;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Problem {
    Empty,
    NoNumber,
    NoUnit,
    Unit(String),
    NotWhole,
    TooLarge,
    Negative,
    /// A separator that is not between groups of three digits.
    Groups,
    /// A point that may stand between groups, as it does in some countries, or before a fraction.
    Point,
    /// A number that may be a share of one or of a hundred.
    Share(f64),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "it is empty"),
            Self::NoNumber => write!(f, "it is no number"),
            Self::NoUnit => write!(f, "it has no unit"),
            Self::Unit(unit) => write!(f, "'{}' is no unit here", Escaped::new(unit)),
            Self::NotWhole => write!(f, "the fraction does not come out even"),
            Self::TooLarge => write!(f, "it is too large"),
            Self::Negative => write!(f, "it is negative"),
            Self::Groups => write!(
                f,
                "a comma stands between groups of three digits, and a point before a fraction"
            ),
            Self::Point => write!(
                f,
                "its point could group digits or begin a fraction; leave it out, or end the fraction with a 0"
            ),
            Self::Share(share) => write!(
                f,
                "it could be {share}% or {}%; write one of these",
                share * 100.0
            ),
        }
    }
}
