//! The staging directory of a Unix socket's file: where the socket is bound before its path is published, and the lock
//! between processes that start at the same path.
//!
//! bind(2) creates the file under the umask, which usually admits too many users, so the socket is bound inside a
//! directory of mode 0700 and gets its permission bits there. The directory's name follows from the path alone
//! (`.NAME.starting` beside `NAME`), and mkdir(2) creates it for one process only: between the check that the path is
//! free, or holds the socket of a dead server, and the moment at which the path is published, no other server can
//! publish there.
//!
//! A lock in the file system survives its holder, so it can be broken, and being broken by mistake must do no harm:
//!
//! - The socket lies in the directory under a random name. Publishing moves *that* name, so it fails if the directory
//!   has been taken away meanwhile; a holder that lost the lock cannot publish.
//! - connect(2) to the socket in it tells whether its holder is alive: only `ECONNREFUSED` proves that no process has it
//!   open. An empty directory belongs to a process between mkdir(2) and bind(2), or to one that died there; it counts as
//!   left over after [`EMPTY_CHECKS_MAX`].
//!
//! Roads not taken. flock(2) of the parent directory frees itself, but neither std (before 1.89) nor socket2 offers it. A
//! lock by an abstract name is known in one network namespace, while the path may be shared by several.
//!
//! The path in the directory may be longer than the 107 bytes that unix(7) allows, where the final one is not. It is then
//! reached through `/proc/self/fd/N`, the open directory.

use super::address::UNIX_PATH_MAX;
use super::escape::Escaped;
use crate::procfs::own::descriptor_path;
use crate::random::unpredictable;
use socket2::{Domain, SockAddr, Socket, Type};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::time::Duration;

/// Pause between two checks of a directory that another process holds. Checks are counted, rather than time: while a
/// machine is suspended, the other process makes no progress either.
const CHECK_INTERVAL: Duration = Duration::from_millis(2);
/// How often the directory is checked before this process gives up: for five seconds.
const CHECKS_MAX: u32 = 2_500;
/// After how many checks, within a second, a directory without a socket no longer belongs to a process that is about to
/// bind one.
const EMPTY_CHECKS_MAX: u32 = 500;

/// A staging directory that this process holds, with one socket in it. Dropping it removes both.
#[derive(Debug)]
pub(super) struct Staging {
    directory: PathBuf,
    name: OsString,
    /// The process that made it; a forked child drops a copy.
    process: u32,
}

impl Staging {
    /// Waits for the staging directory of `path`, and binds the socket inside.
    ///
    /// # Errors
    /// `AddrInUse` if another process holds the directory for too long; else those of mkdir(2) and bind(2).
    pub(super) fn bind(socket: &Socket, path: &Path) -> io::Result<Self> {
        Self::bind_with(socket, path, || std::thread::sleep(CHECK_INTERVAL))
    }

    /// The same, with a `pause` between two checks.
    fn bind_with(socket: &Socket, path: &Path, mut pause: impl FnMut()) -> io::Result<Self> {
        let directory = directory_of(path)?;
        let mut empty_checks = 0;
        for _ in 0..CHECKS_MAX {
            match DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => {
                    let staging = Self {
                        directory: directory.clone(),
                        name: random_name(),
                        process: process::id(),
                    };
                    if staging.bind_inside(socket)? {
                        return Ok(staging);
                    }
                }
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    if is_left_over(&directory, &mut empty_checks) {
                        break_lock(&directory)?;
                        empty_checks = 0;
                        continue;
                    }
                }
                Err(error) => return Err(error),
            }
            pause();
        }
        Err(held_for_too_long(&directory))
    }

    /// Binds the socket. `false` means that another process removed the directory as left over between mkdir(2) and here:
    /// the socket is not bound then, and the next attempt may succeed.
    fn bind_inside(&self, socket: &Socket) -> io::Result<bool> {
        // A umask such as 0177 takes the owner's own right to enter.
        let bound = fs::set_permissions(&self.directory, Permissions::from_mode(0o700))
            .and_then(|()| ShortAddress::new(&self.directory, &self.name))
            .and_then(|short| socket.bind(&short.address));
        match bound {
            Ok(()) => {}
            // If the directory is there, another name is missing: that of /proc, in which a long path is shortened.
            Err(error) if error.kind() == ErrorKind::NotFound && !self.directory.exists() => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        match names_in(&self.directory).is_ok_and(|names| names.len() == 1) {
            true => Ok(true),
            // A socket cannot be bound twice, so this attempt is over.
            false => Err(held_for_too_long(&self.directory)),
        }
    }

    /// Returns the path of the socket's file until it is published.
    pub(super) fn file(&self) -> PathBuf {
        self.directory.join(&self.name)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        if self.process != process::id() {
            return;
        }
        let _ = fs::remove_file(self.file());
        // Fails if the directory belongs to another process by now, with a socket in it.
        let _ = fs::remove_dir(&self.directory);
    }
}

