//! One row of the answer of `doctor`: a limit, its current value, what is needed, and the verdict.

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

/// The unit of a row's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    Descriptors,
    Files,
    Watches,
    Pairs,
    Places,
    Pages,
    Bytes,
    Entries,
    PerSecond,
}

impl Unit {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Files => "files",
            Self::Watches => "watches",
            Self::Pairs => "address-port pairs",
            Self::Places => "places",
            Self::Pages => "pages",
            Self::Bytes => "bytes",
            Self::Entries => "entries",
            Self::PerSecond => "connections/s",
        }
    }
}

/// One limit and its verdict.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// The name of the limit in JSON.
    pub(super) id: &'static str,
    /// The name of the limit in the table.
    pub(super) limit: &'static str,
    pub(super) unit: Unit,
    pub(super) current: Option<u64>,
    pub(super) needed: u64,
    /// Connections that the limit lets through; `None` if it does not bound their number.
    pub(super) holds: Option<u64>,
    pub(super) verdict: Verdict,
    /// Further facts about the limit.
    pub(super) note: String,
    /// The command that raises the limit now, and the way to make that permanent. Empty where nothing need be done.
    pub(super) fix_now: String,
    pub(super) fix_persistent: String,
}

impl Row {
    /// A row without a verdict yet.
    pub(super) fn new(
        id: &'static str,
        limit: &'static str,
        unit: Unit,
        current: Option<u64>,
        needed: u64,
    ) -> Self {
        let verdict = match current {
            Some(_) => Verdict::Fits,
            None => Verdict::Unknown,
        };
        Self {
            id,
            limit,
            unit,
            current,
            needed,
            holds: None,
            verdict,
            note: String::new(),
            fix_now: String::new(),
            fix_persistent: String::new(),
        }
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }

    /// Sets how many connections the limit lets through; fewer than are asked for fail the run.
    pub(super) fn holds(mut self, holds: Option<u64>, asked: u64) -> Self {
        self.holds = holds;
        if holds.is_some_and(|holds| holds < asked) {
            self.verdict = Verdict::Short;
        }
        self
    }

    /// Sets the verdict if the limit is too low.
    pub(super) fn unless(mut self, enough: bool, verdict: Verdict) -> Self {
        if self.current.is_some() && !enough {
            self.verdict = verdict;
        }
        self
    }

    /// Sets what to do about it; dropped where nothing need be done.
    pub(super) fn fix(mut self, now: impl Into<String>, persistent: impl Into<String>) -> Self {
        if matches!(self.verdict, Verdict::Short | Verdict::Slows) {
            (self.fix_now, self.fix_persistent) = (now.into(), persistent.into());
        }
        self
    }

    /// Sets the commands for a limit that is one sysctl.
    pub(super) fn sysctl(self, name: &str, value: impl std::fmt::Display) -> Self {
        let persistent =
            format!("echo '{name} = {value}' | sudo tee -a /etc/sysctl.d/90-echo-reactor.conf");
        self.fix(format!("sudo sysctl -w {name}='{value}'"), persistent)
    }
}
