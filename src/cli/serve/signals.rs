//! The signals of a server, and how they wake the event loop.

use super::errors;
use crate::cli::error::CliError;
use crate::cli::process;
use crate::echo::Server;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithRawSiginfo;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
    pub(super) fn watch_with(&mut self, server: &Server) -> Result<(), CliError> {
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
        let mut taken = Vec::new();
        for signal in self.signals.pending() {
            // One report answers all who ask for it in a turn.
            if !(signal.si_signo == SIGUSR1 && taken.contains(&SIGUSR1)) {
                taken.push(signal.si_signo);
            }
        }
        taken
    }
}
