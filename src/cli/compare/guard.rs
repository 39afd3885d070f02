//! The guard of a command that is compared: a process of ours between this program and the server, which ends the server
//! and all that it has started, whatever becomes of this program.
//!
//! A foreign server promises nothing. It may put itself into the background (fork, setsid, fork), so that neither its
//! process group nor its parent lead to it any more; and this program may be killed, and then sends no signal. So the
//! guard is a child subreaper (PR_SET_CHILD_SUBREAPER of prctl(2)): processes below it that lose their parent become its
//! children, and none leaves its subtree. It reads a pipe of which this program has the other end: when that is closed, by
//! this program or by its death, the subtree is to end. PR_SET_PDEATHSIG would reach the first process alone, and a namespace
//! of processes needs rights that a user need not have.
//!
//! The guard sleeps while the load is on: one thread in wait(2), the other in read(2).

use crate::cli::bench::server_process::{Process, Processors};
use crate::cli::error::{CliError, CliErrorKind, Exit};
use crate::cli::own_program;
use crate::procfs::subtree::descendants;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use signal_hook::consts::SIGTERM;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// Ends the words of the command, which come first. They come by the pipe and not as an argument: a look for the server by
/// its words (pkill -f) is to find the server alone.
const WORDS_END: u8 = 0;
/// Time that a server has from SIGTERM to SIGKILL; the guard itself has more (see [`Process`]).
const KILL_AFTER: Duration = Duration::from_secs(5);
/// Time after which SIGTERM is sent again: many a server drains at the first, and ends at the second.
const AGAIN: Duration = Duration::from_millis(100);
/// Time between two looks at the subtree while it ends.
const LOOK: Duration = Duration::from_millis(5);

/// Starts the words of a shell, which are one command, below a guard. Dropping the guard ends all of it.
pub(super) fn start(words: &str, processors: Option<&Processors>) -> io::Result<Process> {
    let mut command = own_program::command()?;
    command
        .args(["compare", "--as-guard"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut guard = Process::start(&mut command, processors)?;
    guard.say(&[words.as_bytes(), &[WORDS_END]].concat());
    Ok(guard)
}

/// The whole life of a guard: it ends with the last process of the command, and in the same way as its first.
pub(super) fn work() -> Result<Exit, CliError> {
    own_program::restore_name();
    let failure = |text: String| CliError::new(CliErrorKind::System, text);
    // SIGTERM comes with the end of the pipe, and is not to end the guard before the server.
    let _ = signal_hook::flag::register(SIGTERM, Arc::default());
    let mut words = Vec::new();
    let mut pipe = BufReader::new(io::stdin());
    let _ = pipe.read_until(WORDS_END, &mut words);
    let Some(words) = words.strip_suffix(&[WORDS_END]) else {
        return Err(CliError::usage("--as-guard is for this program's own use"));
    };
    let words = String::from_utf8_lossy(words);
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_child_subreaper(true);
    // The shell splits the words, and then is no more: the process that is measured is the server.
    let mut child = Command::new("sh")
        .args(["-c", &format!("exec {words}")])
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| failure(format!("sh cannot be started: {error}")))?;
    let first = child.id();
    thread::spawn(move || {
        let _ = io::copy(&mut pipe, &mut io::sink());
        end_subtree(first);
    });
    let ended = child.wait();
    while !matches!(waitpid(None, None), Err(Errno::ECHILD)) {}
    let ended = ended.map_err(|error| failure(format!("sh cannot be waited for: {error}")))?;
    let signal = ended.signal().and_then(|signal| signal.try_into().ok());
    let _ = signal.map(|signal: Signal| raise(signal));
    std::process::exit(ended.code().unwrap_or(1))
}

/// Ends every process below this one; returns when this process does, as soon as none of them is left.
fn end_subtree(first: u32) -> ! {
    let began = Instant::now();
    let send = |signal| {
        // Where there is no /proc, the process group is all that is known.
        let known = descendants(std::process::id()).unwrap_or_else(|| vec![first]);
        for pid in known.into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    };
    send(Signal::SIGTERM);
    thread::sleep(AGAIN);
    send(Signal::SIGTERM);
    loop {
        thread::sleep(LOOK);
        // Again and again: a process may have started another one between the look and the signal.
        if began.elapsed() > KILL_AFTER {
            send(Signal::SIGKILL);
        }
    }
}
