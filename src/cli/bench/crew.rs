//! Running a plan: on a thread of this process, or in several processes whose figures are added up.
//!
//! Processes and not threads, since what limits a load of many connections is first of all the number of descriptors
//! that one process may have. A worker is this program with `--as-worker`: its plan comes as a line on standard input,
//! its messages go as lines to standard output, both in the words of [`super::wire`].

use super::wire;
use crate::cli::exit::{Class, Exit, Failure};
use crate::load::{self, Message, Orders, Plan, Slice, Total};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

/// How often the signals are looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What is told while a run lasts.
pub(in crate::cli) enum Told<'a> {
    /// So many connections are open.
    Open(u64),
    /// A second has passed.
    Slice(&'a Slice, &'a Total),
}

/// Whoever does the work.
trait Crew {
    fn go(&mut self);
    fn stop(&mut self);
}

/// Runs a plan to its end, and tells of every second of it.
pub(super) fn run(
    plan: &Plan,
    workers: usize,
    stop: &dyn Fn() -> bool,
    mut told: impl FnMut(Told<'_>),
) -> Result<Total, Failure> {
    let (sender, receiver) = mpsc::channel();
    if workers == 1 {
        let orders = Arc::new(Orders::default());
        let (plan, theirs) = (plan.clone(), Arc::clone(&orders));
        let thread = thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || load::run(&plan, &theirs, &sender))
            .map_err(|error| system("no thread for the load", &error))?;
        let total = collect(&receiver, 1, stop, &mut Thread(orders), &mut told);
        let _ = thread.join();
        return total;
    }
    let mut crew = Processes(Vec::new());
    for plan in plan.divide(workers) {
        crew.0.push(start(&plan, sender.clone())?);
    }
    drop(sender);
    collect(&receiver, workers, stop, &mut crew, &mut told)
}

fn system(what: &str, error: &io::Error) -> Failure {
    Failure::new(Class::System, format!("{what}: {error}"))
}

fn collect(
    messages: &Receiver<(usize, Message)>,
    workers: usize,
    stop: &dyn Fn() -> bool,
    crew: &mut dyn Crew,
    told: &mut impl FnMut(Told<'_>),
) -> Result<Total, Failure> {
    let mut total = Total::new(workers);
    let mut gone = false;
    while !total.is_over() {
        match messages.recv_timeout(LOOK) {
            Ok((worker, message)) => {
                let opens = matches!(message, Message::Opening(_) | Message::Opened(..));
                match total.take(worker, message) {
                    Ok(Some(slice)) => told(Told::Slice(&slice, &total)),
                    Ok(None) if opens => told(Told::Open(total.opening())),
                    Ok(None) => {}
                    Err(why) => return Err(Failure::new(Class::System, format!("no load: {why}"))),
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                let text = "a worker has ended without a report";
                return Err(Failure::new(Class::Internal, text));
            }
        }
        if total.is_open() && !gone {
            gone = true;
            crew.go();
        }
        if stop() {
            crew.stop();
        }
    }
    Ok(total)
}

/// A thread of this process.
struct Thread(Arc<Orders>);

impl Crew for Thread {
    fn go(&mut self) {
        self.0.go();
    }

    fn stop(&mut self) {
        self.0.stop();
    }
}

/// Processes, and the pipes that lead to them.
struct Processes(Vec<(Child, ChildStdin)>);

impl Processes {
    fn say(&mut self, word: &[u8]) {
        for (_, pipe) in &mut self.0 {
            // One that has ended needs no orders.
            let _ = pipe.write_all(word).and_then(|()| pipe.flush());
        }
    }
}

impl Crew for Processes {
    fn go(&mut self) {
        self.say(b"go\n");
    }

    fn stop(&mut self) {
        self.say(b"stop\n");
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for (mut child, pipe) in self.0.drain(..) {
            drop(pipe); // without anybody to give orders a worker ends
            let _ = child.wait();
        }
    }
}

fn start(plan: &Plan, sender: Sender<(usize, Message)>) -> Result<(Child, ChildStdin), Failure> {
    let program =
        std::env::current_exe().map_err(|error| system("this program cannot be found", &error))?;
    let mut child = Command::new(program)
        .args(["bench", "--as-worker"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .process_group(0) // Ctrl-C is for us; the workers get an order
        .spawn()
        .map_err(|error| system("no worker can be started", &error))?;
    let (Some(mut pipe), Some(out)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(Failure::new(Class::Internal, "a worker has no pipes"));
    };
    let line = format!("{}\n", wire::plan_to_json(plan));
    pipe.write_all(line.as_bytes())
        .map_err(|error| system("a worker takes no plan", &error))?;
    let worker = plan.worker;
    thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            let Some(message) = wire::message_from(&line) else {
                continue;
            };
            let is_last = matches!(message, Message::Done(_) | Message::Failed(_));
            if sender.send((worker, message)).is_err() || is_last {
                return;
            }
        }
        // The others would wait for it without end.
        let text = format!("worker {worker} has ended without a report");
        let _ = sender.send((worker, Message::Failed(text)));
    });
    Ok((child, pipe))
}

/// The whole life of a worker process.
pub(super) fn work() -> Result<Exit, Failure> {
    super::raise_descriptors();
    let mut input = BufReader::new(io::stdin());
    let mut line = String::new();
    let _ = input.read_line(&mut line);
    let plan = wire::plan_from(&line)
        .ok_or_else(|| Failure::new(Class::Usage, "--as-worker is for this program's own use"))?;
    let orders = Arc::new(Orders::default());
    let listener = Arc::clone(&orders);
    thread::spawn(move || {
        for word in input.lines().map_while(Result::ok) {
            match word.as_str() {
                "go" => listener.go(),
                _ => listener.stop(),
            }
        }
        listener.stop(); // whoever gave orders is gone
    });
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || load::run(&plan, &orders, &sender));
    let mut out = io::stdout().lock();
    for (_, message) in receiver {
        let line = format!("{}\n", wire::message_to_json(&message));
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }
    let _ = thread.join();
    Ok(Exit::Ok)
}
