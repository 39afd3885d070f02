//! The story of one seed: what the clients and the network do, beside what the server does.

use super::Simulation;
use crate::simulation::network::Simulated;
use crate::trace::page::{Note, page_with_notes};
use crate::trace::text::Lines;
use crate::trace::traced::TracedSelector;
use crate::trace::{Kind, Record, Recorder, Trace, Traced};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

/// More records than any seed makes.
const RECORDS: usize = 1 << 22;

/// What happened in one seed, in order. It follows from the seed alone, to the byte.
#[derive(Clone, Debug)]
pub struct Story {
    steps: Vec<Step>,
    /// The invariant that did not hold, if one did not.
    pub failure: Option<String>,
}

#[derive(Clone, Debug)]
enum Step {
    /// Clients or the network, after this many turns.
    Network(usize, String),
    /// The server.
    Server(Record),
}

/// Runs the server through one seed, and tells what happens until its end or until an invariant does not hold.
#[must_use]
pub fn tell(seed: u64) -> Story {
    let recorder = Recorder::simulated(RECORDS);
    let told = Rc::new(RefCell::new(Told {
        recorder: recorder.clone(),
        count: 0,
        steps: Vec::new(),
    }));
    let (listening, wrapped) = (Rc::clone(&told), recorder);
    let run = move || {
        let teller = move |turns: usize, what: &str| listening.borrow_mut().network(turns, what);
        let wrap = |queue| TracedSelector::new(queue, wrapped);
        Simulation::<Traced<Simulated>>::new(seed, wrap, Some(Box::new(teller))).run();
    };
    let failure = catch_unwind(AssertUnwindSafe(run)).err().map(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
        text.unwrap_or_else(|| "a panic without a message".to_owned())
    });
    let mut told = told.borrow_mut();
    told.catch_up();
    Story {
        steps: std::mem::take(&mut told.steps),
        failure,
    }
}

/// What is told so far.
struct Told {
    recorder: Recorder,
    /// Records that are among the steps.
    count: u64,
    steps: Vec<Step>,
}

impl Told {
    fn network(&mut self, turns: usize, what: &str) {
        self.catch_up();
        self.steps.push(Step::Network(turns, what.to_owned()));
    }

    /// Adds what the server has done since the last step.
    fn catch_up(&mut self) {
        let records = self.recorder.since(self.count);
        self.count = self.recorder.total();
        self.steps.extend(records.into_iter().map(Step::Server));
    }
}

impl Story {
    /// The story up to the first event of this kind, that one included; whole, if there is none.
    #[must_use]
    pub fn until(mut self, kind: Kind) -> Self {
        let is_end = |step: &Step| matches!(step, Step::Server(record) if record.kind == kind);
        if let Some(place) = self.steps.iter().position(is_end) {
            self.steps.truncate(place + 1);
        }
        self
    }

    /// Returns a line for each step. Those of the network are indented to the column of events, behind an arrow.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let mut lines = Lines::default();
        let steps = self.steps.iter().map(move |step| match step {
            Step::Network(turns, what) => format!("{turns:>21}  ------> {what}"),
            Step::Server(record) => lines.next(record),
        });
        std::iter::once(Lines::head()).chain(steps)
    }

    /// Makes the page that steps through the story, forwards and back.
    #[must_use]
    pub fn page(&self, title: &str) -> String {
        let mut records = 0;
        let mut notes = Vec::new();
        for step in &self.steps {
            match step {
                Step::Server(_) => records += 1,
                Step::Network(_, what) => notes.push(Note {
                    before: records,
                    text: what.clone(),
                }),
            }
        }
        page_with_notes(&self.trace(), &notes, title)
    }

    /// What the server did, alone.
    #[must_use]
    pub fn trace(&self) -> Trace {
        let records = self.steps.iter().filter_map(|step| match step {
            Step::Server(record) => Some(*record),
            Step::Network(..) => None,
        });
        Trace {
            records: records.collect(),
            ..Trace::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::page::PAGE_BYTES_MAX;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_is_told_in_the_same_bytes_each_time() {
        for seed in 0..100 {
            let [first, second] = [tell(seed), tell(seed)];
            assert_eq!(first.failure, None);
            assert!(first.lines().eq(second.lines()), "seed {seed}");
            assert_eq!(first.trace().to_bytes(), second.trace().to_bytes());
            let [page, again] = [first, second].map(|story| story.page("a seed"));
            assert!(page == again && page.len() <= PAGE_BYTES_MAX, "seed {seed}");
            assert!(page.contains("client 0 connects"), "seed {seed}");
        }
    }

    /// A recorded server takes the same way through a seed as one that is not.
    #[test]
    fn recording_changes_nothing() {
        for seed in 0..100 {
            let heard = Rc::new(RefCell::new(Vec::new()));
            let hears = Rc::clone(&heard);
            let teller = move |turns: usize, what: &str| {
                hears.borrow_mut().push(format!("{turns} {what}"));
            };
            Simulation::<Simulated>::new(seed, |queue| queue, Some(Box::new(teller))).run();
            let told = tell(seed).steps.into_iter().filter_map(|step| match step {
                Step::Network(turns, what) => Some(format!("{turns} {what}")),
                Step::Server(_) => None,
            });
            assert_eq!(*heard.borrow(), told.collect::<Vec<_>>(), "seed {seed}");
        }
    }

    /// What a server does before a source is registered, as with a connection that is rejected, is done to no source.
    #[test]
    fn every_source_is_registered_before_it_is_named() {
        let mut rejected = 0;
        for seed in 0..100 {
            let mut registered = BTreeSet::new();
            for record in tell(seed).trace().records {
                rejected += u32::from(record.kind == Kind::Rejected);
                let Some(source) = record.source() else {
                    continue;
                };
                if record.kind == Kind::Registered {
                    registered.insert(source);
                }
                assert!(registered.contains(&source), "seed {seed}: {record:?}");
            }
        }
        assert!(rejected > 0);
    }

    #[test]
    fn a_story_ends_with_the_first_event_of_a_kind() {
        let story = tell(42).until(Kind::Closed);
        let records = story.trace().records;
        let closed = records
            .iter()
            .position(|record| record.kind == Kind::Closed);
        assert_eq!(closed, Some(records.len() - 1));
        assert!(
            story
                .lines()
                .any(|line| line.contains("------> client 0 connects"))
        );
    }
}
