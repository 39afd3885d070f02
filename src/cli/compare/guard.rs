//! The guard of a command that is compared: a process of ours between this program and the server, which ends the server
//! and all that it has started, whatever becomes of this program.
//!
//! A foreign server promises nothing. It may put itself into the background (fork, setsid, fork), so that neither its
//! process group nor its parent lead to it any more; and this program may be killed, and then sends no signal. So the
//! guard is a child subreaper (PR_SET_CHILD_SUBREAPER of prctl(2)): processes below it that lose their parent become its
//! children, and none leaves its subtree. It reads a pipe of which this program has the other end: the word [`END`], or an
//! end of file without it, means that the subtree is to end. PR_SET_PDEATHSIG would reach the first process alone, and a
//! namespace of processes needs rights that a user need not have.
//!
//! The guard sleeps while the load is on: one thread in wait(2), the other in read(2).

use crate::cli::bench::server_process::{Processors, spawn_on};
use crate::cli::error::{CliError, CliErrorKind, Exit};
use crate::cli::own_program;
use crate::procfs::subtree::descendants;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Ends the words of the command, which come first. They come by the pipe and not as an argument: a look for the server by
/// its words (pkill -f) is to find the server alone.
const WORDS_END: u8 = 0;
/// What is written to the guard for an end in order.
const END: &[u8] = b"end";
/// Time that a server has from SIGTERM to SIGKILL.
const KILL_AFTER: Duration = Duration::from_secs(10);
/// The same, if this program was killed: the next measurement may already wait for the port.
const KILL_AFTER_ORPHANED: Duration = Duration::from_millis(500);
/// Time after which SIGTERM is sent again: many a server drains at the first, and ends at the second.
const AGAIN: Duration = Duration::from_millis(100);
/// Time between two looks at the subtree while it ends.
const LOOK: Duration = Duration::from_millis(5);

/// A guarded command. Dropping it ends the command and every process below it.
#[derive(Debug)]
pub(super) struct Guard {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl Guard {
    /// Starts the words of a shell, which are one command.
    pub(super) fn start(words: &str, processors: Option<&Processors>) -> io::Result<Self> {
        let mut command = own_program::command()?;
        command
            .args(["compare", "--as-guard"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = spawn_on(&mut command, processors)?;
        let mut pipe = child.stdin.take();
        if let Some(pipe) = &mut pipe {
            // A guard that has ended already is seen to have.
            let _ = pipe.write_all(&[words.as_bytes(), &[WORDS_END]].concat());
        }
        Ok(Self { child, pipe })
    }

    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// What the command writes to standard error, if it has not been taken.
    pub(super) fn stderr(&mut self) -> Option<std::process::ChildStderr> {
        self.child.stderr.take()
    }

    /// How the command ended, once no process of it is left.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            // A guard that has ended already needs no word.
            let _ = pipe.write_all(END);
        }
        let late = Instant::now() + KILL_AFTER + Duration::from_secs(2);
        while self.ended().is_none() {
            if Instant::now() > late {
                // Something below it cannot even be killed: it waits for a device.
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
            thread::sleep(LOOK);
        }
    }
}

/// The whole life of a guard: it ends with the last process of the command, and in the same way as its first.
pub(super) fn work() -> Result<Exit, CliError> {
    own_program::restore_name();
    let mut words = Vec::new();
    let mut pipe = BufReader::new(io::stdin());
    let _ = pipe.read_until(WORDS_END, &mut words);
    let words = match words
        .strip_suffix(&[WORDS_END])
        .map(String::from_utf8_lossy)
    {
        Some(words) => words,
        None => {
            let text = "--as-guard is for this program's own use";
            return Err(CliError::usage(text));
        }
    };
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_child_subreaper(true);
    // The shell splits the words, and then is no more: the process that is measured is the server.
    let child = Command::new("sh")
        .args(["-c", &format!("exec {words}")])
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .map_err(|error| {
            CliError::new(
                CliErrorKind::System,
                format!("sh cannot be started: {error}"),
            )
        })?;
    let first = child.id();
    thread::spawn(move || {
        let mut said = Vec::new();
        let _ = pipe.read_to_end(&mut said);
        let kill_after = match said == END {
            true => KILL_AFTER,
            false => KILL_AFTER_ORPHANED,
        };
        end_subtree(first, kill_after);
    });
    end_like(reap_all(first))
}

/// Waits until no child is left, and returns how the first one ended.
fn reap_all(first: u32) -> Option<WaitStatus> {
    let mut ended = None;
    loop {
        match waitpid(None, None) {
            Ok(status) if status.pid().map(Pid::as_raw) == i32::try_from(first).ok() => {
                ended = Some(status);
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return ended,
        }
    }
}

/// Ends this process as another one ended.
fn end_like(ended: Option<WaitStatus>) -> ! {
    let code = match ended {
        Some(WaitStatus::Exited(_, code)) => code,
        Some(WaitStatus::Signaled(_, signal, _)) => {
            let _ = raise(signal);
            128 + signal as i32
        }
        _ => 0,
    };
    std::process::exit(code)
}

/// Ends every process below this one; returns when this process does, as soon as none of them is left.
fn end_subtree(first: u32, kill_after: Duration) -> ! {
    let began = Instant::now();
    let send = |signal| {
        // Where there is no /proc, the process group is all that is known.
        let known = descendants(std::process::id()).unwrap_or_else(|| vec![first]);
        for pid in known {
            if let Ok(pid) = i32::try_from(pid) {
                let _ = kill(Pid::from_raw(pid), signal);
            }
        }
    };
    send(Signal::SIGTERM);
    thread::sleep(AGAIN.min(kill_after));
    send(Signal::SIGTERM);
    loop {
        thread::sleep(LOOK);
        // Again and again: a process may have started another one between the look and the signal.
        if began.elapsed() > kill_after {
            send(Signal::SIGKILL);
        }
    }
}
