//! One decimal number as people write it: `1500`, `1,500`, `1_500`, `1.5`, `1.5e3`.

use super::problem::Problem;

/// A mantissa and a power of ten: exact, since 0.1 has no value in binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    mantissa: u128,
    exponent: i32,
}

/// 10^38 is the last power of ten in 128 bits.
const EXPONENT_MAX: i32 = 38;

impl Decimal {
    /// Reads the number at the head of a text, and returns what follows it.
    pub(super) fn read(text: &str) -> Result<(Self, &str), Problem> {
        let (whole, behind) = split(text, |c| c.is_ascii_digit() || matches!(c, ',' | '_'));
        let mut digits = without_groups(whole)?;
        let mut exponent = 0;
        let mut rest = behind;
        if let Some(behind) = behind.strip_prefix('.') {
            let (fraction, behind) = split(behind, |c| c.is_ascii_digit());
            if fraction.is_empty() {
                return Err(Problem::NoNumber);
            }
            let fraction = fraction.trim_end_matches('0');
            digits.push_str(fraction);
            exponent = -i32::try_from(fraction.len()).map_err(|_| Problem::NotWhole)?;
            rest = behind;
        }
        if let Some((power, behind)) = power_of_ten(rest) {
            exponent += power
                .parse::<i16>()
                .map_err(|_| Problem::TooLarge)
                .map(i32::from)?;
            rest = behind;
        }
        // Only digits come here, so a mantissa that fails to parse is too long.
        let mantissa = digits.parse().map_err(|_| Problem::TooLarge)?;
        Ok((Self { mantissa, exponent }, rest))
    }

    /// The number times a scale, if that is a whole number.
    pub(super) fn times(self, scale: u128) -> Result<u128, Problem> {
        if self.mantissa == 0 {
            return Ok(0);
        }
        let power = |exponent: i32| 10u128.pow(exponent.unsigned_abs());
        match self.exponent {
            // No scale has as many factors of ten in it.
            ..=-38 => Err(Problem::NotWhole),
            -37..=-1 => {
                let parts = self.mantissa.checked_mul(scale).ok_or(Problem::TooLarge)?;
                match parts % power(self.exponent) {
                    0 => Ok(parts / power(self.exponent)),
                    _ => Err(Problem::NotWhole),
                }
            }
            0..=EXPONENT_MAX => {
                let scaled = self.mantissa.checked_mul(scale);
                let whole = scaled.and_then(|parts| parts.checked_mul(power(self.exponent)));
                whole.ok_or(Problem::TooLarge)
            }
            _ => Err(Problem::TooLarge),
        }
    }

    /// The nearest number in binary.
    pub(super) fn to_f64(self) -> f64 {
        let text = format!("{}e{}", self.mantissa, self.exponent);
        text.parse().unwrap_or(f64::INFINITY)
    }
}

/// The longest head of a text that is made of such characters, and what follows it.
pub(super) fn split(text: &str, belongs: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !belongs(c)).unwrap_or(text.len()))
}

/// The digits of `100,000` or `100_000`. A separator stands between groups of three digits and nowhere else: `1,5` is
/// written where the comma begins a fraction, and `1,500` would be a fraction, too, with a first group of 0.
fn without_groups(text: &str) -> Result<String, Problem> {
    let Some(separator) = text.chars().find(|c| !c.is_ascii_digit()) else {
        return match text.is_empty() {
            true => Err(Problem::NoNumber),
            false => Ok(text.to_owned()),
        };
    };
    let mut groups = text.split(separator);
    let first = groups.next().unwrap_or("");
    let is_three = |group: &str| group.len() == 3 && group.bytes().all(|c| c.is_ascii_digit());
    if first.starts_with('0') || !(1..=3).contains(&first.len()) || !groups.all(is_three) {
        return Err(Problem::Groups);
    }
    Ok(text.replace(separator, ""))
}

/// What stands behind the `e` of `1e6`, and what follows it.
fn power_of_ten(text: &str) -> Option<(&str, &str)> {
    let power = text.strip_prefix(['e', 'E'])?;
    let unsigned = power.strip_prefix(['+', '-']).unwrap_or(power);
    let (digits, behind) = split(unsigned, |c| c.is_ascii_digit());
    (!digits.is_empty()).then(|| (&power[..power.len() - behind.len()], behind))
}
