//! W: several workers under a master, and a program that is replaced.
//!
//! What may live in this file: what the tests of workers share. The tests are in one file for each subject.

mod ending;
mod replacing;
mod serving;

use crate::support::{DEADLINE, Serve, sock_addr, try_connect, wait_until};
use echo_reactor::net::Endpoint;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) const TCP: &str = "tcp://127.0.0.1:0";

pub(super) fn raw(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap())
}

/// The children of a process that run; a zombie has ended.
pub(super) fn children(pid: u32) -> Vec<u32> {
    let file = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(file).unwrap_or_default();
    let children = children
        .split_whitespace()
        .filter_map(|number| number.parse().ok());
    children
        .filter(|&child| state(child).is_some_and(|state| state != 'Z'))
        .collect()
}

/// The state of a process, as ps(1) shows it.
pub(super) fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

pub(super) fn zombies(pid: u32) -> usize {
    let file = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(file).unwrap_or_default();
    let children = children
        .split_whitespace()
        .filter_map(|number| number.parse().ok());
    children.filter(|&child| state(child) == Some('Z')).count()
}

/// What SIGUSR1 prints, from the parts of the spread on: a line for each process follows.
pub(super) fn report(server: &Serve) -> String {
    const BEGIN: &str = "spread accepted=";
    let before = server.err().matches(BEGIN).count();
    server.counters();
    let mut lines = String::new();
    wait_until("every process has a line", || {
        let err = server.err();
        lines = err
            .rsplit_once(BEGIN)
            .map_or_else(String::new, |(_, lines)| lines.to_owned());
        let rows = lines.matches("\nworker ").count();
        err.matches(BEGIN).count() > before
            && rows >= children(server.pid()).len()
            && lines.ends_with('\n')
    });
    lines
}

/// The workers of a server that serve, by their numbers.
pub(super) fn workers(server: &Serve) -> BTreeMap<usize, u32> {
    let lines = report(server);
    let worker = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["worker", worker, "process", process, "serving:", ..] => {
                Some((worker.parse().ok()?, process.parse().ok()?))
            }
            _ => None,
        }
    };
    lines.lines().filter_map(worker).collect()
}

pub(super) fn serve(workers: usize, addresses: &[&str], flags: &[&str]) -> Serve {
    let workers = workers.to_string();
    let flags = [&["--workers", &workers], flags].concat();
    Serve::start(addresses, &flags)
}

/// A client from one of the addresses of loopback, so that sources differ. It may be reset before connect(2) returns.
pub(super) fn connect_from(host: u8, to: SocketAddr) -> Socket {
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let from: SocketAddr = format!("127.9.0.{host}:0").parse().unwrap();
    client.bind(&from.into()).unwrap();
    if let Err(error) = client.connect(&to.into()) {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client
}

/// Connects, talks, and leaves, again and again. Returns how many connections were served and how many were cut after they
/// had been accepted; one that is refused or reset before is a failure.
pub(super) fn churn(to: &Endpoint, stop: &AtomicBool) -> (u64, u64) {
    let address = sock_addr(to);
    let (mut served, mut cut) = (0, 0);
    while !stop.load(Ordering::Relaxed) {
        let client = try_connect(&address).expect("no connection is refused");
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        let is_served =
            (&client).write_all(b"hello").is_ok() && (&client).read_exact(&mut [0; 5]).is_ok();
        match is_served {
            true => served += 1,
            false => cut += 1,
        }
    }
    (served, cut)
}

pub(super) fn write_program(path: &PathBuf, text: &str) {
    let other = path.with_extension("new");
    let mut file = File::create(&other).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
    drop(file);
    fs::rename(other, path).unwrap();
}

/// Replaces the program, and waits until the new one serves.
#[track_caller]
pub(super) fn replace(server: &Serve) {
    let count = || server.err().matches("replaced by version").count();
    let before = count();
    server.signal(Signal::SIGUSR2);
    wait_until("the new program serves", || count() > before);
}
