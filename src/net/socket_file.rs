//! The file of a Unix socket: made without a moment in which the wrong people could use it, taken over only from the
//! dead, removed only if it is still ours.
//!
//! `bind(2)` makes the file under the umask, which usually lets too many in, and fails where an earlier server left its
//! file behind. So the socket is bound inside a new directory that nobody else may enter, gets its permission bits
//! there, and is renamed to its real name once it listens. A rename replaces a stale file in one step: at every moment
//! the name leads to a socket, or, the first time, to nothing.

use super::{Escaped, UnixName};
use socket2::{Domain, SockAddr, Socket, Type};
use std::collections::hash_map::RandomState;
use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;

/// The file of a bound Unix socket. Dropping it removes the file, unless another one has taken its place, or this is a
/// copy in a forked child: the file belongs to the process that made it. A process that binds and then forks to go into
/// the background hands it on by [`SocketFile::take_over`].
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    nursery: PathBuf,
    device: u64,
    inode: u64,
    /// The process that made it, or took it over.
    process: u32,
}

/// Which file it is, for whoever is to look after it next: a path alone could lead to somebody else's by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    /// Where it is found.
    pub path: PathBuf,
    /// The file system that it is on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

impl SocketFile {
    /// Binds the socket to a file that has no public name as yet; [`SocketFile::publish`] gives it `path`.
    ///
    /// # Errors
    /// `AddrInUse` if a server answers at `path`; `AlreadyExists` if something is there that is no socket of ours;
    /// else what the system said.
    pub fn bind(socket: &Socket, kind: Type, path: &Path, mode: u32) -> io::Result<Self> {
        let stale = check_vacant(path, kind)?;
        let directory = path
            .parent()
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let nursery = make_nursery(directory)?;
        let unborn = nursery.join("s");
        let found = socket
            .bind(&SockAddr::unix(&unborn)?)
            .and_then(|()| fs::set_permissions(&unborn, Permissions::from_mode(mode)))
            .and_then(|()| fs::symlink_metadata(&unborn))
            .and_then(|ours| same_owner(&ours, stale.as_ref(), path).map(|()| ours));
        match found {
            Ok(ours) => Ok(Self {
                path: path.to_owned(),
                nursery,
                device: ours.dev(),
                inode: ours.ino(),
                process: process::id(),
            }),
            Err(error) => {
                let _ = fs::remove_file(&unborn);
                let _ = fs::remove_dir(&nursery);
                Err(error)
            }
        }
    }

    /// Gives the file its name, in place of a stale one if there is one.
    ///
    /// # Errors
    /// What the system said of the rename.
    pub fn publish(&self) -> io::Result<()> {
        fs::rename(self.nursery.join("s"), &self.path)?;
        fs::remove_dir(&self.nursery)
    }

    /// Looks after a file that another process has made and left: removes it in the end, if it is still the same.
    #[must_use]
    pub fn take_over(identity: FileIdentity) -> Self {
        let FileIdentity {
            path,
            device,
            inode,
        } = identity;
        Self {
            path,
            nursery: PathBuf::new(), // it has left that long ago
            device,
            inode,
            process: process::id(),
        }
    }

    /// Which file it is.
    #[must_use]
    pub fn identity(&self) -> FileIdentity {
        FileIdentity {
            path: self.path.clone(),
            device: self.device,
            inode: self.inode,
        }
    }

    /// Leaves the file where it is, for somebody else to look after.
    pub fn leave(mut self) {
        self.inode = 0; // which no file has
    }

    fn is_still_ours(&self) -> bool {
        fs::symlink_metadata(&self.path)
            .is_ok_and(|now| now.dev() == self.device && now.ino() == self.inode)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.process != process::id() {
            return; // the parent process still serves there
        }
        // A successor may have renamed its own file over ours: that one is not ours to remove.
        if self.is_still_ours() {
            let _ = fs::remove_file(&self.path);
        }
        // Both are there only if the server never came as far as `publish`.
        if self.nursery.as_os_str().is_empty() {
            return;
        }
        let _ = fs::remove_file(self.nursery.join("s"));
        let _ = fs::remove_dir(&self.nursery);
    }
}

/// A new directory that only we may enter, under a name that nobody has. The name is short, since the whole path must fit
/// into 107 bytes while the socket is bound.
fn make_nursery(directory: &Path) -> io::Result<PathBuf> {
    let mut tries = 0;
    loop {
        let random = RandomState::new().build_hasher().finish();
        let nursery = directory.join(format!(".{:04x}", random & 0xffff));
        match DirBuilder::new().mode(0o700).create(&nursery) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries < 16 => tries += 1,
            // The umask may have taken the bits of the owner, and then the directory could not be entered.
            Ok(()) => {
                let entered = fs::set_permissions(&nursery, Permissions::from_mode(0o700));
                return entered.map(|()| nursery);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether `path` is free (`None`), or holds the socket of a server that is dead (its metadata).
fn check_vacant(path: &Path, kind: Type) -> io::Result<Option<Metadata>> {
    let there = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        result => result?,
    };
    if !there.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "something that is not a socket is there; remove it or choose another path",
        ));
    }
    // Only the dead refuse. A full queue, a wrong kind, a missing permission: all these are signs of somebody's life.
    let probe = Socket::new(Domain::UNIX, kind, None)?;
    probe.set_nonblocking(true)?;
    match probe.connect(&UnixName::Path(path.to_owned()).to_sock_addr()?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(Some(there)),
        _ => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "a server is living there; stop it or choose another path",
        )),
    }
}

/// A stale socket of another user is not ours to replace, even if the directory's permissions would let us.
fn same_owner(ours: &Metadata, stale: Option<&Metadata>, path: &Path) -> io::Result<()> {
    match stale {
        Some(stale) if stale.uid() != ours.uid() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            format!(
                "the stale socket {} belongs to user {}; remove it or choose another path",
                Escaped::new(path.as_os_str().as_bytes()),
                stale.uid()
            ),
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(name: &str) -> (SocketFile, PathBuf) {
        let name = format!("echo-reactor-{name}-{}", process::id());
        let path = std::env::temp_dir().join(name);
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let file = SocketFile::bind(&socket, Type::STREAM, &path, 0o600).unwrap();
        file.publish().unwrap();
        (file, path)
    }

    /// What a forked child drops is a copy of it, and the process is the only difference.
    #[test]
    fn a_copy_in_a_forked_child_leaves_the_file_to_the_parent() {
        let (mut copy, path) = bound("copy");
        let identity = copy.identity();
        copy.process += 1;
        drop(copy);
        assert!(path.exists(), "the parent serves there");
        drop(SocketFile::take_over(identity));
        assert!(!path.exists(), "and removes it in the end");
    }
}
