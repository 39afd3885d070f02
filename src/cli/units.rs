//! Numbers as people write them: `10k` connections, `64KiB`, `1m30s`, `off`.
//!
//! ```text
//! counts      500  10k  1.5M                 k M G are 1,000, a million, a milliard
//! bytes       4096  64KiB  64k  1MB          KiB MiB GiB, or k M G for short, count in 1,024; kB MB GB in 1,000
//! durations   250ms  5s  1m30s  2h           us ms s m h d, also in a row; a unit is needed
//! ```
//!
//! A fraction may be written if it comes out even: `1.5k` is 1,500, and `1.5` of something indivisible is refused. Each
//! type prints itself in the shortest way that reads back as the same value, which is how the help shows defaults. What
//! may live in this file: reading and printing such values. What may not: what they are good for.

use crate::net::Escaped;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A number of things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Count(pub(crate) u64);

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) usize);

/// A time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) Duration);

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UnitError {
    problem: Problem,
    kind: Kind,
    word: Option<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Problem {
    Empty,
    NoNumber,
    NoUnit,
    Unit(String),
    NotWhole,
    TooLarge,
    Negative,
}

/// What kind of value was wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Count,
    Bytes,
    Time,
}

impl fmt::Display for UnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.problem {
            Problem::Empty => write!(f, "it is empty")?,
            Problem::NoNumber => write!(f, "it is no number")?,
            Problem::NoUnit => write!(f, "it has no unit")?,
            Problem::Unit(unit) => write!(f, "'{}' is no unit here", Escaped::new(unit))?,
            Problem::NotWhole => write!(f, "the fraction does not come out even")?,
            Problem::TooLarge => write!(f, "it is too large")?,
            Problem::Negative => write!(f, "it is negative")?,
        }
        let examples = match self.kind {
            Kind::Count => "500, 10k or 1M",
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

    /// How many of the smallest things a unit has. For times that is the nanosecond.
    fn scale(self, unit: &str) -> Result<u128, Problem> {
        const KI: u128 = 1024;
        Ok(match (self, unit) {
            (Self::Count, "") | (Self::Bytes, "" | "B") => 1,
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

    /// Reads a whole text: one number with its unit, or, for times, several in a row.
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
            let (number, behind) = split(rest, |c| c.is_ascii_digit() || c == '.');
            let (unit, next) = split(behind, |c| !c.is_ascii_digit() && c != '.');
            if number.is_empty() {
                return Err(Problem::NoNumber);
            }
            // `10k5` is surely a slip of the hand; `1m30s` is how people write times.
            if !next.is_empty() && self != Self::Time {
                return Err(Problem::Unit(behind.to_owned()));
            }
            let part = scaled(number, self.scale(unit)?)?;
            sum = sum.checked_add(part).ok_or(Problem::TooLarge)?;
            rest = next;
        }
        Ok(sum)
    }
}

/// The longest head of a text that is made of such characters, and what follows it.
fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// A decimal number times a scale, if that is a whole number.
fn scaled(number: &str, scale: u128) -> Result<u128, Problem> {
    let (whole, fraction) = match number.split_once('.') {
        None => (number, ""),
        Some((_, "")) => return Err(Problem::NoNumber),
        Some((whole, fraction)) => (whole, fraction.trim_end_matches('0')),
    };
    // At most 2^64 times 2^47 (a day in nanoseconds): no overflow in 128 bits.
    let whole = digits(whole)? * scale;
    if fraction.is_empty() {
        return Ok(whole);
    }
    // No scale has as many factors of ten in it as that many digits would need to come out even.
    if fraction.len() > 18 {
        return Err(Problem::NotWhole);
    }
    let parts = digits(fraction)? * scale;
    let divisor = 10u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    match parts % divisor {
        0 => Ok(whole + parts / divisor),
        _ => Err(Problem::NotWhole),
    }
}

fn digits(text: &str) -> Result<u128, Problem> {
    if text.is_empty() || text.contains('.') {
        return Err(Problem::NoNumber);
    }
    // Only digits come here, so what fails to parse is too long.
    text.parse::<u64>()
        .map(u128::from)
        .map_err(|_| Problem::TooLarge)
}

impl FromStr for Count {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        u64::try_from(Kind::Count.read(text)?)
            .map(Self)
            .map_err(|_| Kind::Count.error(Problem::TooLarge))
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
        // 584 years are in 64 bits of nanoseconds; nobody waits longer.
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

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        write_in(f, self.0 as u128, &units)
    }
}

/// As a row of units: `1m30s`. What is less than a microsecond cannot be written, and cannot be read either.
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

/// A number with its thousands apart, for sentences: 19,968.
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

