//! What was found of one server, as the reports take it.

use crate::check::Outcome;

/// A server, and the verdict on each rule that concerns it.
#[derive(Debug)]
pub(super) struct Judged {
    pub(super) name: String,
    pub(super) outcomes: Vec<Outcome>,
}

/// The names of all rules that concern at least one of the servers, each once.
pub(super) fn names(judged: &[Judged]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for outcome in judged.iter().flat_map(|one| &one.outcomes) {
        if !names.contains(&outcome.id.as_str()) {
            names.push(&outcome.id);
        }
    }
    names
}
