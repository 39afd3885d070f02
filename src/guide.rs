//! The journey of one byte, the contract of an edge, and the places where beginners slip. No code lives here; every
//! lesson names the lines that do it.
//!
//! Read this page, then [`reactor`](crate::reactor), then [`echo`](crate::echo) and
//! [`echo::connection`](crate::echo::connection): some twelve hundred lines, half of them prose. Then run the server with
//! `-v`, connect `nc 127.0.0.1 50007`, and type.
//!
//! # Why a loop at all
//!
//! A thread that calls `read` sleeps until something comes. With ten clients that is the best program there is: ten
//! threads, ten straight lines of thought ([`blocking`](crate::blocking) is exactly that). With ten thousand clients it
//! is ten thousand stacks, and a kernel that decides who runs. The loop turns the question round: instead of asking one
//! socket and sleeping, it asks the kernel *which* of ten thousand sockets would not make it sleep, and only talks to
//! those. What the thread kept on its stack (how much was read, what is still to be written) the loop has to keep
//! itself: that is [`Connection`](crate::echo::connection::Connection), and it is small.
//!
//! # The journey of one byte
//!
//! 1. The byte arrives. The kernel puts it into the socket's receive buffer and, since the socket is registered, its
//!    token onto the list of the ready.
//! 2. [`Reactor::wait`](crate::reactor::Reactor::wait) calls `epoll_wait`, which returns the tokens on that list, and
//!    writes them into the run queue of this turn.
//! 3. [`Reactor::next_event`](crate::reactor::Reactor::next_event) names a key; `Server::on_ready` in `echo/server.rs` asks
//!    [`Reactor::begin_event`](crate::reactor::Reactor::begin_event) who that is. If it is somebody who has left since, the answer is
//!    nobody, and that is all.
//! 4. [`Connection::advance`](crate::echo::connection::Connection::advance) reads the byte into the read buffer, the one
//!    buffer that all connections share, and writes it back at once. This is where nearly every journey ends: one
//!    `recvfrom`, one `sendto`, a share of one `epoll_wait`.
//! 5. If the peer takes less than it sent, the rest becomes its [tail](crate::echo::write_buffer), and the connection waits to
//!    write instead of to read. Nothing more is read from it; its own sender feels that, through TCP, as a full window.
//!    This is **backpressure**, and all it took was not to read.
//! 6. When there is room again, the tail is paid, and the connection goes back to reading.
//!
//! # The contract of an edge
//!
//! epoll can tell of a *level* ("there is something to read") or of an *edge* ("something has come"). mio uses edges. An
//! edge is told once. Whoever is told must therefore do one of three things, and there is no fourth:
//!
//! - go on until the call says `WouldBlock`: then the next byte will be a new edge;
//! - stop early, and put itself into the run queue ([`Reactor::requeue`](crate::reactor::Reactor::requeue)), since nobody else
//!   will say it again;
//! - register anew ([`Reactor::set_registration`](crate::reactor::Reactor::set_registration)): the kernel then looks afresh, and tells what is
//!   ready already.
//!
//! # Where beginners slip
//!
//! ## Reading once
//! The first edge-triggered server that everybody writes reads once per event. It works until a message is longer than
//! the buffer; then the rest stays in the kernel, and no event will ever tell of it. *Here:* the loop in
//! `Connection::echo_all`. *Test:* `simulation::script` takes a connection through every script of six calls and demands that
//! it stops only when the socket is empty.
//!
//! ## Trusting a short read
//! If `read` returns less than the buffer holds, the socket is empty, and the call that would say `WouldBlock` can be
//! saved: epoll(7) says so of streams. It is true of TCP, with two exceptions. When the peer's FIN came *with* the data,
//! both are one edge, and whoever stops after the data never hears of the end. And urgent data ends a read early. The
//! event tells of both, so that is what [`Readiness`](crate::reactor::Readiness) knows: plain, or special. On Unix sockets it is
//! not true at all: a message that carries descriptors ends a read, with more behind it
//! ([`Stream::short_read_means_empty`](crate::net::Stream::short_read_means_empty)). *Here:* the condition below
//! `Connection::echo_all`'s echo. *Tests:* `tests/it/kernel.rs` shows each of these facts.
//!
//! ## `Ok(0)`
//! From a stream, zero bytes is the end of input: the peer said FIN. It is not an error, and not "nothing yet" (that is
//! `WouldBlock`). From a datagram socket it is a datagram of no bytes, to be answered with one
//! ([`exchange`](crate::echo::datagram)).
//!
//! ## Closing at the end of input
//! FIN says that the peer will *send* nothing more. It may still be reading. A server that closes at once cuts the echo
//! of whatever it had not written yet. Here that cannot happen, for a reason that is worth a minute's thought: nothing is
//! read while something is unsent, FIN is seen by reading, so when it is seen nothing is unsent.
//!
//! ## Waiting for WRITABLE all the time
//! A socket is writable nearly always, so as a level it spins, and as an edge it fires once, right after registration,
//! and then never again until a write has failed. So write first; only when the socket is full, ask to be told.
//! Asking for both at once costs nothing on TCP but doubles the wake-ups of Unix sockets. *Here:*
//! [`Wait::Writing`](crate::echo::connection::Wait::Writing), and [`Interest`](crate::reactor::Interest), which is one or the
//! other.
//!
//! ## `write_all`
//! Blocking code may say `write_all`; on a non-blocking socket it gives up in the middle, and does not tell where. Every
//! write here is one call, whose count is believed (`write_some` in `connection.rs`).
//!
//! ## Buffering without a bound
//! The obvious cure for a short write is a queue. If reading goes on meanwhile, a client that sends and never reads
//! fills it with gigabytes. A tail of at most one read buffer is the same cure with a bound. It has a price that clients
//! should know: *who writes everything before reading anything will stall*, once the buffers of both kernels are full, until
//! it reads. That is not a fault of the server. `echo-reactor send -` reads and writes at once.
//!
//! ## The token of somebody who has left
//! epoll hands over a batch of events. While the first is handled, the connection of the seventh may be closed, and a
//! new connection may get its slot: slab gives out the slot freed last. The seventh event then wakes a stranger. So a
//! [`Key`](crate::reactor::Key) has a serial number beside the slot, and a key that does not match is nobody's.
//!
//! ## Accepting once
//! A listener is edge-triggered too: a hundred clients that arrive together are one event. So `accept` until it would
//! block. But not for ever: a flood of new connections would starve those who are connected, so after
//! [`accept_budget`](crate::Limits::accept_budget) the listener queues up again. *Here:* `Server::accept` in `echo/coming.rs`.
//!
//! ## Running out of descriptors
//! `accept` fails with `EMFILE`, and the client stays in the queue. A level-triggered loop now spins at full speed; an
//! edge-triggered one falls silent for ever, since the edge is spent: closing descriptors raises no new one. *Here:* the
//! [accept gate](crate::echo::accept_gate) pauses, and tries again when a connection closes, or after a tenth of a second.
//!
//! ## One who never stops sending
//! A loop that drains each socket to the last byte belongs to whoever sends fastest. Each connection has a budget per turn
//! ([`read_budget_bytes`](crate::Limits::read_budget_bytes)), and goes to the end of the queue when it is spent
//! ([`Outcome::Yield`](crate::echo::connection::Outcome::Yield)).
//!
//! ## The short queue
//! Clients connect before the server accepts; until then they stand in the kernel's accept queue. When it is full their
//! SYN is dropped, and they try again after a second: the "connects that take exactly 1.0 s" of so many benchmarks. std
//! and mio ask for 128 places. *Here:* `net::bind` asks for all there are.
//!
//! ## Judging the idle by the clock alone
//! If the process sleeps for a minute (a laptop lid, a debugger), every deadline has passed when it wakes, and what the
//! clients have sent meanwhile waits unread. So deadlines are judged by the last moment of which everything is known: the
//! clock as it was *before* the kernel was asked (`judged_ms` in [`Reactor`](crate::reactor::Reactor)). And where more are
//! ready in every turn than one wait tells of, there is never such a moment, and nobody would be idle for ever: then it
//! counts that the kernel has gone round its list once.
//!
//! ## The order that stands in line
//! SIGTERM writes a byte into a pipe, and the pipe becomes readable: an event like any other, at the end of the kernel's
//! list. Behind a thousand clients with 256 KiB each it waits for 80 ms, however early in a turn it would be looked
//! for, and new connections are let in all that time. So a turn takes in [at most 128](crate::reactor) of those who are ready,
//! and an order raises a flag as well, which is looked at between any two turns. *Here:* `Server::turn` in `echo/server.rs`;
//! `serve_by_events` in `cli/serve.rs` for signals.
//!
//! ## The thread that only sleeps
//! A second thread makes every system call of the first dearer, even one that sleeps all the while. libc has to expect
//! that somebody cancels the call (pthreads(7)), which is fifty instructions more for a `recv` and fifty for a `send`. And
//! the kernel, which need not count the users of a descriptor as long as its table belongs to one task alone, counts them
//! in every call. To the load generator, which had such a thread for signals and for drawing, that was two to four per
//! cent. *Here:* `serve` has one thread, and so has a worker of `bench`: what draws is another process.
//!
//! ## Who is served first
//! With edges, whoever becomes ready joins the end of the list: first come, first served. A level-triggered queue puts all
//! whom it has reported back on the list, in case there is more, and so ahead of those who become ready meanwhile.
//! Whoever is answered at once is then served again and again while others wait. The mean is the same, the p99 is not.
//! *Here:* edges, in the server. The load generator has either, for the reason that `net::connect::Trigger` gives;
//! `bench --trigger edge` shows the difference.
//!
//! ## Waiting for those who cannot say goodbye
//! A peer whose power fails sends neither FIN nor reset, and on a connection over which nothing moves no timer runs: it
//! stays open for ever. (Nor is a reset safe: where the kernel has no memory left for TCP it is dropped like any other
//! segment, and a reset is never repeated.) Three ways of being gone take three remedies. Silent and unsent nothing:
//! [`keepalive`](crate::Limits::keepalive) probes. Silent and unsent bytes: probes do not run then, and TCP repeats itself
//! for a quarter of an hour, unless [`user_timeout`](crate::Limits::user_timeout) ends it earlier. Alive, with its window
//! shut: it acknowledges whatever it is asked, so nothing of TCP's ends it, and we must, by a reset
//! ([`write_stall_timeout`](crate::Limits::write_stall_timeout)). *Tests:* `tests/it/catalogue/network.rs`.
//!
//! ## Closing with unread input
//! `close` on a socket that has unread bytes sends a reset, and a reset can destroy what the peer has not read yet, the
//! last echoes among them. So a connection that *we* end says FIN first and reads on for a while, to throw away
//! ([`Wait::Lingering`](crate::echo::connection::Wait::Lingering)).
//!
//! ## Closing a descriptor that has a copy
//! epoll watches the open file, not the number that we know it by. While anybody has a copy, a child between fork and exec
//! or a successor, closing ours takes nothing out of the event queue, and it goes on telling of a token that is nobody's
//! (epoll(7), the sixth question). So what is handed over is taken out by hand
//! ([`Reactor::release`](crate::reactor::Reactor::release)). *Test:* `e4_a_socket_still_open_in_another_process_raises_no_event_here`.
//!
//! ## Closing the listener to open it again
//! A server that is stopped and started anew refuses everybody in between, and resets those who stood in the accept queue.
//! A second listener with SO_REUSEPORT does not help: it has a queue of its own, and the first one's dies with it. The
//! socket itself must live on: the successor gets a copy, and the accept queue is never without an owner
//! ([`Server::try_clone_listeners`](crate::echo::Server::try_clone_listeners), [`Server::detach_listeners`](crate::echo::Server::detach_listeners)). Two things are easily
//! got wrong. The leaving one must not unlink a Unix socket's file, nor empty the queue first. And the new one must accept
//! nobody before the old one has said that it may: else giving up on a successor that comes too late would cut its clients.
//! *Here:* `cli/serve/succession.rs`. *Tests:* `s6_...` and `s7_...` in `tests/it/catalogue/stop.rs`.
//!
//! ## Answering every datagram
//! A UDP source address is a claim. Two echo servers that are told they wrote to each other will talk for ever
//! ([`guard`](crate::echo::udp_filter)).
//!
//! # The same server without a network
//!
//! Because the reactor asks a [`Selector`](crate::reactor::Selector) for readiness and time, and the server knows its
//! sockets by the traits of [`net`](crate::net), the whole of it also runs on a simulated network, in which partial reads,
//! errors, spurious and stale events and jumps of the clock come from a seed (`src/simulation`). Ten thousand seeds take four
//! seconds. It is where most of the mistakes above were made once more, and found.
//!
//! # What it costs
//!
//! What one connection takes of memory, which limits very many of them meet, and in what order: [`cost`].

pub mod cost;
