//! What the loop did, as events: recorded in memory, written to a file, read back, and told in words.
//!
//! Unpromised: public for readers of this documentation; names and signatures may change in any release.
//!
//! ```text
//!   echo::Server<Traced<Os>>
//!        │ calls: wait, register, accept, read, write, shutdown      decisions: requeued, paused, closed
//!        ▼                                                                       ▼
//!   Traced sockets and selector ─────────────▶ Recorder (a ring of records) ◀────┘
//!        │                                          │
//!        ▼                                          ▼
//!   those of Os, or of the simulation           Trace ──▶ bytes ──▶ Trace ──▶ text, page, Trace Event JSON
//! ```
//!
//! [`Traced`] is a [`Backend`](crate::echo::Backend) around another one: each of its sockets holds a socket of the other,
//! passes every call on, and records it with its result. So the server is the same, line by line, and a server that is not
//! recorded is compiled without a trace of this module. What the server decides without a call, the reactor tells by
//! [`Selector::note`](crate::reactor::Selector::note) and the rest by [`Backend::note`](crate::echo::Backend::note).
//!
//! A [`Record`] has 32 bytes and no payload: what was called on which source, how many bytes, which error. The ring holds
//! the last ones. [`Trace`] is the ring in order, and the format of its file; [`Text`] tells it line by line, with the state
//! of each connection from [`state`]. [`page`] shows the same in a browser, and [`perfetto`] is for
//! ui.perfetto.dev.
//!
//! In reading order: [`record`], [`traced`], [`recorder`], `ring`, [`mod@file`], [`state`], `words`, [`text`];
//! [`page`] with `meaning`, [`perfetto`].

pub mod file;
mod meaning;
pub mod page;
pub mod perfetto;
pub mod record;
pub mod recorder;
mod ring;
pub mod state;
pub mod text;
pub mod traced;
mod words;

pub use file::{ReadError, Trace};
pub use record::{Kind, Record};
pub use recorder::Recorder;
pub use text::Text;
pub use traced::Traced;
