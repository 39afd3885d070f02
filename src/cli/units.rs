//! Numbers as people write them: `10k` connections, `64KiB`, `1m30s`, `0.5` a second, `20%`, `off`.
//!
//! ```text
//! counts      500  10k  1.5M  100,000  100_000  1e6     k M G are 1,000, a million, a billion (10^9)
//! rates       the same, and fractions: 0.5 is one in two seconds
//! bytes       4096  64KiB  64k  1MB      KiB MiB GiB, or k M G for short, count in 1,024; kB MB GB in 1,000
//! durations   250ms  5s  1m30s  2h       us ms s m h d, also in a row; a unit is needed
//! shares      20%  0.5%
//! ```
//!
//! A text means one value or is refused with what to write: never a value that is nearly what was written. A fraction
//! may be written if it comes out even: `1.5k` is 1,500, and `1.5` of something indivisible is refused. Each type prints
//! itself in the shortest way that reads back as the same value, which is how the help shows defaults. What may live in
//! this folder: reading and printing such values. What may not: their use.

mod decimal;
#[cfg(feature = "bench")]
mod list;
mod problem;
#[cfg(test)]
mod tests;

use decimal::{Decimal, split};
#[cfg(feature = "bench")]
pub(crate) use list::List;
use problem::Problem;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) u64);

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) usize);

/// A duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) Duration);

/// A number per second. The load generator alone has rates that may be fractions.
#[cfg(feature = "bench")]
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Rate(pub(crate) f64);

/// A share of a whole, in hundredths.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Percent(pub(crate) f64);

/// A value, or one word that stands for having none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Or<T, W> {
    Value(T),
    Word(W),
}

/// `off`: there is no such limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Off;

/// `auto`: the system decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Auto;

/// `max`: as much as the system allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Most;

/// The word of an [`Or`].
pub(crate) trait Word: Default {
    const WORD: &'static str;
}

impl Word for Off {
    const WORD: &'static str = "off";
}

impl Word for Auto {
    const WORD: &'static str = "auto";
}

impl Word for Most {
    const WORD: &'static str = "max";
}

impl<T, W: Word> Or<T, W> {
    pub(crate) fn some(value: Option<T>) -> Self {
        value.map_or_else(|| Self::Word(W::default()), Self::Value)
    }

    pub(crate) fn value(self) -> Option<T> {
        match self {
            Self::Value(value) => Some(value),
            Self::Word(_) => None,
        }
    }
}

/// Why a text is no value. It is printed behind the text itself, which the caller names.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct UnitError {
    problem: Problem,
    kind: Kind,
    word: Option<&'static str>,
}

/// The kind of value that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Count,
    #[cfg(feature = "bench")]
    Rate,
    Bytes,
    Time,
    Percent,
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.problem)?;
        let examples = match self.kind {
            Kind::Count => "500, 10k or 1M",
            #[cfg(feature = "bench")]
            Kind::Rate => "0.5, 500 or 10k",
            Kind::Percent => "20%",
            Kind::Bytes => "4096, 64KiB or 1MB",
            Kind::Time => "250ms, 5s or 1m30s",
        };
        write!(f, "; write for example {examples}")?;
        match self.word {
            Some(word) => write!(f, ", or '{word}'"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for UnitError {}

impl Kind {
    fn error(self, problem: Problem) -> UnitError {
        UnitError {
            problem,
            kind: self,
            word: None,
        }
    }

    /// Size of a unit, in the smallest unit of its kind; for times that is the nanosecond.
    fn scale(self, unit: &str) -> Result<u128, Problem> {
        const KI: u128 = 1024;
        let kind = match self {
            #[cfg(feature = "bench")]
            Self::Rate => Self::Count, // the units are the same
            kind => kind,
        };
        Ok(match (kind, unit) {
            (Self::Count, "") | (Self::Bytes, "" | "B") | (Self::Percent, "" | "%") => 1,
            (Self::Count, "k" | "K") | (Self::Bytes, "kB" | "KB") => 1_000,
            (Self::Count, "M") | (Self::Bytes, "MB") => 1_000_000,
            (Self::Count, "G") | (Self::Bytes, "GB") => 1_000_000_000,
            (Self::Bytes, "k" | "K" | "KiB") => KI,
            (Self::Bytes, "M" | "MiB") => KI * KI,
            (Self::Bytes, "G" | "GiB") => KI * KI * KI,
            (Self::Time, "us" | "µs") => 1_000,
            (Self::Time, "ms") => 1_000_000,
            (Self::Time, "s") => 1_000_000_000,
            (Self::Time, "m" | "min") => 60 * 1_000_000_000,
            (Self::Time, "h") => 3_600 * 1_000_000_000,
            (Self::Time, "d") => 86_400 * 1_000_000_000,
            (Self::Time, "") => return Err(Problem::NoUnit),
            _ => return Err(Problem::Unit(unit.to_owned())),
        })
    }

    /// Parses a whole text: one number with its unit, or, for times, several in a row.
    fn read(self, text: &str) -> Result<u128, UnitError> {
        self.read_parts(text).map_err(|problem| self.error(problem))
    }

    fn read_parts(self, text: &str) -> Result<u128, Problem> {
        match text {
            "" => return Err(Problem::Empty),
            "0" => return Ok(0), // which is the same in every unit
            _ if text.starts_with('-') => return Err(Problem::Negative),
            _ => {}
        }
        let mut rest = text;
        let mut sum: u128 = 0;
        while !rest.is_empty() {
            let (number, behind) = Decimal::read(rest)?;
            let (unit, next) = split(behind, |c| !c.is_ascii_digit());
            // `10k5` is a typing error; `1m30s` is how people write times.
            if !next.is_empty() && self != Self::Time {
                return Err(Problem::Unit(behind.to_owned()));
            }
            if unit.is_empty() {
                refuse_grouping_by_points(rest)?;
            }
            let part = number.times(self.scale(unit)?)?;
            sum = sum.checked_add(part).ok_or(Problem::TooLarge)?;
            rest = next;
        }
        Ok(sum)
    }

    /// Reads one number with its unit, whole or not.
    fn read_fraction(self, text: &str) -> Result<f64, UnitError> {
        let read = || match text {
            "" => Err(Problem::Empty),
            _ if text.starts_with('-') => Err(Problem::Negative),
            _ => {
                let (number, unit) = Decimal::read(text)?;
                if unit.is_empty() {
                    refuse_grouping_by_points(text)?;
                }
                Ok(number.to_f64() * self.scale(unit)? as f64)
            }
        };
        match read() {
            Ok(value) if value.is_finite() => Ok(value),
            Ok(_) => Err(self.error(Problem::TooLarge)),
            Err(problem) => Err(self.error(problem)),
        }
    }
}

/// `1.500` is 1500 in half of Europe and 1.5 elsewhere. `0.125` can only be a fraction, and so can `1.5`.
fn refuse_grouping_by_points(text: &str) -> Result<(), Problem> {
    match text.split_once('.') {
        Some((whole, fraction)) if fraction.len() == 3 && !whole.starts_with('0') => {
            Err(Problem::Point)
        }
        _ => Ok(()),
    }
}

impl FromStr for Count {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        u64::try_from(Kind::Count.read(text)?)
            .map(Self)
            .map_err(|_| Kind::Count.error(Problem::TooLarge))
    }
}

#[cfg(feature = "bench")]
impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let number = text.strip_suffix("/s").unwrap_or(text);
        Kind::Rate.read_fraction(number).map(Self)
    }
}

