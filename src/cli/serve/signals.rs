//! The signals of a server, and how they wake the event loop, or the master of workers.

use super::errors;
use super::link::Link;
use crate::cli::error::CliError;
use crate::cli::process;
use crate::echo::{Native, Server};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithRawSiginfo;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The signals that the server handles. SIGPIPE is not among them: Rust ignores it, and a write returns EPIPE.
const SIGNALS: [i32; 5] = [SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGHUP];

/// Registers handlers that queue each signal with its siginfo. Plain flags would merge two of a kind, and the second SIGTERM
/// must not be lost because it came right after the first.
pub(super) fn signals() -> Result<SignalsInfo<WithRawSiginfo>, CliError> {
    SignalsInfo::new(SIGNALS).map_err(|error| errors::system("no signal handlers", &error))
}

/// Unblocks the signals once every handler is registered. A signal that came while the inherited mask blocked it is handled
/// now.
pub(super) fn listen() {
    process::unblock_signals();
    process::block_terminal_stop();
}

/// Reports a signal in two ways. A pipe in the interest list ends epoll_wait; but in the ready list it may stand behind
/// thousands of sockets. So there is a flag as well, which is checked after every turn.
pub(super) struct Signals {
    signals: SignalsInfo<WithRawSiginfo>,
    flag: Arc<AtomicBool>,
    pipe: signal_hook_mio::v1_0::Signals,
}

impl Signals {
    pub(super) fn register() -> Result<Self, CliError> {
        let system = |error| errors::system("no signal handlers", &error);
        // The actions of a signal run in the order of their registration, so by the time the flag and the pipe report it,
        // the signal is in the queue.
        let signals = signals()?;
        let flag = Arc::new(AtomicBool::new(false));
        for signal in SIGNALS {
            signal_hook::flag::register(signal, Arc::clone(&flag)).map_err(system)?;
        }
        let pipe = signal_hook_mio::v1_0::Signals::new(SIGNALS).map_err(system)?;
        listen();
        Ok(Self {
            signals,
            flag,
            pipe,
        })
    }

    /// Adds the pipe to the interest list of the server.
    pub(super) fn watch_with(&mut self, server: &Server<impl Native>) -> Result<(), CliError> {
        server
            .watch_source(&mut self.pipe)
            .map_err(|error| errors::system("no signals in the event loop", &error))
    }

    /// Whether a signal may have come since the last [`Signals::take`].
    #[inline]
    pub(super) fn is_pending(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// Takes the signals that have come, in their order. One that comes while these are followed waits for the next turn:
    /// answers that take longer than the next signal would else hold the loop for ever.
    pub(super) fn take(&mut self) -> Vec<i32> {
        self.flag.store(false, Ordering::Relaxed); // first, so a signal that comes meanwhile is not missed
        self.pipe.pending().for_each(drop);
        pending(&mut self.signals)
    }
}

/// The queued signals in their order. One report answers all who ask for it in a turn.
fn pending(signals: &mut SignalsInfo<WithRawSiginfo>) -> Vec<i32> {
    let mut taken = Vec::new();
    for signal in signals.pending() {
        if !(signal.si_signo == SIGUSR1 && taken.contains(&SIGUSR1)) {
            taken.push(signal.si_signo);
        }
    }
    taken
}

/// The signals of a master, which waits by poll(2): the same, and SIGCHLD. A pipe ends the wait.
pub(super) struct MasterSignals {
    signals: SignalsInfo<WithRawSiginfo>,
    flag: Arc<AtomicBool>,
    pipe: UnixStream,
}

impl MasterSignals {
    pub(super) fn register() -> Result<Self, CliError> {
        let system = |error| errors::system("no signal handlers", &error);
        let handled = || SIGNALS.into_iter().chain([SIGCHLD]);
        // The order of registration is that of the actions, as in `Signals::register`.
        let signals = SignalsInfo::new(handled()).map_err(system)?;
        let flag = Arc::new(AtomicBool::new(false));
        for signal in handled() {
            signal_hook::flag::register(signal, Arc::clone(&flag)).map_err(system)?;
        }
        let (pipe, write) = UnixStream::pair().map_err(system)?;
        pipe.set_nonblocking(true).map_err(system)?;
        for signal in handled() {
            let write = write.try_clone().map_err(system)?;
            signal_hook::low_level::pipe::register(signal, write).map_err(system)?;
        }
        listen();
        Ok(Self {
            signals,
            flag,
            pipe,
        })
    }

    /// Waits for a signal, or for a message on one of the links.
    pub(super) fn wait<'a>(
        &'a self,
        links: impl Iterator<Item = &'a Link>,
        timeout: Option<Duration>,
    ) -> Result<(), CliError> {
        let descriptors = [self.pipe.as_fd()]
            .into_iter()
            .chain(links.map(AsFd::as_fd));
        let mut polled: Vec<PollFd<'_>> = descriptors
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN))
            .collect();
        // A millisecond more, since poll(2) counts whole ones, and would return too early.
        let timeout = timeout.map(|timeout| timeout.saturating_add(Duration::from_millis(1)));
        let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
            PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(errors::system("waiting failed", &io::Error::from(error))),
        }
    }

    /// Whether a signal may have come since the last [`MasterSignals::take`].
    pub(super) fn is_pending(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// Takes the signals that have come.
    pub(super) fn take(&mut self) -> Vec<i32> {
        self.flag.store(false, Ordering::Relaxed); // first, so a signal that comes meanwhile is not missed
        while matches!((&self.pipe).read(&mut [0; 64]), Ok(1..)) {}
        pending(&mut self.signals)
    }

    /// Blocks the signals, so that none is delivered while this process executes another program: exec(3) keeps the mask,
    /// and what is pending.
    pub(super) fn block(&self) {
        let _ = Self::set().thread_block();
    }

    pub(super) fn unblock(&self) {
        let _ = Self::set().thread_unblock();
    }

    fn set() -> SigSet {
        let signals = SIGNALS.into_iter().chain([SIGCHLD]);
        signals
            .filter_map(|signal| Signal::try_from(signal).ok())
            .collect()
    }
}
