//! What a service manager is told: one datagram for each change, by the convention of sd_notify(3).
//!
//! What may live in this file: that convention. Without NOTIFY_SOCKET in the environment nothing is sent, and a manager
//! that does not listen is no reason to serve worse: every failure is a line in the log at most, and nothing is waited
//! for. (The crate sd-notify does the same in four hundred lines, and leaves out abstract names, which managers in
//! containers use.)

use nix::time::{ClockId, clock_gettime};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;

/// The server answers from now on.
pub(super) fn ready() {
    tell("READY=1");
}

/// It has begun to stop.
pub(super) fn stopping() {
    tell("STOPPING=1");
}

/// It is handing over. The manager takes it for a reload, and wants to know since when.
pub(super) fn reloading() {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| {
        i128::from(now.tv_sec()) * 1_000_000 + i128::from(now.tv_nsec()) / 1_000
    });
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
}

/// Another process is the service from now on.
pub(super) fn succeeded_by(process: u32) {
    tell(&format!("MAINPID={process}\nREADY=1"));
}

/// Whether the manager's socket is one with a name beside the file system.
pub(super) fn is_abstract() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|manager| manager.as_bytes().starts_with(b"@"))
}

/// Opens the way to the manager now, so that nothing has to be opened later.
pub(super) fn prepare() {
    let _ = SOCKET.get_or_init(|| std::env::var_os(VARIABLE).and_then(|_| socket().ok()));
}

const VARIABLE: &str = "NOTIFY_SOCKET";
static SOCKET: OnceLock<Option<UnixDatagram>> = OnceLock::new();

fn tell(what: &str) {
    let Some(manager) = std::env::var_os(VARIABLE) else {
        return;
    };
    if let Err(error) = send(&manager, what) {
        log::warn!("the service manager at NOTIFY_SOCKET cannot be told {what:?}: {error}");
    }
}

fn socket() -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn send(manager: &OsStr, what: &str) -> io::Result<()> {
    let address = match manager.as_bytes() {
        #[cfg(target_os = "linux")]
        [b'@', name @ ..] => {
            <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)?
        }
        _ => SocketAddr::from_pathname(manager)?,
    };
    let sent = match SOCKET.get() {
        Some(Some(open)) => open.send_to_addr(what.as_bytes(), &address),
        _ => socket()?.send_to_addr(what.as_bytes(), &address),
    };
    sent.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_with_a_file_and_one_with_an_abstract_name_are_told() {
        let unique = format!("echo-reactor-notify-{}", std::process::id());
        let file = std::env::temp_dir().join(&unique);
        let by_file = UnixDatagram::bind(&file).unwrap();
        send(file.as_os_str(), "READY=1").unwrap();
        let mut told = [0; 64];
        assert_eq!(by_file.recv(&mut told).unwrap(), 7);
        std::fs::remove_file(&file).unwrap();
        assert!(send(file.as_os_str(), "READY=1").is_err());

        #[cfg(target_os = "linux")]
        {
            use std::os::linux::net::SocketAddrExt;
            let name = SocketAddr::from_abstract_name(&unique).unwrap();
            let by_name = UnixDatagram::bind_addr(&name).unwrap();
            send(OsStr::new(&format!("@{unique}")), "STOPPING=1").unwrap();
            let length = by_name.recv(&mut told).unwrap();
            assert_eq!(&told[..length], b"STOPPING=1");
        }
    }
}
