//! The servers that are compared: our own three models, any other command, or a server that runs already.
//!
//! Names, commands, starting a server, and waiting until it answers.

use super::guard::Guard;
use super::record::{Load, Model, Scenario};
use crate::blocking::threads_max;
use crate::cli::bench::resolve;
use crate::cli::bench::server_process::{Process, Processors, serve};
use crate::cli::units::grouped;
use crate::net::{Address, Endpoint, free_port};
use crate::procfs::subtree::descendants;
use clap::ValueEnum;
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::{ChildStderr, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What stands for the port in a command.
pub(super) const PORT: &str = "{port}";
/// How long a foreign server may take until it answers.
const START: Duration = Duration::from_secs(10);

/// Our own models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Own {
    /// One thread, one event loop
    Reactor,
    /// A thread for each connection
    Threads,
    /// One client after another
    Iterative,
    /// The event loop in several processes, one for each processor that is for servers
    Workers,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    Own(Own),
    /// A shell's words, with [`PORT`] in them.
    Command(String),
    /// A server that runs already.
    Running(Address),
}

/// A server that answers.
#[derive(Debug)]
pub(super) struct Server {
    process: Option<Started>,
    pub(super) endpoint: Endpoint,
    complaint: Arc<Mutex<Option<String>>>,
}

/// A process that ends when this is dropped, or when this program does.
#[derive(Debug)]
enum Started {
    Own(Process),
    Foreign(Guard),
}

impl Own {
    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or(String::new(), |value| value.get_name().to_owned())
    }

    /// The arguments that make a server of this model.
    fn arguments(self) -> [String; 2] {
        match self {
            Self::Workers => ["--workers".to_owned(), "auto".to_owned()],
            own => ["--model".to_owned(), own.name()],
        }
    }

    fn note(self) -> String {
        match self {
            Self::Reactor => "one thread, one event loop".to_owned(),
            Self::Iterative => "one thread, one client after another".to_owned(),
            Self::Workers => {
                "an event loop in each of several processes, under a master".to_owned()
            }
            Self::Threads => match threads_max() {
                Some((most, why)) => {
                    let most = grouped(most as u64);
                    format!(
                        "a thread for each connection, at most about {most} on this machine ({why})"
                    )
                }
                None => "a thread for each connection".to_owned(),
            },
        }
    }
}

impl Subject {
    pub(super) fn model(&self) -> Model {
        let (name, command, note) = match self {
            Self::Own(own) => (
                own.name(),
                format!("echo-reactor serve {}", own.arguments().join(" ")),
                own.note(),
            ),
            Self::Command(command) => (
                short_name(command),
                command.clone(),
                "named by --against-command".to_owned(),
            ),
            Self::Running(address) => (
                address.to_string(),
                String::new(),
                "named by --against, and not started by this program".to_owned(),
            ),
        };
        Model {
            name,
            command,
            note,
            overall: Vec::new(),
        }
    }

    /// Why it cannot take part in a load, if that is known beforehand.
    pub(super) fn excuse(&self, load: &Load) -> Option<&'static str> {
        let alone = load.connections == 1 && load.scenario != Scenario::SlowReader;
        match self {
            // Where they come and go, they take turns.
            Self::Own(Own::Iterative) if !alone && load.scenario != Scenario::Churn => {
                Some("it serves one connection after another, and these are open at the same time")
            }
            _ => None,
        }
    }

    /// Starts it, if it is to be started, and waits until it answers.
    ///
    /// # Errors
    /// What kept it, as a sentence.
    pub(super) fn start(&self, processors: Option<&Processors>) -> Result<Server, String> {
        let complaint = Arc::default();
        match self {
            Self::Own(own) => {
                let mut command = serve("tcp://127.0.0.1:0").map_err(|failure| failure.text)?;
                command.args(own.arguments()).stderr(Stdio::piped());
                let mut process = Process::start(&mut command, processors)
                    .map_err(|error| cannot_start(&error))?;
                let address = process.listens();
                listen_to(process.stderr(), &complaint);
                let endpoints = address.and_then(|address| address.resolve().ok());
                let endpoint = endpoints.and_then(|all| all.into_iter().next());
                Ok(Server {
                    process: Some(Started::Own(process)),
                    endpoint: endpoint.ok_or("the server has not started")?,
                    complaint,
                })
            }
            Self::Command(command) => start_foreign(command, processors, complaint),
            Self::Running(address) => {
                let endpoints = resolve(std::slice::from_ref(address), START);
                let endpoint = endpoints
                    .map_err(|failure| failure.text)?
                    .into_iter()
                    .next();
                Ok(Server {
                    process: None,
                    endpoint: endpoint.ok_or("its name has no address")?,
                    complaint,
                })
            }
        }
    }
}