/// A number of things in words: `1 connection`, `2,000 connections`.
pub(crate) fn plural(number: u64, thing: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {thing}{ending}", grouped(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn reads<T: FromStr<Err = UnitError> + fmt::Debug + PartialEq>(text: &str, value: T) {
        assert_eq!(text.parse(), Ok(value), "{text}");
    }

    #[track_caller]
    fn refuses<T: FromStr<Err = UnitError> + fmt::Debug>(text: &str, expected: &str) {
        let said = text.parse::<T>().unwrap_err().to_string();
        assert!(
            said.contains(expected),
            "{text}: {said:?} does not say {expected:?}"
        );
        assert!(said.contains("write for example"), "{text}: {said}");
    }

    #[test]
    fn counts() {
        reads("0", Count(0));
        reads("500", Count(500));
        reads("10k", Count(10_000));
        reads("10K", Count(10_000));
        reads("1M", Count(1_000_000));
        reads("1.5k", Count(1_500));
        reads("1.50k", Count(1_500));
        reads("2.0", Count(2));
        reads("0.001k", Count(1));
        reads("1G", Count(1_000_000_000));
        reads("18446744073709551615", Count(u64::MAX));
    }

    #[test]
    fn bytes() {
        reads("0", Bytes(0));
        reads("4096", Bytes(4096));
        reads("7B", Bytes(7));
        reads("64KiB", Bytes(65_536));
        reads("64k", Bytes(65_536));
        reads("64K", Bytes(65_536));
        reads("1MB", Bytes(1_000_000));
        reads("1kB", Bytes(1_000));
        reads("1M", Bytes(1 << 20));
        reads("1.5KiB", Bytes(1_536));
        reads("2GiB", Bytes(2 << 30));
    }

    #[test]
    fn times() {
        reads("0", Time(Duration::ZERO));
        reads("5s", Time(Duration::from_secs(5)));
        reads("250ms", Time(Duration::from_millis(250)));
        reads("10us", Time(Duration::from_micros(10)));
        reads("10µs", Time(Duration::from_micros(10)));
        reads("1m30s", Time(Duration::from_secs(90)));
        reads("1min", Time(Duration::from_secs(60)));
        reads("2h", Time(Duration::from_secs(7_200)));
        reads("1d2h", Time(Duration::from_secs(26 * 3_600)));
        reads("1.5s", Time(Duration::from_millis(1_500)));
    }

    #[test]
    fn what_is_no_value_is_refused_with_an_example() {
        refuses::<Count>("", "it is empty");
        refuses::<Count>("-1", "it is negative");
        refuses::<Count>("k", "it is no number");
        refuses::<Count>("ten", "it is no number");
        refuses::<Count>("+5", "it is no number");
        refuses::<Count>(" 5", "it is no number");
        refuses::<Count>("5 k", "' k' is no unit");
        refuses::<Count>("10x", "'x' is no unit");
        refuses::<Count>("10KiB", "'KiB' is no unit");
        refuses::<Count>("10k5", "'k5' is no unit");
        refuses::<Count>("1\u{1b}", r"'\u{1b}' is no unit");
        refuses::<Count>("1.2345k", "does not come out even");
        refuses::<Count>("0.5", "does not come out even");
        refuses::<Count>("0.00000000000000000001G", "does not come out even");
        refuses::<Count>("1.", "it is no number");
        refuses::<Count>(".5k", "it is no number");
        refuses::<Count>("1..5k", "it is no number");
        refuses::<Count>("1.2.3k", "it is no number");
        refuses::<Count>("18446744073709551616", "it is too large");
        refuses::<Count>("18446744073709551615G", "it is too large");
        refuses::<Count>("99999999999999999999999999999999999999999", "too large");
        refuses::<Bytes>("1s", "'s' is no unit");
        refuses::<Bytes>("-64k", "it is negative");
        refuses::<Bytes>("18446744073709551615G", "it is too large");
        refuses::<Time>("5", "it has no unit; write for example 250ms");
        refuses::<Time>("1m30", "it has no unit");
        refuses::<Time>("5S", "'S' is no unit");
        refuses::<Time>("-5s", "it is negative");
        refuses::<Time>("1.0000000001s", "does not come out even");
        refuses::<Time>("0.0005ms", "does not come out even");
        refuses::<Time>("18446744073709551615d", "it is too large");
        refuses::<Time>(
            "18446744073709551615d18446744073709551615d",
            "it is too large",
        );
    }

    #[test]
    fn a_word_may_stand_for_no_value_and_is_offered_where_it_may() {
        reads("off", Or::<Time, Off>::Word(Off));
        reads("5s", Or::<_, Off>::Value(Time(Duration::from_secs(5))));
        refuses::<Or<Time, Off>>("of", "or 'off'");
        refuses::<Or<Bytes, Auto>>("off", "or 'auto'");
        assert_eq!(Or::<Count, Most>::some(None).to_string(), "max");
        assert_eq!(
            Or::<Count, Most>::some(Some(Count(7))).value(),
            Some(Count(7))
        );
    }

    #[test]
    fn values_print_as_they_are_read() {
        for text in ["0", "1", "999", "10k", "1500", "1M", "7G", "1001k"] {
            assert_eq!(text.parse::<Count>().unwrap().to_string(), text);
        }
        for text in ["0", "1", "63KiB", "1000", "1MiB", "3GiB", "1025KiB"] {
            assert_eq!(text.parse::<Bytes>().unwrap().to_string(), text);
        }
        for text in ["0", "5s", "250ms", "1m30s", "2h", "1s500ms", "20d", "3us"] {
            assert_eq!(text.parse::<Time>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn numbers_in_sentences() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(19_968), "19,968");
        assert_eq!(grouped(1_000_000), "1,000,000");
        assert_eq!(plural(1, "connection"), "1 connection");
        assert_eq!(plural(1_200, "byte"), "1,200 bytes");
    }
}