/// Whether no process has the socket at this path open. Every other answer of connect(2) than `ECONNREFUSED` (a full
/// queue, another kind, a missing permission) comes from a socket that is open. The probe is a datagram socket whatever
/// the other is: a stream socket that is bound and does not listen as yet would refuse a stream too.
///
/// # Errors
/// The path does not fit into a socket address, or there are no descriptors left.
pub(super) fn is_dead(directory: &Path, name: &OsStr) -> io::Result<bool> {
    let short = ShortAddress::new(directory, name)?;
    let probe = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    probe.set_nonblocking(true)?;
    let refused = |error: io::Error| error.kind() == ErrorKind::ConnectionRefused;
    Ok(probe.connect(&short.address).is_err_and(refused))
}

/// A socket address of at most 107 bytes that leads to a path, and the open directory that it may refer to.
struct ShortAddress {
    address: SockAddr,
    _directory: Option<File>,
}

impl ShortAddress {
    fn new(directory: &Path, name: &OsStr) -> io::Result<Self> {
        let path = directory.join(name);
        if path.as_os_str().len() <= UNIX_PATH_MAX {
            return Ok(Self {
                address: SockAddr::unix(path)?,
                _directory: None,
            });
        }
        let open = File::open(directory)?;
        let base = descriptor_path(open.as_raw_fd());
        Ok(Self {
            address: SockAddr::unix(base.join(name))?,
            _directory: Some(open),
        })
    }
}

/// `.NAME.starting` beside the file NAME.
fn directory_of(path: &Path) -> io::Result<PathBuf> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(ErrorKind::InvalidInput.into());
    };
    let mut staging = OsString::from(".");
    staging.push(name);
    staging.push(".starting");
    Ok(parent.join(staging))
}

fn random_name() -> OsString {
    format!("{:08x}", unpredictable() as u32).into()
}

fn names_in(directory: &Path) -> io::Result<Vec<OsString>> {
    let entries = fs::read_dir(directory)?;
    entries.map(|entry| Ok(entry?.file_name())).collect()
}

/// Whether the process that made this directory is dead, as far as that can be known.
fn is_left_over(directory: &Path, empty_checks: &mut u32) -> bool {
    let Ok(names) = names_in(directory) else {
        return false; // removed by now, or of another user
    };
    if names.is_empty() {
        *empty_checks += 1;
        return *empty_checks > EMPTY_CHECKS_MAX;
    }
    *empty_checks = 0;
    (names.iter()).all(|name| is_dead(directory, name).unwrap_or(false))
}

/// Removes a directory that was left over. It is renamed first, so that a directory that another process has made since is
/// never removed.
fn break_lock(directory: &Path) -> io::Result<()> {
    let mut aside = directory.as_os_str().to_owned();
    aside.push(".");
    aside.push(random_name());
    let aside = PathBuf::from(aside);
    match fs::rename(directory, &aside) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        result => result?,
    }
    for name in names_in(&aside)? {
        fs::remove_file(aside.join(name))?;
    }
    fs::remove_dir(aside)
}

