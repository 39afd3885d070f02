//! Messages to a service manager: one datagram for each change of state, by the convention of sd_notify(3).
//!
//! Without NOTIFY_SOCKET in the environment nothing is sent. sd_notify(3) itself waits where the manager's queue is full
//! (ten datagrams, net.unix.max_dgram_qlen), and an event loop must not; yet a READY=1 that is lost means that the manager
//! kills the service when its start has timed out. So messages are queued here, in their order, and tried again until
//! the manager takes them. A missing manager may be restarting, so it has [`ABSENCE_MAX`] to come back. The times of the
//! attempts are in [`super::delivery`]. (The crate sd-notify blocks, and lacks abstract names, which managers in containers
//! use.)

use crate::cli::output::pause;
use crate::net::escape::Escaped;
use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// READY: the server serves from now on.
pub(super) fn ready() {
    tell("READY=1");
}

/// STOPPING: the server has begun to stop.
pub(super) fn stopping() {
    tell("STOPPING=1");
}

/// RELOADING: the program is being replaced. For the manager that is a reload, with the time of its beginning.
pub(super) fn reloading() {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| {
        i128::from(now.tv_sec()) * 1_000_000 + i128::from(now.tv_nsec()) / 1_000
    });
    tell(&format!("RELOADING=1\nMONOTONIC_USEC={now}"));
}

/// Whether the socket of the manager has an abstract name (unix(7)).
pub(super) fn is_abstract() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|manager| manager.as_bytes().starts_with(b"@"))
}

/// Opens the socket to the manager now, so that nothing has to be opened later.
pub(super) fn prepare() {
    drop(manager());
}

/// Tries again to send the queued messages. Returns whether some are left.
pub(super) fn flush() -> bool {
    manager().is_some_and(|mut manager| {
        manager.flush(Instant::now());
        !manager.queue.is_empty()
    })
}

/// Waits at the end of the process for a manager whose queue is full, at most `limit`.
pub(super) fn finish(limit: Duration) {
    let deadline = Instant::now() + limit;
    while flush() && manager().is_some_and(|manager| manager.missing_since.is_none()) {
        if Instant::now() >= deadline {
            return log::warn!("the service manager at NOTIFY_SOCKET does not read its messages");
        }
        pause(Duration::from_millis(10));
    }
}

const VARIABLE: &str = "NOTIFY_SOCKET";

/// A manager that restarts is back within this time.
const ABSENCE_MAX: Duration = Duration::from_secs(60);

/// Longest queue; a replacement sends two messages, so this is far more than a busy manager leaves.
const QUEUE_MAX: usize = 64;

static MANAGER: OnceLock<Option<Mutex<Manager>>> = OnceLock::new();

fn manager() -> Option<MutexGuard<'static, Manager>> {
    let manager = MANAGER.get_or_init(|| {
        let name = std::env::var_os(VARIABLE).filter(|name| !name.is_empty())?;
        match Manager::new(&name) {
            Ok(manager) => Some(Mutex::new(manager)),
            Err(error) => {
                let name = Escaped::new(name.as_bytes());
                log::warn!("NOTIFY_SOCKET '{name}' is ignored: {error}");
                None
            }
        }
    });
    (manager.as_ref()).map(|manager| manager.lock().unwrap_or_else(PoisonError::into_inner))
}

fn tell(what: &str) {
    if let Some(mut manager) = manager() {
        manager.tell(what);
    }
}

/// The socket to the manager, and the messages that it has not taken yet.
#[derive(Debug)]
struct Manager {
    address: SocketAddr,
    socket: UnixDatagram,
    queue: VecDeque<String>,
    /// When the manager was found missing, if it is.
    missing_since: Option<Instant>,
}