/// The last part of the program's path, and of what it runs, without the port.
fn short_name(command: &str) -> String {
    let words = command.split_whitespace().filter(|word| {
        let is_option = word.starts_with('-');
        !(is_option || word.contains(PORT) || word.contains('='))
    });
    let names: Vec<&str> = words
        .map(|word| word.rsplit('/').next().unwrap_or(word))
        .take(2)
        .collect();
    match names.is_empty() {
        true => command.to_owned(),
        false => names.join(" "),
    }
}

fn cannot_start(error: &io::Error) -> String {
    format!("it cannot be started: {error}")
}

fn start_foreign(
    command: &str,
    processors: Option<&Processors>,
    complaint: Arc<Mutex<Option<String>>>,
) -> Result<Server, String> {
    let port = free_port().map_err(|error| format!("no free port: {error}"))?;
    let words = command.replace(PORT, &port.to_string());
    let mut guard = Guard::start(&words, processors).map_err(|error| cannot_start(&error))?;
    listen_to(guard.stderr(), &complaint);
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let late = Instant::now() + START;
    while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
        let said = || match said(&complaint) {
            Some(text) => format!("; it said: {text}"),
            None => String::new(),
        };
        if let Some(status) = guard.ended() {
            // What it said may come a moment after its end.
            thread::sleep(Duration::from_millis(50));
            return Err(format!("it ended before it answered ({status}){}", said()));
        }
        if Instant::now() > late {
            return Err(format!(
                "no server answered on port {port} after {START:?}{}",
                said()
            ));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(Server {
        process: Some(Started::Foreign(guard)),
        endpoint: Endpoint::Tcp(address),
        complaint,
    })
}

/// Reads what it writes to standard error, as long as it does, so that it never waits for us; the last warning is kept.
fn listen_to(stderr: Option<ChildStderr>, complaint: &Arc<Mutex<Option<String>>>) {
    let Some(stderr) = stderr else {
        return;
    };
    let complaint = Arc::clone(complaint);
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let is_idle_talk = line.contains(" INFO ") || line.trim().is_empty();
            if !is_idle_talk {
                *complaint.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
            }
        }
    });
}

fn said(complaint: &Mutex<Option<String>>) -> Option<String> {
    complaint
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// What is the same at several looks in a row. A server that puts itself into the background may answer before the process
/// that was started has ended; and a process that ends while the load is on cannot be seen to its end.
fn settled(look: impl Fn() -> Vec<u32>) -> Vec<u32> {
    const BETWEEN: Duration = Duration::from_millis(50);
    const SAME: usize = 2;
    const LOOKS_MAX: usize = 20;
    let (mut last, mut same) = (look(), 0);
    for _ in 0..LOOKS_MAX {
        thread::sleep(BETWEEN);
        let now = look();
        same = if now == last { same + 1 } else { 0 };
        last = now;
        if same == SAME {
            break;
        }
    }
    last
}

impl Server {
    /// Its processes: many a server is several, and some are in the background.
    pub(super) fn pids(&self) -> Vec<u32> {
        match &self.process {
            Some(Started::Own(process)) => {
                let workers = descendants(process.id()).unwrap_or_default();
                [vec![process.id()], workers].concat()
            }
            Some(Started::Foreign(guard)) => {
                settled(|| descendants(guard.id()).unwrap_or_default())
            }
            None => Vec::new(),
        }
    }

    /// The last thing that it has complained of.
    pub(super) fn complaint(&self) -> Option<String> {
        said(&self.complaint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_a_short_name() {
        let names = [
            ("python3 /opt/echo.py {port}", "python3 echo.py"),
            ("./target/release/slowed --port={port}", "slowed"),
            ("socat -b 65536 tcp-l:{port},fork exec:cat", "socat 65536"),
            ("{port}", "{port}"),
        ];
        for (command, name) in names {
            assert_eq!(short_name(command), name);
        }
    }

    #[test]
    fn who_serves_one_at_a_time_takes_part_where_that_is_enough() {
        let load = |scenario, connections| Load {
            scenario,
            connections,
            size: 64,
        };
        let excuse = |own, load| Subject::Own(own).excuse(&load);
        let one = Own::Iterative;
        assert_eq!(excuse(one, load(Scenario::RequestResponse, 1)), None);
        assert_eq!(excuse(one, load(Scenario::Churn, 100)), None);
        assert!(excuse(one, load(Scenario::RequestResponse, 2)).is_some());
        assert!(excuse(one, load(Scenario::SlowReader, 1)).is_some());
        assert_eq!(excuse(Own::Threads, load(Scenario::SlowReader, 10)), None);
    }
}
