//! One row of the answer of `doctor`: a limit, its value, what is needed, how many connections it lets through, and the
//! verdict. The texts of all limits are data, in `limits.txt`.

use super::system::Machine;
use minijinja::{Environment, Error, Value, context};
use serde::Serialize;

const TEXTS: &str = include_str!("limits.txt");

/// How a limit compares with what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Verdict {
    /// It is high enough.
    Fits,
    /// It is too low, and the program raises it by itself.
    Raised,
    /// It is too low, and fails the run.
    Short,
    /// It is too low, and delays some connections; all are served in the end.
    Slows,
    /// It could not be read.
    Unknown,
}

/// What is asked of a limit.
#[derive(Clone, Copy, Debug)]
pub(super) enum Demand {
    /// A share of the connections: such a limit bounds their number.
    Share(Share),
    /// A number that does not depend on the connections.
    Fixed(u64),
    /// A number that is told, though nothing depends on it here.
    Told(u64),
}

/// So many connections need this count, beside what is used already.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) used: u64,
    pub(super) count: u64,
    pub(super) connections: u64,
    /// Whether a hash divides the connections among processes, of which the busiest then has more than its share.
    pub(super) is_hashed: bool,
}

impl Demand {
    /// Every hundred connections need so many, beside what is used already.
    pub(super) fn per_hundred(used: u64, count: u64) -> Self {
        Self::Share(Share {
            used,
            count,
            connections: 100,
            is_hashed: false,
        })
    }

    /// What so many connections need.
    pub(super) fn of(self, connections: u64) -> u64 {
        match self {
            Self::Share(share) => share.of(connections),
            Self::Fixed(needed) | Self::Told(needed) => needed,
        }
    }
}

impl Share {
    fn of(self, connections: u64) -> u64 {
        let all = u128::from(connections) * u128::from(self.count);
        let share = all.div_ceil(self.connections.into()) as u64;
        self.used
            + if self.is_hashed {
                busiest(share)
            } else {
                share
            }
    }

    /// How many connections a value lets through; `None` if it does not bound their number.
    fn holds(self, value: u64) -> Option<u64> {
        let left = value.saturating_sub(self.used);
        let share = if self.is_hashed {
            fair_share(left)
        } else {
            left
        };
        let all = u128::from(share) * u128::from(self.connections);
        let holds = all.checked_div(self.count.into())?;
        Some(holds.try_into().unwrap_or(u64::MAX))
    }
}

/// What the busiest of several processes has where a hash chooses: two standard deviations above the mean, which is also
/// the variance (that of Poisson).
fn busiest(mean: u64) -> u64 {
    mean + (2.0 * (mean as f64).sqrt()).ceil() as u64
}

/// The largest mean of which the busiest process has at most so many: the inverse of [`busiest`].
fn fair_share(most: u64) -> u64 {
    let root = (1.0 + most as f64).sqrt() - 1.0;
    let near = (root * root) as u64;
    // Rounding is off by one at most.
    (near.saturating_sub(1)..=near + 1)
        .rev()
        .find(|mean| busiest(*mean) <= most)
        .unwrap_or(0)
}

/// A limit, and what is asked of it.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    id: &'static str,
    current: Option<u64>,
    demand: Demand,
    /// Its verdict if it is too low.
    too_low: Verdict,
    /// What its texts tell of.
    facts: Value,
}

/// A limit and its verdict, as the answer has it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    pub(super) id: &'static str,
    pub(super) limit: &'static str,
    pub(super) unit: &'static str,
    pub(super) current: Option<u64>,
    pub(super) needed: u64,
    /// `None` if it does not bound their number.
    pub(super) holds_connections: Option<u64>,
    pub(super) verdict: Verdict,
    /// Further facts about the limit.
    pub(super) note: String,
    /// The command that raises it, and the way to make that permanent; `None` where nothing need be done.
    pub(super) fix_now: Option<String>,
    pub(super) fix_persistent: Option<String>,
}

/// A text of a limit, by its name in the file.
fn text(id: &str, name: &str) -> Option<&'static str> {
    let mut blocks = TEXTS.split("\n\n");
    let block = blocks.find(|block| block.lines().next() == Some(id))?;
    block
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
}

impl Limit {
    /// A limit that fails the run if it is too low.
    pub(super) fn new(id: &'static str, current: Option<u64>, demand: Demand) -> Self {
        Self {
            id,
            current,
            demand,
            too_low: Verdict::Short,
            facts: context! {},
        }
    }

    /// One that a sysctl sets, whose name is among the texts.
    pub(super) fn of_sysctl(machine: Machine<'_>, id: &'static str, demand: Demand) -> Self {
        let current = text(id, "sysctl").and_then(|name| machine.sysctl(name));
        Self::new(id, current, demand)
    }

    /// The same with another value, which follows from the present one.
    pub(super) fn map(mut self, value: impl FnOnce(u64) -> u64) -> Self {
        self.current = self.current.map(value);
        self
    }

    /// A limit that is too low has this verdict, and bounds no number of connections.
    pub(super) fn or(mut self, verdict: Verdict) -> Self {
        self.too_low = verdict;
        self
    }

    /// What its texts tell of, beside what all texts may: `needed`, `sysctl`, and the `value` that suffices.
    pub(super) fn with(mut self, facts: Value) -> Self {
        self.facts = facts;
        self
    }

    /// Compares it with what so many connections need.
    ///
    /// # Errors
    /// One of its texts is no template, or tells of what is no fact.
    pub(super) fn row(self, connections: u64, templates: &Environment<'_>) -> Result<Row, Error> {
        let (id, needed) = (self.id, self.demand.of(connections));
        let holds = match self.demand {
            Demand::Share(share) => self.current.and_then(|value| share.holds(value)),
            _ => None,
        };
        let verdict = match (self.demand, self.current, holds) {
            (Demand::Told(_), ..) => Verdict::Fits,
            (_, None, _) => Verdict::Unknown,
            (_, _, Some(holds)) if holds < connections => self.too_low,
            (Demand::Fixed(_), Some(value), _) if value < needed => self.too_low,
            _ => Verdict::Fits,
        };
        let text = |name| text(id, name).unwrap_or_default();
        let (sysctl, value) = (text("sysctl"), needed.next_power_of_two());
        let facts = context! { ..self.facts, ..context! { needed, sysctl, value } };
        let is_low = matches!(verdict, Verdict::Short | Verdict::Slows);
        let block = if sysctl.is_empty() { id } else { "sysctl" };
        let fix = |name| {
            let fix = self::text(block, name).unwrap_or_default();
            let fix = is_low.then(|| templates.render_str(fix, &facts));
            fix.transpose()
        };
        Ok(Row {
            id,
            limit: text("limit"),
            unit: text("unit"),
            current: self.current,
            needed,
            holds_connections: holds.filter(|_| self.too_low == Verdict::Short),
            verdict,
            note: templates.render_str(text("note"), &facts)?,
            fix_now: fix("now")?,
            fix_persistent: fix("permanently")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_has_a_name_and_a_unit() {
        for block in TEXTS.split("\n\n").skip(2) {
            let has = |name: &str| block.lines().any(|line| line.starts_with(name));
            assert!(has("limit ") && has("unit "), "{block}");
            assert!(!has("now ") || has("permanently "), "{block}");
        }
    }
}
