//! `echo-reactor serve` as a child process, and what the system reports of it.

use super::{DEADLINE, connect, wait_until};
use echo_reactor::net::{Address, Endpoint};
use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use socket2::Socket;
use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// The program, with an empty standard input and its output in pipes.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_echo-reactor"));
    command
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The program with one system call answered by strace instead of the kernel (`inject` of strace(1)); `None`, and a
/// line that says so, where there is no strace. The tracer is a grandchild (`-D`), so that the process that is started
/// is the program itself.
#[track_caller]
pub(crate) fn strace(call: &str, answer: &str) -> Option<Command> {
    if !super::has_tool("strace") {
        return None;
    }
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{answer}"));
    let options = [
        "-D",
        "-f",
        "-qq",
        "-o",
        "/dev/null",
        "-e",
        &trace,
        "-e",
        &inject,
    ];
    Some(wrapped("strace", &options))
}

/// The program started through a tool that sets something up and then execs it, or watches it.
pub(crate) fn wrapped(tool: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(tool);
    command
        .args(arguments)
        .arg(program().get_program())
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The program by a shell that sets something up first; `$0` is the program.
pub(crate) fn by_shell(line: &str) -> Command {
    let mut command = Command::new("sh");
    command
        .args(["-c", line])
        .arg(program().get_program())
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A pipe, reader first. No child has it that is not given it: some tests count what a child has.
pub(crate) fn pipe() -> (OwnedFd, OwnedFd) {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).unwrap()
}

/// A terminal: the end of a window, and that of programs. `openpty` would leave both to every child.
pub(crate) fn terminal() -> (PtyMaster, OwnedFd) {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let master = posix_openpt(flags).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(ptsname_r(&master).unwrap())
        .unwrap();
    (master, slave.into())
}

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// The exit code is `code`, and standard error is one line with these words.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, words: &[&str]) {
        let err = &self.err;
        assert!(err.starts_with("echo-reactor: error: "), "{err:?}");
        assert_eq!(err.matches('\n').count(), 1, "{err:?} is not one line");
        for word in words {
            assert!(err.contains(word), "{err:?} does not say {word:?}");
        }
        assert_eq!(self.code, code, "{err}");
        assert_eq!(
            self.out, "",
            "nothing but addresses goes to standard output"
        );
    }
}

/// Runs the program to its end, before the deadline.
#[track_caller]
pub(crate) fn ended(command: &mut Command) -> Ended {
    Serve::spawn(command).wait()
}

/// A child process that serves. Dropping it kills it.
pub(crate) struct Serve {
    child: Child,
    pub(crate) endpoints: Vec<Endpoint>,
    out: Option<Receiver<String>>,
    err: Text,
    /// Whether standard error is a pipe to this process.
    has_err: bool,
}

impl Serve {
    /// Starts `serve` with these addresses (none of which may resolve to several) and flags, and waits until it listens.
    #[track_caller]
    pub(crate) fn start(addresses: &[&str], flags: &[&str]) -> Self {
        let mut command = program();
        command.arg("serve").args(addresses).args(flags);
        Self::start_command(&mut command, addresses.len().max(1))
    }

    /// The same for a command of the caller's, which will print this many addresses.
    #[track_caller]
    pub(crate) fn start_command(command: &mut Command, addresses: usize) -> Self {
        if std::env::var_os("ECHO_SANDBOX").is_some() {
            add_flag(command, "--sandbox");
        }
        if let Ok(workers) = std::env::var("ECHO_WORKERS") {
            add_flag(command, &format!("--workers={workers}"));
        }
        let mut serve = Self::spawn(command);
        for _ in 0..addresses {
            let endpoint = serve.next_line();
            let address = endpoint.strip_prefix("listening ");
            let address: Address = address.expect("an address").parse().unwrap();
            serve.endpoints.push(address.resolve().unwrap().remove(0));
        }
        serve
    }

    /// Whether a spawned command prints this many addresses, rather than end.
    pub(crate) fn comes_to_listen(&mut self, addresses: usize) -> bool {
        let mut lines = self.out.iter();
        let out = lines.next().expect("its output is a pipe");
        (0..addresses).all(|_| match out.recv_timeout(DEADLINE) {
            Ok(line) => {
                let address = line.strip_prefix("listening ").expect("an address");
                let address: Address = address.parse().unwrap();
                self.endpoints.push(address.resolve().unwrap().remove(0));
                true
            }
            Err(_) => false,
        })
    }