fn held_for_too_long(directory: &Path) -> io::Error {
    let shown = Escaped::new(directory.as_os_str().as_bytes());
    io::Error::new(
        ErrorKind::AddrInUse,
        format!(
            "another server is starting there; wait for it, or remove {shown} if it was left over"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory that is removed in the end, with the path of a socket in it.
    struct TestDir(PathBuf);

    impl TestDir {
        fn new() -> Self {
            let name = format!("echo-staging-{}", random_name().to_string_lossy());
            let directory = std::env::temp_dir().join(name);
            fs::create_dir(&directory).unwrap();
            Self(directory)
        }

        fn path(&self) -> PathBuf {
            self.0.join("s")
        }
    }

    impl Drop for TestDir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn stream() -> Socket {
        Socket::new(Domain::UNIX, Type::STREAM, None).unwrap()
    }

    #[test]
    fn a_directory_of_a_dead_process_is_replaced_at_once() {
        let dir = TestDir::new();
        let dead = stream();
        let left = Staging::bind(&dead, &dir.path()).unwrap();
        drop(dead);
        std::mem::forget(left);
        let no_pause = || panic!("there is nothing to wait for");
        let staging = Staging::bind_with(&stream(), &dir.path(), no_pause).unwrap();
        assert!(staging.file().exists());
        drop(staging);
        assert_eq!(names_in(&dir.0).unwrap().len(), 0);
    }

    #[test]
    fn a_socket_that_is_bound_and_does_not_listen_is_alive() {
        let dir = TestDir::new();
        let bound = stream();
        bound.bind(&SockAddr::unix(dir.path()).unwrap()).unwrap();
        assert!(!is_dead(&dir.0, OsStr::new("s")).unwrap());
        drop(bound);
        assert!(is_dead(&dir.0, OsStr::new("s")).unwrap());
    }

    #[test]
    fn a_holder_whose_directory_was_removed_cannot_publish() {
        let dir = TestDir::new();
        let (slow, quick) = (stream(), stream());
        let staging = Staging::bind(&slow, &dir.path()).unwrap();
        break_lock(&directory_of(&dir.path()).unwrap()).unwrap();
        let other = Staging::bind(&quick, &dir.path()).unwrap();
        assert!(!staging.file().exists() && other.file().exists());
        drop(staging);
        assert!(
            other.file().exists(),
            "the file of another holder is not removed"
        );
    }

    /// Binds, and counts the pauses; `at_pause` runs in each.
    fn bind_counted(dir: &TestDir, mut at_pause: impl FnMut(u32)) -> (u32, io::Result<Staging>) {
        let mut pauses = 0;
        let staging = Staging::bind_with(&stream(), &dir.path(), || {
            at_pause(pauses);
            pauses += 1;
        });
        (pauses, staging)
    }

    #[test]
    fn a_holder_is_waited_for_and_given_up_in_the_end() {
        let dir = TestDir::new();
        let socket = stream();
        let mut holder = Some(Staging::bind(&socket, &dir.path()).unwrap());
        let (pauses, refused) = bind_counted(&dir, |_| {});
        assert_eq!(
            (pauses, refused.unwrap_err().kind()),
            (CHECKS_MAX, ErrorKind::AddrInUse)
        );
        assert!(
            holder.as_ref().unwrap().file().exists(),
            "it is the holder's"
        );
        let (pauses, staging) = bind_counted(&dir, |pause| {
            if pause == 1 {
                holder = None;
            }
        });
        assert_eq!(pauses, 2);
        assert!(staging.unwrap().file().exists());
    }

    #[test]
    fn an_empty_directory_is_left_over_if_it_stays_empty() {
        let dir = TestDir::new();
        let directory = directory_of(&dir.path()).unwrap();
        fs::create_dir(&directory).unwrap();
        let (pauses, staging) = bind_counted(&dir, |_| {});
        assert_eq!(pauses, EMPTY_CHECKS_MAX);
        drop(staging.unwrap());
        // Its process binds late, and dies at once.
        fs::create_dir(&directory).unwrap();
        let (pauses, staging) = bind_counted(&dir, |pause| {
            if pause == EMPTY_CHECKS_MAX - 1 {
                stream()
                    .bind(&SockAddr::unix(directory.join("late")).unwrap())
                    .unwrap();
            }
        });
        assert_eq!(pauses, EMPTY_CHECKS_MAX);
        assert!(staging.unwrap().file().exists());
    }

    #[test]
    fn a_directory_that_is_gone_before_the_bind_is_made_again() {
        let dir = TestDir::new();
        let staging = |name: &str| Staging {
            directory: directory_of(&dir.path()).unwrap(),
            name: name.into(),
            process: process::id(),
        };
        assert!(!staging("gone").bind_inside(&stream()).unwrap());
        let within = staging("no/such");
        fs::create_dir(&within.directory).unwrap();
        let error = within.bind_inside(&stream()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "the directory is there");
    }

    #[test]
    fn the_owner_may_enter_the_directory_under_every_umask() {
        let dir = TestDir::new();
        let staging = Staging {
            directory: directory_of(&dir.path()).unwrap(),
            name: random_name(),
            process: process::id(),
        };
        DirBuilder::new()
            .mode(0o600)
            .create(&staging.directory)
            .unwrap();
        assert!(staging.bind_inside(&stream()).unwrap());
        let mode = fs::metadata(&staging.directory)
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o700);
    }

    #[test]
    fn a_lock_that_is_gone_counts_as_broken() {
        let dir = TestDir::new();
        break_lock(&dir.0.join("gone")).unwrap();
        let file = dir.path();
        fs::write(&file, "").unwrap();
        let error = break_lock(&file.join("below")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotADirectory);
    }
}
