//! Several values in one argument, with commas between them: `10k,20k,40k`.
//!
//! A comma also groups the digits of large numbers, so `1,500` has two meanings: 1 and 500, or 1500. It is refused, with
//! what to write for either. `100,200` is a list, since both its values are plausible, and `100,000` is none, since 0
//! is not written as 000.

use crate::net::escape::Escaped;
use std::fmt;
use std::str::FromStr;

/// The values of one argument, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct List<T>(pub(crate) Vec<T>);

impl<T: FromStr<Err: fmt::Display>> FromStr for List<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if is_ambiguous(text) {
            let number = text.replace(',', "");
            let list = text.replace(',', ", ");
            return Err(format!(
                "it could be one number or several; write {number} for the number, or '{list}' with blanks for a list"
            ));
        }
        let value = |part: &str| {
            let parsed = part.trim().parse();
            parsed.map_err(|error| format!("'{}': {error}", Escaped::new(part.trim())))
        };
        match text.contains(',') {
            true => text
                .split(',')
                .map(value)
                .collect::<Result<_, _>>()
                .map(Self),
            false => match text.parse() {
                Ok(value) => Ok(Self(vec![value])),
                Err(error) => Err(format!("{error}")),
            },
        }
    }
}

/// Whether a text without blanks can be read as one number whose digits are grouped, and is more likely to be that than
/// a list of numbers with three digits each.
fn is_ambiguous(text: &str) -> bool {
    let mut groups = text.split(',');
    let first = groups.next().unwrap_or("");
    let rest: Vec<&str> = groups.collect();
    let are_digits = |group: &str| group.bytes().all(|byte| byte.is_ascii_digit());
    let are_groups = (1..=3).contains(&first.len())
        && are_digits(first)
        && !rest.is_empty()
        && rest
            .iter()
            .all(|group| group.len() == 3 && are_digits(group));
    are_groups && (first.len() < 3 || rest.iter().any(|group| group.starts_with('0')))
}

impl<T: fmt::Display> fmt::Display for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<String> = self.0.iter().map(T::to_string).collect();
        f.write_str(&values.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Count, Rate};
    use super::*;

    #[test]
    fn lists() {
        let counts = |text: &str| -> Vec<u64> {
            let list: List<Count> = text.parse().unwrap();
            list.0.iter().map(|count| count.0).collect()
        };
        assert_eq!(counts("5"), [5]);
        assert_eq!(counts("10k,20k,40k"), [10_000, 20_000, 40_000]);
        assert_eq!(counts("1,10,100,1k"), [1, 10, 100, 1_000]);
        assert_eq!(counts("100,200,300"), [100, 200, 300]);
        assert_eq!(counts("1, 500"), [1, 500]);
        assert_eq!(counts("100_000,1e6"), [100_000, 1_000_000]);
        let rates: List<Rate> = "0.5,1,2".parse().unwrap();
        assert_eq!(rates, List(vec![Rate(0.5), Rate(1.0), Rate(2.0)]));
        assert_eq!(rates.to_string(), "0.5,1,2");
    }

    #[test]
    fn what_could_be_one_number_is_refused_with_both_spellings() {
        for text in [
            "1,500",
            "10,100",
            "100,000",
            "150,000",
            "1,000,000",
            "200,050",
        ] {
            let said = text.parse::<List<Count>>().unwrap_err();
            assert!(
                said.contains(&format!("write {} for", text.replace(',', ""))),
                "{said}"
            );
            let blanks = text.replace(',', ", ");
            assert!(said.contains(&format!("'{blanks}'")), "{said}");
            assert!(
                blanks.parse::<List<Count>>().is_ok() || blanks.contains(" 0"),
                "{blanks}"
            );
        }
    }

    #[test]
    fn a_value_of_a_list_that_is_none_is_named() {
        let said = "10k,x".parse::<List<Count>>().unwrap_err();
        assert!(said.contains("'x': it is no number"), "{said}");
        assert!("10k,".parse::<List<Count>>().is_err());
        assert!(
            "".parse::<List<Count>>()
                .unwrap_err()
                .contains("it is empty")
        );
    }
}
