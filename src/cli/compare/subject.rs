//! The servers that are compared: our own three models, any other command, or a server that runs already.
//!
//! Names, commands, starting a server, and waiting until it answers.

use super::guard;
use super::record::{Load, Model, Scenario};
use crate::cli::bench::resolve;
use crate::cli::bench::said::Said;
use crate::cli::bench::server_process::{Process, Processors, serve};
use crate::net::{Address, Endpoint, free_port};
use crate::procfs::subtree::{descendants, settled_descendants};
use clap::ValueEnum;
use socket2::Type;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Stdio;
use std::slice;
use std::thread;
use std::time::{Duration, Instant};

/// What stands for the port in a command.
pub(super) const PORT: &str = "{port}";
/// How long a foreign server may take until it answers.
const START: Duration = Duration::from_secs(10);

/// Between two looks at a foreign server's processes: no process may end while the load is on.
const BETWEEN_LOOKS: Duration = Duration::from_millis(60);

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
    /// It ends when this is dropped, or when this program ends. `None` of a server that ran already.
    process: Option<Process>,
    /// Whether that process is the guard of a command; the server is below it.
    is_guarded: bool,
    pub(super) endpoint: Endpoint,
    said: Said,
}

impl Own {
    /// Its name, and what it is, as the help has them.
    fn named(self) -> [String; 2] {
        let value = self.to_possible_value().unwrap_or_default();
        let note = value.get_help().map(ToString::to_string);
        [value.get_name().to_owned(), note.unwrap_or_default()]
    }

    /// The arguments that make a server of this model.
    fn arguments(self) -> [String; 2] {
        match self {
            Self::Workers => ["--workers".to_owned(), "auto".to_owned()],
            own => ["--model".to_owned(), own.named()[0].clone()],
        }
    }
}

impl Subject {
    pub(super) fn model(&self) -> Model {
        let ([name, note], command) = match self {
            Self::Own(own) => {
                let command = format!("echo-reactor serve {}", own.arguments().join(" "));
                (own.named(), command)
            }
            Self::Command(command) => {
                let note = "named by --against-command".to_owned();
                ([short_name(command), note], command.clone())
            }
            Self::Running(address) => {
                let note = "named by --against, and not started by this program".to_owned();
                ([address.to_string(), note], String::new())
            }
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
        match self {
            Self::Own(own) => start_own(*own, processors),
            Self::Command(command) => start_foreign(command, processors),
            Self::Running(address) => Ok(Server {
                process: None,
                is_guarded: false,
                endpoint: endpoint(address)?,
                said: Said::default(),
            }),
        }
    }
}

fn endpoint(address: &Address) -> Result<Endpoint, String> {
    let endpoints = resolve(slice::from_ref(address), START).map_err(|failure| failure.text)?;
    let first = endpoints.into_iter().next();
    first.ok_or("its name has no address".to_owned())
}

/// The last part of the program's path, and of what it runs, without the port.
fn short_name(command: &str) -> String {
    let is_option = |word: &str| word.starts_with('-') || word.contains('=');
    let words = command.split_whitespace();
    let words = words.filter(|word| !is_option(word) && !word.contains(PORT));
    let names = words.map(|word| word.rsplit('/').next().unwrap_or(word));
    match names.take(2).collect::<Vec<_>>() {
        none if none.is_empty() => command.to_owned(),
        names => names.join(" "),
    }
}

fn cannot_start(error: &io::Error) -> String {
    format!("it cannot be started: {error}")
}

fn start_own(own: Own, processors: Option<&Processors>) -> Result<Server, String> {
    let mut command = serve("tcp://127.0.0.1:0").map_err(|failure| failure.text)?;
    command.args(own.arguments()).stderr(Stdio::piped());
    let mut process =
        Process::start(&mut command, processors).map_err(|error| cannot_start(&error))?;
    let address = process.listens().ok_or("the server has not started")?;
    Ok(Server {
        said: Said::read(process.stderr()),
        process: Some(process),
        is_guarded: false,
        endpoint: endpoint(&address)?,
    })
}

fn start_foreign(command: &str, processors: Option<&Processors>) -> Result<Server, String> {
    let port = free_port(Type::STREAM).map_err(|error| format!("no free port: {error}"))?;
    let words = command.replace(PORT, &port.to_string());
    let mut guard = guard::start(&words, processors).map_err(|error| cannot_start(&error))?;
    let said = Said::read(guard.stderr());
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let late = Instant::now() + START;
    while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
        let ended = guard.ended();
        if ended.is_none() && Instant::now() < late {
            thread::sleep(Duration::from_millis(5));
            continue;
        }
        said.wait(Instant::now() + Duration::from_millis(50));
        let said = said.last().pop();
        let said = said.map_or(String::new(), |text| format!("; it said: {text}"));
        return Err(match ended {
            Some(status) => format!("it ended before it answered ({status}){said}"),
            None => format!("no server answered on port {port} after {START:?}{said}"),
        });
    }
    Ok(Server {
        process: Some(guard),
        is_guarded: true,
        endpoint: Endpoint::Tcp(address),
        said,
    })
}

impl Server {
    /// Its processes: many a server is several, and some are in the background.
    pub(super) fn pids(&self) -> Vec<u32> {
        let Some(process) = &self.process else {
            return Vec::new();
        };
        if self.is_guarded {
            return settled_descendants(process.id(), BETWEEN_LOOKS);
        }
        let below = descendants(process.id()).unwrap_or_default();
        [vec![process.id()], below].concat()
    }

    /// The last thing that it has complained of.
    pub(super) fn complaint(&self) -> Option<String> {
        let mut lines = self.said.last().into_iter();
        lines.rfind(|line| !line.contains(" INFO "))
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
