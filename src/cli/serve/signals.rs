//! The signals, and how the loop hears of them.
//!
//! What may live in this file: which signals there are, and that one has come. What may not: what is done then.

use super::errors;
use crate::cli::error::CliError;
use crate::cli::process;
use crate::echo::Server;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::SignalsInfo;
use signal_hook::iterator::exfiltrator::WithRawSiginfo;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The signals that the server looks after. SIGPIPE is not among them: Rust ignores it, and a write says EPIPE.
const SIGNALS: [i32; 5] = [SIGTERM, SIGINT, SIGUSR1, SIGUSR2, SIGHUP];

/// Signals with their siginfo are counted one by one, where plain flags would melt two of a kind into one: the second
/// SIGTERM must not be lost because it came right behind the first.
pub(super) fn signals() -> Result<SignalsInfo<WithRawSiginfo>, CliError> {
    SignalsInfo::new(SIGNALS).map_err(|error| errors::system("no signal handlers", &error))
}

/// Lets the signals through, once every handler is there: one that came while the parent's mask blocked it is handled now.
pub(super) fn listen() {
    process::unblock_signals();
    process::block_terminal_stop();
}

/// Rings when a signal has come, in two ways. A pipe ends the wait of the loop; but in the kernel's list of those who are
/// ready it may stand behind thousands, a turn's worth at a time. So there is a flag beside it, to be looked at after every
/// turn.
pub(super) struct Signals {
    signals: SignalsInfo<WithRawSiginfo>,
    flag: Arc<AtomicBool>,
    pipe: signal_hook_mio::v1_0::Signals,
}

impl Signals {
    pub(super) fn register() -> Result<Self, CliError> {
        let system = |error| errors::system("no signal handlers", &error);
        // The actions of a signal run in the order of their registration, so that by the time the signals rings, the signal
        // is there to be taken.
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

    pub(super) fn watch_with(&mut self, server: &Server) -> Result<(), CliError> {
        server
            .watch(&mut self.pipe)
            .map_err(|error| errors::system("no signals in the event loop", &error))
    }

    /// Whether a signal may have come since the last [`Signals::take`].
    #[inline]
    pub(super) fn is_pending(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// The signals that have come.
    pub(super) fn take(&mut self) -> impl Iterator<Item = i32> {
        self.flag.store(false, Ordering::Relaxed); // first, so that one that comes meanwhile is not missed
        self.pipe.pending().for_each(drop);
        self.signals.pending().map(|signal| signal.si_signo)
    }
}