impl FromStr for Percent {
    type Err = UnitError;

    /// A number without a sign is in hundredths, unless it could also be a share of one, as 1 and 0.5 could: those are refused.
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let percent = Kind::Percent.read_fraction(text)?;
        match !text.ends_with('%') && percent > 0.0 && percent <= 1.0 {
            true => Err(Kind::Percent.error(Problem::Share(percent))),
            false => Ok(Self(percent)),
        }
    }
}

impl FromStr for Bytes {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        usize::try_from(Kind::Bytes.read(text)?)
            .map(Self)
            .map_err(|_| Kind::Bytes.error(Problem::TooLarge))
    }
}

impl FromStr for Time {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let nanoseconds = Kind::Time.read(text)?;
        if nanoseconds % 1_000 != 0 {
            return Err(Kind::Time.error(Problem::NotWhole)); // in microseconds, the smallest unit that can be written
        }
        // 64 bits of nanoseconds are 584 years, longer than any timeout.
        u64::try_from(nanoseconds)
            .map(|nanoseconds| Self(Duration::from_nanos(nanoseconds)))
            .map_err(|_| Kind::Time.error(Problem::TooLarge))
    }
}

impl<T: FromStr<Err = UnitError>, W: Word> FromStr for Or<T, W> {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if text == W::WORD {
            return Ok(Self::Word(W::default()));
        }
        text.parse().map(Self::Value).map_err(|error| UnitError {
            word: Some(W::WORD),
            ..error
        })
    }
}

/// Writes a value in the largest of these units in which it is whole.
fn write_in(f: &mut fmt::Formatter<'_>, value: u128, units: &[(u128, &str)]) -> fmt::Result {
    match units
        .iter()
        .find(|(scale, _)| value != 0 && value % scale == 0)
    {
        Some((scale, unit)) => write!(f, "{}{unit}", value / scale),
        None => write!(f, "{value}"),
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1_000_000_000, "G"), (1_000_000, "M"), (1_000, "k")];
        write_in(f, u128::from(self.0), &units)
    }
}

#[cfg(feature = "bench")]
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.fract() == 0.0 && (0.0..1e18).contains(&self.0) {
            true => Count(self.0 as u64).fmt(f),
            false => write!(f, "{}", self.0),
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        write_in(f, self.0 as u128, &units)
    }
}

/// As a sequence of units: `1m30s`. Less than a microsecond can be neither written nor parsed.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_nanos();
        if rest < 1_000 {
            return write!(f, "0");
        }
        let units = [
            (86_400_000_000_000, "d"),
            (3_600_000_000_000, "h"),
            (60_000_000_000, "m"),
            (1_000_000_000, "s"),
            (1_000_000, "ms"),
            (1_000, "us"),
        ];
        for (scale, unit) in units {
            if rest >= scale {
                write!(f, "{}{unit}", rest / scale)?;
                rest %= scale;
            }
        }
        Ok(())
    }
}

impl<T: fmt::Display, W: Word> fmt::Display for Or<T, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(value) => value.fmt(f),
            Self::Word(_) => f.write_str(W::WORD),
        }
    }
}

/// A number with its thousands separated, for sentences: 19,968.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate for sentences: 19,968 and 0.5. A low rate keeps its decimals, since rounded to 0 it would deny what happened.
#[cfg(feature = "bench")]
pub(crate) fn grouped_rate(rate: f64) -> String {
    match rate {
        100.0.. => grouped(rate.round() as u64),
        // Three digits, without zeros at the end.
        _ => {
            let decimals = if rate < 1.0 { 3 } else { 2 };
            let text = format!("{rate:.decimals$}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

/// A number of things in words: `1 connection`, `2,000 connections`.
pub(crate) fn plural(number: u64, thing: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {thing}{ending}", grouped(number))
}
