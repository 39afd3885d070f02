//! The file of a Unix socket: made without a moment in which the wrong people could use it, taken over only from the
//! dead, removed only if it is still ours.
//!
//! The socket is bound in a staging directory (`staging`), which also keeps other servers that start at the same path
//! away, and its path is published once it listens. A free path is taken by link(2), which fails if a file has appeared
//! there meanwhile, whoever made it; the file of a dead server is replaced by rename(2) in one step. At every moment the
//! path leads to a socket, or, the first time, to nothing.

use super::Escaped;
use super::staging::{self, Staging};
use socket2::Socket;
use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;

/// The file of a bound Unix socket. Dropping it removes the file, unless another one has taken its place, or this is a
/// copy in a forked child: the file belongs to the process that made it. A process that binds and then forks to go into
/// the background hands it on by [`SocketFile::from_identity`].
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Where it is until it is published.
    staging: Option<Staging>,
    /// The device and inode of the dead server's file that it is to replace.
    replaces: Option<(u64, u64)>,
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
    /// `AddrInUse` if a server answers at `path`, or another one is starting there; `AlreadyExists` if something is there
    /// that is no socket of ours; else what the system said.
    pub(super) fn bind(socket: &Socket, path: &Path, mode: u32) -> io::Result<Self> {
        check_vacant(path)?; // before anything is written beside it
        let staging = Staging::bind(socket, path)?;
        // Only now will the answer stay true.
        let stale = check_vacant(path)?;
        let file = staging.file();
        fs::set_permissions(&file, Permissions::from_mode(mode))?;
        let ours = fs::symlink_metadata(&file)?;
        same_owner(&ours, stale.as_ref(), path)?;
        Ok(Self {
            path: path.to_owned(),
            staging: Some(staging),
            replaces: stale.map(|stale| (stale.dev(), stale.ino())),
            device: ours.dev(),
            inode: ours.ino(),
            process: process::id(),
        })
    }

    /// Gives the file its name, in place of a stale one if there is one.
    ///
    /// # Errors
    /// `AddrInUse` if the path has been taken since it was found free; `NotFound` if another process took the staging
    /// directory for left over, and this one has to bind again; else those of link(2) and rename(2).
    pub(super) fn publish(&mut self) -> io::Result<()> {
        let Some(staging) = &self.staging else {
            return Ok(());
        };
        let from = staging.file();
        let now = fs::symlink_metadata(&self.path).map(|file| (file.dev(), file.ino()));
        match (self.replaces, now) {
            (Some(stale), Ok(now)) if stale == now => fs::rename(&from, &self.path)?,
            (_, Ok(_)) => return Err(taken_meanwhile()),
            (_, Err(_)) => match fs::hard_link(&from, &self.path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(taken_meanwhile());
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
                // A file system without hard links. The staging directory keeps other servers of ours away.
                Err(_) => fs::rename(&from, &self.path)?,
            },
        }
        self.staging = None;
        Ok(())
    }

    /// Looks after a file that another process has made and left: removes it in the end, if it is still the same.
    #[must_use]
    pub fn from_identity(identity: FileIdentity) -> Self {
        let FileIdentity {
            path,
            device,
            inode,
        } = identity;
        Self {
            path,
            staging: None,
            replaces: None,
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
    pub fn keep(mut self) {
        self.inode = 0; // which no file has
    }

    fn is_still_ours(&self) -> bool {
        self.is_at(&self.path)
    }

    /// Whether `path`, however it is spelled, leads to this file.
    pub(super) fn is_at(&self, path: &Path) -> bool {
        fs::symlink_metadata(path)
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
    }
}

/// Whether `path` is free (`None`), or holds the socket of a server that is dead (its metadata).
fn check_vacant(path: &Path) -> io::Result<Option<Metadata>> {
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
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    if staging::is_dead(directory, name)? {
        return Ok(Some(there));
    }
    Err(io::Error::new(
        io::ErrorKind::AddrInUse,
        "a server is living there; stop it or choose another path",
    ))
}

fn taken_meanwhile() -> io::Error {
    io::Error::new(
        io::ErrorKind::AddrInUse,
        "another server has taken it a moment ago; stop it or choose another path",
    )
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
    use socket2::{Domain, Type};

    fn bound(name: &str) -> (SocketFile, PathBuf) {
        let name = format!("echo-reactor-{name}-{}", process::id());
        let path = std::env::temp_dir().join(name);
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let mut file = SocketFile::bind(&socket, &path, 0o600).unwrap();
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
        drop(SocketFile::from_identity(identity));
        assert!(!path.exists(), "and removes it in the end");
    }
}
