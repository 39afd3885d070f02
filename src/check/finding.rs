//! What a rule finds, in the words of reports.

/// What one try of a rule has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The rule holds. The note may be empty.
    Holds(String),
    /// The rule does not hold.
    Broken(Broken),
    /// A figure that is neither right nor wrong.
    Told(String),
    /// The rule was not tried, for this reason.
    NotRun(String),
}

impl Finding {
    /// The rule holds, and there is nothing to say about it.
    pub(super) fn holds() -> Self {
        Self::Holds(String::new())
    }

    /// The rule holds unless something is broken.
    pub(super) fn from(broken: Option<Broken>) -> Self {
        broken.map_or_else(Self::holds, Self::Broken)
    }
}

/// Why a rule does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// What the clients did.
    pub sent: String,
    /// What a conforming server does.
    pub expected: String,
    /// What this server did, with offsets and bytes.
    pub got: String,
    /// Nothing came: a matter of time, in which the server may have had no processor.
    pub is_silence: bool,
}

/// Why nothing can be said of the server: the checker's own machine was the limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit(pub String);

/// A number of bytes in words.
pub(super) fn bytes(count: u64) -> String {
    match count {
        1 => "1 byte".to_owned(),
        _ => format!("{count} bytes"),
    }
}
