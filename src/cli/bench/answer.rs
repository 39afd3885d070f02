//! What a command has measured.

use super::rate_search::Search;
use super::run::Run;

/// What a command has measured: a run, or several, of which a search has found one or none.
#[derive(Debug)]
pub(super) struct Answer {
    /// All runs, in the order in which they were made.
    pub(super) runs: Vec<Run>,
    pub(super) search: Option<Search>,
}

impl Answer {
    /// The run that is the result: the last, and of a search the best. `None` if the search has found nothing.
    pub(super) fn result(&self) -> Option<&Run> {
        match &self.search {
            Some(search) => self.runs.get(search.best?),
            None => self.runs.last(),
        }
    }

    /// What a search has found, or has not, in a sentence.
    pub(super) fn finding(&self) -> Option<String> {
        let search = self.search.as_ref()?;
        Some(search.finding(&self.runs))
    }
}