    #[track_caller]
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap();
        let out = child.stdout.take().map(lines);
        let has_err = child.stderr.is_some();
        let err = child.stderr.take().map(Text::collect).unwrap_or_default();
        Self {
            has_err,
            child,
            endpoints: Vec::new(),
            out,
            err,
        }
    }

    #[track_caller]
    fn next_line(&mut self) -> String {
        let line = self
            .out
            .as_ref()
            .and_then(|out| out.recv_timeout(DEADLINE).ok());
        line.unwrap_or_else(|| {
            panic!(
                "the server did not say where it listens: {}",
                self.err.get()
            )
        })
    }

    /// A client connected to the server's first address.
    #[track_caller]
    pub(crate) fn connect(&self) -> Socket {
        connect(&self.endpoints[0])
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    #[track_caller]
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.pid()).unwrap()), signal).unwrap();
    }

    /// What the server has written to standard error so far.
    pub(crate) fn err(&self) -> String {
        self.err.get()
    }

    /// Waits until standard error has a line with these words.
    #[track_caller]
    pub(crate) fn says(&self, words: &str) {
        wait_until(&format!("it says {words:?}"), || self.err().contains(words));
    }

    /// The server's counters, printed on SIGUSR1.
    #[track_caller]
    pub(crate) fn counters(&self) -> BTreeMap<String, u64> {
        let counters = |err: &str| -> Vec<String> {
            let complete = err.rsplit_once('\n').map_or("", |(lines, _)| lines);
            let counters = |line: &&str| line.starts_with("accepted=");
            complete
                .lines()
                .filter(counters)
                .map(str::to_owned)
                .collect()
        };
        let before = counters(&self.err()).len();
        self.signal(Signal::SIGUSR1);
        wait_until("it prints its counters", || {
            counters(&self.err()).len() > before
        });
        let counter = |pair: &str| {
            let (name, count) = pair.split_once('=')?;
            Some((name.to_owned(), count.parse().ok()?))
        };
        let counters = counters(&self.err()).pop().unwrap_or_default();
        counters
            .split(' ')
            .map(|pair| counter(pair).unwrap())
            .collect()
    }

    #[track_caller]
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.counters().get(name).copied().unwrap_or(0)
    }

    /// Sends a signal and waits for the end.
    #[track_caller]
    pub(crate) fn stop(self, signal: Signal) -> Ended {
        self.signal(signal);
        self.wait()
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Ended {
        let mut status = None;
        wait_until("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let mut out = String::new();
        for line in self.out.iter().flat_map(Receiver::iter) {
            out.push_str(&line);
            out.push('\n');
        }
        if self.has_err {
            wait_until("standard error ends", || self.err.is_complete());
        }
        Ended {
            code: status
                .and_then(|status| status.code())
                .expect("no signal ended it"),
            out,
            err: self.err.get(),
        }
    }

    /// Waits for the end by a signal, and returns its number.
    #[track_caller]
    pub(crate) fn killed_by(mut self) -> Option<i32> {
        let mut status = None;
        wait_until("the program is killed", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.and_then(|status| status.signal())
    }

    /// Whether the server starts to listen, or ends before.
    pub(crate) fn listens(&self) -> bool {
        let line = self
            .out
            .as_ref()
            .and_then(|out| out.recv_timeout(DEADLINE).ok());
        line.is_some_and(|line| line.starts_with("listening "))
    }

    // --- What the system reports of it ---

    /// The numbers of the server's open descriptors, sorted. Files of `/proc` are left out: the server opens them for a
    /// moment when it is asked for its counters, among which is its memory.
    pub(crate) fn descriptors(&self) -> Vec<u32> {
        let folder = format!("/proc/{}/fd", self.pid());
        let number = |entry: std::io::Result<fs::DirEntry>| {
            let path = entry.unwrap().path();
            let target = fs::read_link(&path).ok()?; // it may be closed by now
            let passing = target.starts_with("/proc") || target.starts_with("/sys");
            let name = path.file_name()?.to_str()?.parse().ok();
            name.filter(|_| !passing)
        };
        let mut numbers: Vec<u32> = fs::read_dir(folder).unwrap().filter_map(number).collect();
        numbers.sort_unstable();
        numbers
    }

    /// A number from `/proc/PID/status`, such as `VmRSS` (in KiB) or `Threads`.
    #[track_caller]
    pub(crate) fn status(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let value = |line: &str| {
            let value = line.strip_prefix(name)?.strip_prefix(':')?;
            value.split_whitespace().next()?.parse().ok()
        };
        status.lines().find_map(value).expect("the file has it")
    }

    /// The CPU time used, user and system, in ticks of 10 ms.
    #[track_caller]
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        let (_, fields) = stat.rsplit_once(')').unwrap();
        let fields: Vec<&str> = fields.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

/// Adds `--sandbox` or `--workers`, which `ECHO_SANDBOX=1` and `ECHO_WORKERS=3` ask for in every server that supports it:
/// all that the tests do with a server must work inside the sandbox, and what concerns no single process with workers.
fn add_flag(command: &mut Command, flag: &str) {
    let line: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
    let name = flag.split('=').next().unwrap();
    let serves = line.first().is_some_and(|first| first == "serve");
    let is_told = |name: &str| line.iter().any(|argument| argument == name);
    let is_reactor = !is_told("--model") || is_told("reactor");
    let has_flag = line
        .iter()
        .any(|word| word.to_string_lossy().starts_with(name));
    if serves && is_reactor && !has_flag {
        command.arg(flag);
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
    });
    receiver
}

/// What a stream has printed so far, and whether it has ended.
#[derive(Clone, Default)]
struct Text(Arc<Mutex<(Vec<u8>, bool)>>);

impl Text {
    fn collect(mut stream: impl Read + Send + 'static) -> Self {
        let text = Self::default();
        let shared = text.clone();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut bytes) {
                shared.with(|(text, _)| text.extend_from_slice(&bytes[..length]));
            }
            shared.with(|(_, complete)| *complete = true);
        });
        text
    }

    fn with<T>(&self, act: impl FnOnce(&mut (Vec<u8>, bool)) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn get(&self) -> String {
        self.with(|(text, _)| String::from_utf8_lossy(text).into_owned())
    }

    fn is_complete(&self) -> bool {
        self.with(|(_, complete)| *complete)
    }
}
