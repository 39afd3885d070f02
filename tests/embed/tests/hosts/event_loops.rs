//! Event loops that are not the server's own, all behind one trait: each watches descriptors and says which are readable.
//!
//! What may live in this file: the loops, and how each is told of a descriptor. What the server must do in them is in
//! `main`. All wait for edges, for levels, or for one event at a time, since a host has the choice.

use std::future::poll_fn;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::task::Poll;
use std::time::Duration;

/// An event loop that is not the server's own.
pub(crate) trait Host {
    /// Its name, for messages of tests.
    const NAME: &'static str;

    /// A loop that watches nothing as yet.
    fn new() -> Self;

    /// Watches a descriptor, under a number.
    fn watch(&mut self, descriptor: OwnedFd, number: usize);

    /// Waits for at most `max_wait`, and returns the numbers of the descriptors that are readable.
    fn wait(&mut self, max_wait: Duration) -> Vec<usize>;
}

/// mio, which reports edges.
pub(crate) struct Mio {
    poll: mio::Poll,
    events: mio::Events,
    watched: Vec<OwnedFd>,
}

impl Host for Mio {
    const NAME: &'static str = "mio";

    fn new() -> Self {
        Self {
            poll: mio::Poll::new().unwrap(),
            events: mio::Events::with_capacity(8),
            watched: Vec::new(),
        }
    }

    fn watch(&mut self, descriptor: OwnedFd, number: usize) {
        let source = &mut mio::unix::SourceFd(&descriptor.as_raw_fd());
        let registry = self.poll.registry();
        registry
            .register(source, mio::Token(number), mio::Interest::READABLE)
            .unwrap();
        self.watched.push(descriptor);
    }

    fn wait(&mut self, max_wait: Duration) -> Vec<usize> {
        self.poll.poll(&mut self.events, Some(max_wait)).unwrap();
        self.events.iter().map(|event| event.token().0).collect()
    }
}

/// polling, in one of its modes: 0 is one event at a time, 1 level-triggered, 2 edge-triggered.
pub(crate) struct Polling<const MODE: u8> {
    poller: polling::Poller,
    watched: Vec<(OwnedFd, usize)>,
}

impl<const MODE: u8> Host for Polling<MODE> {
    const NAME: &'static str =
        ["polling, oneshot", "polling, level", "polling, edge"][MODE as usize];

    fn new() -> Self {
        Self {
            poller: polling::Poller::new().unwrap(),
            watched: Vec::new(),
        }
    }

    fn watch(&mut self, descriptor: OwnedFd, number: usize) {
        use polling::PollMode::{Edge, Level, Oneshot};
        let mode = [Oneshot, Level, Edge][usize::from(MODE)];
        let event = polling::Event::readable(number);
        // SAFETY: polling asks that the descriptor is deleted from the poller before it is closed. `drop` does that.
        unsafe {
            self.poller.add_with_mode(&descriptor, event, mode).unwrap();
        }
        self.watched.push((descriptor, number));
    }

    fn wait(&mut self, max_wait: Duration) -> Vec<usize> {
        let mut events = polling::Events::new();
        self.poller.wait(&mut events, Some(max_wait)).unwrap();
        let ready: Vec<usize> = events.iter().map(|event| event.key).collect();
        if MODE == 0 {
            for (descriptor, number) in &self.watched {
                if ready.contains(number) {
                    let event = polling::Event::readable(*number);
                    self.poller.modify(descriptor, event).unwrap();
                }
            }
        }
        ready
    }
}

impl<const MODE: u8> Drop for Polling<MODE> {
    fn drop(&mut self) {
        for (descriptor, _) in &self.watched {
            let _ = self.poller.delete(descriptor.as_fd());
        }
    }
}

/// calloop: with `true` edge-triggered, with `false` level-triggered, as it is used mostly.
pub(crate) struct Calloop<const EDGE: bool> {
    event_loop: calloop::EventLoop<'static, Vec<usize>>,
}

impl<const EDGE: bool> Host for Calloop<EDGE> {
    const NAME: &'static str = if EDGE {
        "calloop, edge"
    } else {
        "calloop, level"
    };

    fn new() -> Self {
        Self {
            event_loop: calloop::EventLoop::try_new().unwrap(),
        }
    }

    fn watch(&mut self, descriptor: OwnedFd, number: usize) {
        use calloop::{Interest, Mode, PostAction, generic::Generic};
        let mode = if EDGE { Mode::Edge } else { Mode::Level };
        let source = Generic::new(descriptor, Interest::READ, mode);
        let inserted =
            self.event_loop
                .handle()
                .insert_source(source, move |_, _, ready: &mut Vec<usize>| {
                    ready.push(number);
                    Ok(PostAction::Continue)
                });
        inserted.map_err(|error| error.error).unwrap();
    }

    fn wait(&mut self, max_wait: Duration) -> Vec<usize> {
        let mut ready = Vec::new();
        self.event_loop
            .dispatch(Some(max_wait), &mut ready)
            .unwrap();
        ready
    }
}

/// tokio, on one thread: an `AsyncFd` for each descriptor.
pub(crate) struct Tokio {
    runtime: tokio::runtime::Runtime,
    watched: Vec<(tokio::io::unix::AsyncFd<OwnedFd>, usize)>,
}

impl Host for Tokio {
    const NAME: &'static str = "tokio";

    fn new() -> Self {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        Self {
            runtime: builder.enable_all().build().unwrap(),
            watched: Vec::new(),
        }
    }

    fn watch(&mut self, descriptor: OwnedFd, number: usize) {
        let _guard = self.runtime.enter();
        let interest = tokio::io::Interest::READABLE;
        let descriptor = tokio::io::unix::AsyncFd::with_interest(descriptor, interest).unwrap();
        self.watched.push((descriptor, number));
    }

    fn wait(&mut self, max_wait: Duration) -> Vec<usize> {
        let watched = &self.watched;
        let readable = poll_fn(|context| {
            let mut ready = Vec::new();
            for (descriptor, number) in watched {
                if let Poll::Ready(guard) = descriptor.poll_read_ready(context) {
                    guard.unwrap().clear_ready();
                    ready.push(*number);
                }
            }
            match ready.is_empty() {
                true => Poll::Pending,
                false => Poll::Ready(ready),
            }
        });
        let wait = async { tokio::time::timeout(max_wait, readable).await };
        self.runtime.block_on(wait).unwrap_or_default()
    }
}
