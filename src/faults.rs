//! Faults to order: a server that is late, stands still, drops datagrams or ends connections, by figures that are known.
//!
//! They are for the calibration of load generators: what a generator reports has to be what was ordered.
//!
//! ```text
//!   echo::Server<Faulty<Os>>
//!        │ read, receive                                        wait
//!        ▼                                                        ▼
//!   FaultyStream, FaultyDatagrams ── "due at this time" ──▶ FaultySelector: reports the source again when it is due,
//!        │ what arrives waits in a delay line                     │         and returns from no wait during a stall
//!        ▼                                                        ▼
//!   those of Os                                              that of Os
//! ```
//!
//! [`Faulty`] is a [`Backend`] around another one, as that of [`trace`](crate::trace) is. So the server is the same, line by
//! line, and a server without ordered faults is compiled without a trace of this module.
//!
//! | fault | where | exact |
//! |---|---|---|
//! | [`Faults::delay`] | input waits in a [`delay_line`] | no byte is answered earlier than this after it arrived |
//! | [`Faults::stall`] | the selector sleeps | no turn begins within a stall |
//! | [`Faults::drop_share`] | datagrams, as they are received | which ones, follows from the seed |
//! | [`Faults::close_after`] | a stream gives no more bytes, and sends FIN | the number of echoed bytes |
//!
//! The delay is one of input, so that backpressure, FIN and all counters are those of the server; it waits in a delay line,
//! since a readiness that is merely reported late would hand over bytes that arrived in the meantime, and their answers would
//! be early. What is due is told by a timer of the kernel (timerfd): the timeout of epoll_wait(2) counts milliseconds.
//!
//! An input that waits counts as one spurious event, and one whose connection has ended meanwhile as a stale event. What
//! waits in a delay line when its connection or the server ends is lost, uncounted as in the kernel's own buffers.
//!
//! In reading order: `order`, `schedule`, `delay_line`, `injector`, `selector`, `stream`, `datagrams`.

mod datagrams;
mod delay_line;
mod injector;
mod order;
mod schedule;
mod selector;
mod stream;

pub(crate) use order::{Faults, Stall};
pub(crate) use selector::FaultySelector;

use crate::echo::{Backend, Native, Os};
use crate::net::{DatagramSocket, ListenerSocket};
use crate::reactor::Epoll;
use datagrams::FaultyDatagrams;
use std::marker::PhantomData;
use stream::{FaultyListener, FaultyStream};

/// The backend `B` with ordered faults between it and the server. It is the name of types alone, and has no values.
#[derive(Debug)]
pub(crate) struct Faulty<B>(PhantomData<B>);

impl<B: Backend> Backend for Faulty<B> {
    type Selector = FaultySelector<B::Selector>;
    type Stream = FaultyStream<B::Stream>;
    type Listener = FaultyListener<B::Listener>;
    type Datagrams = FaultyDatagrams<B::Datagrams>;
}

impl Native for Faulty<Os> {
    fn epoll(selector: &Self::Selector) -> &Epoll {
        selector.inner()
    }

    fn listener(selector: &Self::Selector, socket: ListenerSocket) -> Self::Listener {
        FaultyListener::new(socket, selector.injector())
    }

    fn datagrams(selector: &Self::Selector, socket: DatagramSocket) -> Self::Datagrams {
        FaultyDatagrams::new(socket, selector.injector())
    }
}
