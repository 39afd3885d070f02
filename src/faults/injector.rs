//! What the sockets and the selector of a faulty server share: the orders, the queue of what is due, and the random numbers.

use super::order::Faults;
use super::schedule::DueQueue;
use crate::random::Random;
use crate::reactor::Token;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

/// The shared state of one server; a copy shares it.
#[derive(Clone, Debug)]
pub(super) struct Injector(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    faults: Faults,
    due: RefCell<DueQueue>,
    random: RefCell<Random>,
}

impl Injector {
    pub(super) fn new(faults: Faults) -> Self {
        Self(Rc::new(Shared {
            due: RefCell::default(),
            random: RefCell::new(Random::new(faults.seed)),
            faults,
        }))
    }

    pub(super) fn faults(&self) -> &Faults {
        &self.0.faults
    }

    /// Whether the next datagram is to be dropped.
    pub(super) fn drops(&self) -> bool {
        let share = self.0.faults.drop_share;
        share > 0.0 && self.0.random.borrow_mut().fraction() <= share
    }

    /// When the next source is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.0.due.borrow().next()
    }

    /// Takes the next source that is due by `now`.
    pub(super) fn pop_due(&self, now: Instant) -> Option<Token> {
        self.0.due.borrow_mut().pop(now)
    }
}

/// The reports that one source has asked for.
#[derive(Debug)]
pub(super) struct Reports {
    injector: Injector,
    /// `None` until the source is registered.
    token: Option<Token>,
    /// The report that was asked for last.
    at: Option<Instant>,
}

impl Reports {
    pub(super) fn new(injector: Injector) -> Self {
        Self {
            injector,
            token: None,
            at: None,
        }
    }

    pub(super) fn injector(&self) -> &Injector {
        &self.injector
    }

    pub(super) fn set_token(&mut self, token: Token) {
        self.token = Some(token);
    }

    /// Has the source reported at this time, unless it was asked for already.
    pub(super) fn ask(&mut self, at: Option<Instant>) {
        if self.at != at {
            self.ask_again(at);
        }
    }

    /// Has the source reported at this time, also if it was reported then, and the report came to nothing.
    pub(super) fn ask_again(&mut self, at: Option<Instant>) {
        if let (Some(at), Some(token)) = (at, self.token) {
            self.injector.0.due.borrow_mut().push(at, token);
            self.at = Some(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    pub(super) fn faults(drop_share: f64, seed: u64) -> Injector {
        Injector::new(Faults {
            delay: Duration::ZERO,
            stall: None,
            drop_share,
            close_after: None,
            fin_timeout: Duration::ZERO,
            seed,
        })
    }

    #[test]
    fn the_share_is_that_of_the_order_and_the_choice_that_of_the_seed() {
        let choice = |share, seed| -> Vec<bool> {
            let injector = faults(share, seed);
            (0..100_000).map(|_| injector.drops()).collect()
        };
        let count = |share, seed| choice(share, seed).iter().filter(|drop| **drop).count();
        assert_eq!((count(0.0, 1), count(1.0, 1)), (0, 100_000));
        let hundredth = count(0.01, 1);
        assert!((900..1_100).contains(&hundredth), "{hundredth}");
        assert_eq!(choice(0.01, 7), choice(0.01, 7));
        assert_ne!(choice(0.01, 7), choice(0.01, 8));
    }

    #[test]
    fn a_report_is_asked_for_once() {
        let injector = faults(0.0, 1);
        let mut reports = Reports::new(injector.clone());
        let now = Instant::now();
        reports.ask(Some(now)); // not registered yet
        reports.set_token(Token(3));
        for _ in 0..2 {
            reports.ask(Some(now));
            reports.ask(None);
        }
        assert_eq!(injector.pop_due(now), Some(Token(3)));
        assert_eq!(injector.pop_due(now), None);
        reports.ask_again(Some(now));
        assert_eq!(
            (injector.next_due(), injector.pop_due(now)),
            (Some(now), Some(Token(3)))
        );
    }
}
