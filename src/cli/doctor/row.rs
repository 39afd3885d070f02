//! One row of the answer of `doctor`: a limit, its value, what is needed, how many connections it lets through, and the
//! verdict. The texts of all limits are data, in `limits.txt`.

const TEXTS: &str = include_str!("limits.txt");

/// How a limit compares with what is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl Verdict {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Fits => "fits",
            Self::Raised => "raised",
            Self::Short => "short",
            Self::Slows => "slows",
            Self::Unknown => "unknown",
        }
    }
}

/// What is asked of a limit.
#[derive(Clone, Copy, Debug)]
pub(super) enum Demand {
    /// Every hundred connections need so many, beside what is used already: such a limit bounds their number.
    PerHundred { used: u64, count: u64 },
    /// Each of so many processes needs one for each of its connections, beside what is used already. Where a hash chooses the
    /// process, the busiest has more than its share.
    PerProcess {
        used: u64,
        processes: u64,
        is_hashed: bool,
    },
    /// A number that does not depend on the connections.
    Fixed(u64),
    /// A number that is told, though nothing depends on it here.
    Told(u64),
}

impl Demand {
    /// What so many connections need.
    pub(super) fn of(self, connections: u64) -> u64 {
        match self {
            Self::PerHundred { used, count } => {
                let all = u128::from(connections) * u128::from(count);
                used + all.div_ceil(100) as u64
            }
            Self::PerProcess {
                used,
                processes,
                is_hashed,
            } => {
                let share = connections.div_ceil(processes);
                used + if is_hashed { busiest(share) } else { share }
            }
            Self::Fixed(needed) | Self::Told(needed) => needed,
        }
    }

    /// How many connections a value lets through; `None` if it does not bound their number.
    fn holds(self, value: u64) -> Option<u64> {
        match self {
            Self::PerHundred { used, count } if count > 0 => {
                let hundreds = u128::from(value.saturating_sub(used)) * 100 / u128::from(count);
                Some(hundreds.try_into().unwrap_or(u64::MAX))
            }
            Self::PerProcess {
                used,
                processes,
                is_hashed,
            } => {
                let left = value.saturating_sub(used);
                let share = if is_hashed { fair_share(left) } else { left };
                Some(share.saturating_mul(processes))
            }
            _ => None,
        }
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

/// A limit and its verdict.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The name of the limit in JSON.
    pub(super) id: &'static str,
    pub(super) current: Option<u64>,
    pub(super) needed: u64,
    /// Connections that the limit lets through; `None` if it does not bound their number.
    pub(super) holds: Option<u64>,
    pub(super) verdict: Verdict,
    /// The word that selects its note.
    variant: &'static str,
    /// What stands for the words in braces of its texts.
    words: Vec<(&'static str, String)>,
}

impl Row {
    /// A limit that is too low fails the run.
    pub(super) fn new(
        id: &'static str,
        current: Option<u64>,
        demand: Demand,
        connections: u64,
    ) -> Self {
        let (needed, holds) = (
            demand.of(connections),
            current.and_then(|value| demand.holds(value)),
        );
        let verdict = match (demand, current, holds) {
            (Demand::Told(_), ..) => Verdict::Fits,
            (_, None, _) => Verdict::Unknown,
            (_, _, Some(holds)) if holds < connections => Verdict::Short,
            (Demand::Fixed(_), Some(value), _) if value < needed => Verdict::Short,
            _ => Verdict::Fits,
        };
        let words = vec![("needed", needed.to_string())];
        Self {
            id,
            current,
            needed,
            holds,
            verdict,
            variant: "",
            words,
        }
    }

    /// A limit that is too low has this verdict, and bounds no number of connections.
    pub(super) fn or(mut self, verdict: Verdict) -> Self {
        self.holds = None;
        if self.verdict == Verdict::Short {
            self.verdict = verdict;
        }
        self
    }

    /// The word that selects its note, if it applies.
    pub(super) fn variant(mut self, applies: bool, word: &'static str) -> Self {
        if applies {
            self.variant = word;
        }
        self
    }

    /// What stands for a word in braces.
    pub(super) fn word(mut self, word: &'static str, text: impl Into<String>) -> Self {
        self.words.push((word, text.into()));
        self
    }

    pub(super) fn limit(&self) -> &'static str {
        self.text("limit").unwrap_or(self.id)
    }

    pub(super) fn unit(&self) -> &'static str {
        self.text("unit").unwrap_or_default()
    }

    /// Further facts about the limit.
    pub(super) fn note(&self) -> String {
        let variant = self.text(&format!("note-{}", self.variant));
        self.filled(variant.or(self.text("note")).unwrap_or_default())
    }

    /// The command that raises the limit now, and the way to make that permanent; `None` where nothing need be done.
    pub(super) fn fix(&self) -> Option<(String, String)> {
        if !matches!(self.verdict, Verdict::Short | Verdict::Slows) {
            return None;
        }
        if let Some(name) = self.text("sysctl") {
            let value = self.words.iter().find(|(word, _)| *word == "value");
            let value = value.map_or(self.needed.next_power_of_two().to_string(), |(_, value)| {
                value.clone()
            });
            return Some((
                format!("sudo sysctl -w {name}='{value}'"),
                format!("echo '{name} = {value}' | sudo tee -a /etc/sysctl.d/90-echo-reactor.conf"),
            ));
        }
        Some((
            self.filled(self.text("now")?),
            self.filled(self.text("permanently")?),
        ))
    }

    /// A text of this limit, by its name in the file.
    fn text(&self, name: &str) -> Option<&'static str> {
        let mut blocks = TEXTS.split("\n\n");
        let block = blocks.find(|block| block.lines().next() == Some(self.id))?;
        block
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
    }

    fn filled(&self, text: &str) -> String {
        let fill = |text: String, (word, with): &(&str, String)| {
            text.replace(&format!("{{{word}}}"), with)
        };
        self.words.iter().fold(text.to_owned(), fill)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_block_has_a_name_and_a_unit() {
        for block in TEXTS.split("\n\n").skip(1) {
            let has = |name: &str| block.lines().any(|line| line.starts_with(name));
            assert!(has("limit ") && has("unit "), "{block}");
            assert!(!has("now ") || has("permanently "), "{block}");
        }
    }
}