impl Manager {
    fn new(name: &OsStr) -> io::Result<Self> {
        let address = match name.as_bytes() {
            #[cfg(target_os = "linux")]
            [b'@', name @ ..] => {
                <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(name)?
            }
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => {
                return Err(io::Error::other("write an absolute path, or @name"));
            }
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            address,
            socket,
            queue: VecDeque::new(),
            missing_since: None,
        })
    }

    fn tell(&mut self, what: &str) {
        if self.queue.len() == QUEUE_MAX {
            self.queue.pop_front();
        }
        self.queue.push_back(what.to_owned());
        self.flush(Instant::now());
    }

    fn flush(&mut self, now: Instant) {
        while let Some(what) = self.queue.front() {
            let result = self.socket.send_to_addr(what.as_bytes(), &self.address);
            let Err(error) = result else {
                self.missing_since = None;
                self.queue.pop_front();
                continue;
            };
            let told = |error: &io::Error| {
                log::warn!("the service manager at NOTIFY_SOCKET cannot be told {what:?}: {error}");
            };
            match error.raw_os_error().map(Errno::from_raw) {
                Some(Errno::EINTR) => {}
                Some(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => {
                    return self.missing_since = None;
                }
                Some(Errno::ENOENT | Errno::ECONNREFUSED) => match self.missing_since {
                    None => {
                        told(&error);
                        return self.missing_since = Some(now);
                    }
                    Some(since) if now.saturating_duration_since(since) < ABSENCE_MAX => return,
                    Some(_) => {
                        self.queue.clear();
                        self.missing_since = None;
                    }
                },
                _ => {
                    told(&error);
                    self.queue.pop_front();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    fn file(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("echo-reactor-{name}-{}", std::process::id()))
    }

    fn heard(manager: &UnixDatagram) -> Vec<String> {
        manager.set_nonblocking(true).unwrap();
        let mut text = [0; 64];
        let messages = std::iter::from_fn(|| {
            manager
                .recv(&mut text)
                .ok()
                .map(|length| String::from_utf8_lossy(&text[..length]).into_owned())
        });
        messages.collect()
    }

    #[test]
    fn a_manager_with_a_file_and_one_with_an_abstract_name_are_told() {
        let file = file("notify");
        let by_file = UnixDatagram::bind(&file).unwrap();
        Manager::new(file.as_os_str()).unwrap().tell("READY=1");
        assert_eq!(heard(&by_file), ["READY=1"]);
        fs::remove_file(&file).unwrap();

        #[cfg(target_os = "linux")]
        {
            use std::os::linux::net::SocketAddrExt;
            let unique = format!("echo-reactor-notify-{}", std::process::id());
            let name = SocketAddr::from_abstract_name(&unique).unwrap();
            let by_name = UnixDatagram::bind_addr(&name).unwrap();
            let mut manager = Manager::new(OsStr::new(&format!("@{unique}"))).unwrap();
            manager.tell("STOPPING=1");
            assert_eq!(heard(&by_name), ["STOPPING=1"]);
        }
        assert!(Manager::new(OsStr::new("vsock:2:1234")).is_err());
    }

    #[test]
    fn what_a_full_queue_does_not_take_is_sent_later_in_its_order() {
        let file = file("notify-full");
        let busy = UnixDatagram::bind(&file).unwrap();
        let mut manager = Manager::new(file.as_os_str()).unwrap();
        while manager.queue.is_empty() {
            manager.tell("X=1");
        }
        manager.tell("READY=1");
        manager.tell("STOPPING=1");
        assert_eq!(manager.queue, ["X=1", "READY=1", "STOPPING=1"]);
        assert!(!heard(&busy).is_empty());
        manager.flush(Instant::now());
        assert_eq!(heard(&busy), ["X=1", "READY=1", "STOPPING=1"]);
        assert!(manager.queue.is_empty());
        fs::remove_file(&file).unwrap();
    }

    #[test]
    fn a_manager_that_is_missing_is_told_when_it_is_back_and_given_up_in_the_end() {
        let file = file("notify-missing");
        let mut manager = Manager::new(file.as_os_str()).unwrap();
        manager.tell("READY=1");
        assert_eq!(manager.queue, ["READY=1"]);
        let back = UnixDatagram::bind(&file).unwrap();
        manager.flush(Instant::now());
        assert_eq!(heard(&back), ["READY=1"]);
        fs::remove_file(&file).unwrap();
        manager.tell("STOPPING=1");
        manager.flush(Instant::now() + ABSENCE_MAX);
        assert!(manager.queue.is_empty());
    }
}
