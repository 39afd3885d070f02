//! What was found of one server, as the reports take it.

use crate::check::Outcome;

/// A server, and the verdict on each rule that concerns it.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) name: String,
    pub(super) outcomes: Vec<Outcome>,
}
