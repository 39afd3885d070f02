//! `echo-reactor watch`: the state of a running server, in the terminal, once a second.
//!
//! What may live in this file: the arguments, and the loop of questions and answers. The socket is in [`link`], the server that
//! is meant in [`target`], what changed between two states in [`changes`], and the forms in [`display`]. The other end is
//! `serve --watch`.
//!
//! On a terminal the lines are written over where they stand, each time by one write that leaves every mode of the terminal as
//! it was: no other screen, no hidden cursor. So an end at any time leaves it whole, and the last state stays to be read.

mod changes;
mod display;
mod link;
mod target;

use super::error::{CliError, CliErrorKind, Exit};
use super::stdio;
use super::units::Time;
use clap::Args;
use display::Display;
use link::{Link, Woken};
use std::time::{Duration, Instant};
use target::Target;

const EXAMPLES: &str = "\
Examples:
  echo-reactor serve --watch         let this user, and root, watch a server
  echo-reactor watch                 the only server; Ctrl-C ends it
  echo-reactor watch 4242            the server with this process id
  echo-reactor watch /run/echo.watch       of serve --watch=/run/echo.watch
  echo-reactor watch --once | grep unsent_bytes       a name and a value a line

Shown: open connections by what they wait for, turns of the loop, the longest
turn, bytes, unsent bytes, pauses of accepting, and what has changed; of a
server with --trace, its last events too. Where standard output is no terminal,
each second is one line. Each question is a turn of the server's loop.

Exit codes: 0 after --once or Ctrl-C; 69 there is no such server, or it has
ended; 75 it does not answer; 77 it belongs to another user.
";

/// Time between two questions.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time that the first answer has; stated in the help of exit code 75.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Show the state of a server that was started with serve --watch, as it changes
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(super) struct WatchArgs {
    /// Process id of the server, or the socket of its --watch; without it, the one server that can be watched
    #[arg(value_name = "PID|SOCKET")]
    target: Option<Target>,

    /// Print the state once, a name and a value a line, and end
    #[arg(long)]
    once: bool,
}

pub(super) fn run(args: &WatchArgs) -> Result<Exit, CliError> {
    let target = match &args.target {
        Some(target) => target.clone(),
        None => Target::only()?,
    };
    let mut link = Link::open(&target)?;
    if !args.once {
        return follow(&mut link);
    }
    let deadline = Instant::now() + ANSWER_MAX;
    loop {
        link.ask()?; // again, as the request may have found no room
        match link.wait(deadline.min(Instant::now() + INTERVAL))? {
            Woken::Answer => {
                if let Some(state) = link.take()? {
                    stdio::print(&display::once(&state))?;
                    return Ok(Exit::Ok);
                }
            }
            Woken::Signal => return Ok(Exit::Ok),
            Woken::Time if Instant::now() >= deadline => return Err(no_answer(&link)),
            Woken::Time => {}
        }
    }
}

/// Asks once a second, and shows each answer, until a signal comes, the server ends, or the output is not read any more.
fn follow(link: &mut Link) -> Result<Exit, CliError> {
    let mut display = Display::new()?;
    let mut heard_at = Instant::now();
    let mut ask_at = heard_at;
    loop {
        let now = Instant::now();
        if now >= ask_at {
            link.ask()?;
            ask_at = now + INTERVAL;
        }
        let goes_on = match link.wait(ask_at)? {
            Woken::Signal => false,
            Woken::Answer => match link.take()? {
                None => true,
                Some(state) => {
                    heard_at = Instant::now();
                    display.show(state)?
                }
            },
            Woken::Time => {
                let silence = heard_at.elapsed();
                if display.is_empty() && silence >= ANSWER_MAX {
                    return Err(no_answer(link));
                }
                silence < 2 * INTERVAL || display.show_silence(silence)?
            }
        };
        if !goes_on {
            return Ok(Exit::Ok);
        }
    }
}

fn no_answer(link: &Link) -> CliError {
    let text = format!(
        "{}: no answer within {}: the server is busy or stopped, or it belongs to another user; watch as its user",
        link.endpoint(),
        Time(ANSWER_MAX)
    );
    CliError::new(CliErrorKind::Timeout, text)
}
