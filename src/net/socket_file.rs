//! The file of a Unix socket: never accessible with the wrong permission bits, taken over only from a dead server, and
//! removed only if it is still the same file.
//!
//! The socket is bound in a staging directory (`staging`), which also locks out other servers that start at the same path,
//! and its path is published once it listens. A free path is taken by link(2), which fails if any process has made a file
//! there meanwhile; the file of a dead server is replaced by rename(2) in one step. At every moment the path leads to a
//! socket, or, before the first start, to nothing.

use super::escape::Escaped;
use super::staging::{self, Staging};
use socket2::Socket;
use std::fs::{self, Metadata, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process;

/// The file of a bound Unix socket. Dropping it removes the file, unless another file has replaced it, or this is a copy in
/// a forked child: the file belongs to the process that made it. A process that binds and then forks to go into the
/// background passes it on by [`SocketFile::from_identity`].
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// The directory that holds the file until it is published.
    staging: Option<Staging>,
    /// The device and inode of the file of a dead server that it is to replace.
    replaces: Option<(u64, u64)>,
    device: u64,
    inode: u64,
    /// The process that made the file, or took it over.
    process: u32,
}

/// The identity of a socket's file, for the process that is to remove it later: the path by itself could lead to another
/// file by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileIdentity {
    /// The path of the file.
    pub path: PathBuf,
    /// The device number of its file system.
    pub device: u64,
    /// Its inode number there.
    pub inode: u64,
}

impl SocketFile {
    /// Binds the socket to a file in the staging directory; [`SocketFile::publish`] moves it to `path`.
    ///
    /// # Errors
    /// `AddrInUse` if a server has the socket at `path` open, or another one is starting there; `AlreadyExists` if the file
    /// there is not a socket, or belongs to another user; else those of the system calls.
    pub(super) fn bind(socket: &Socket, path: &Path, mode: u32) -> io::Result<Self> {
        check_vacant(path)?; // before a directory is made beside it
        let staging = Staging::bind(socket, path)?;
        // Once the staging directory is held, no other server can publish there.
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

    /// Moves the file to its path, and replaces a stale one if there is one.
    ///
    /// # Errors
    /// `AddrInUse` if the path has been taken since it was found free; `NotFound` if another process removed the staging
    /// directory as left over, so that this one has to bind again; else those of link(2) and rename(2).
    pub(super) fn publish(&mut self) -> io::Result<()> {
        let Some(staging) = &self.staging else {
            return Ok(());
        };
        let from = staging.file();
        let now = fs::symlink_metadata(&self.path).map(|file| (file.dev(), file.ino()));
        match (self.replaces, now) {
            (Some(stale), Ok(now)) if stale == now => fs::rename(&from, &self.path)?,
            _ => match fs::hard_link(&from, &self.path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    return Err(taken_meanwhile());
                }
                // The path is free, on a file system without hard links: the staging directory locks out other
                // echo-reactor processes. If that was removed, rename(2) fails as link(2) did.
                Err(_) => fs::rename(&from, &self.path)?,
            },
        }
        self.staging = None;
        Ok(())
    }

    /// Takes over a file that another process has made and kept: it is removed on drop, if it is still the same file.
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

    /// Returns the identity of the file, for [`SocketFile::from_identity`] in another process.
    #[must_use]
    pub fn identity(&self) -> FileIdentity {
        FileIdentity {
            path: self.path.clone(),
            device: self.device,
            inode: self.inode,
        }
    }

    /// Keeps the file: it is not removed on drop, since another process takes it over.
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
            return; // the parent process still has the socket open
        }
        // A later server may have renamed its own file over this one: that file must not be removed.
        if self.is_still_ours() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Checks that `path` is free (`None`), or is the socket of a dead server (its metadata).
fn check_vacant(path: &Path) -> io::Result<Option<Metadata>> {
    // Where the directory cannot be entered, making the staging directory reports it.
    let Ok(there) = fs::symlink_metadata(path) else {
        return Ok(None);
    };
    if !there.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the file there is not a socket; remove it or choose another path",
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
        "a server is listening there; stop it or choose another path",
    ))
}

fn taken_meanwhile() -> io::Error {
    io::Error::new(
        io::ErrorKind::AddrInUse,
        "another server has taken the path a moment ago; stop it or choose another path",
    )
}

/// Refuses to replace a stale socket of another user, even if the permissions of the directory allow it.
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
    use std::os::unix::net::{UnixListener, UnixStream};

    fn test_path(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("echo-reactor-{name}-{}", process::id()))
    }

    fn bound(name: &str) -> (SocketFile, PathBuf) {
        let path = test_path(name);
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let mut file = SocketFile::bind(&socket, &path, 0o600).unwrap();
        file.publish().unwrap();
        (file, path)
    }

    /// A forked child drops a copy, which differs only in the process that it is dropped by.
    #[test]
    fn a_copy_in_a_forked_child_leaves_the_file_to_the_parent() {
        let (mut copy, path) = bound("copy");
        let identity = copy.identity();
        copy.process += 1;
        drop(copy);
        assert!(path.exists(), "the parent still has the socket open");
        drop(SocketFile::from_identity(identity));
        assert!(!path.exists(), "the parent removes it");
    }

    /// A server that is no echo-reactor knows nothing of the staging directory.
    #[test]
    fn a_stale_file_that_another_server_has_replaced_is_left_to_it() {
        let path = test_path("replaced");
        drop(UnixListener::bind(&path).unwrap());
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let mut file = SocketFile::bind(&socket, &path, 0o600).unwrap();
        // Renamed, since a new file could have the inode number of the stale one.
        let elsewhere = test_path("replacement");
        let other = UnixListener::bind(&elsewhere).unwrap();
        fs::rename(&elsewhere, &path).unwrap();
        let error = file.publish().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(file);
        UnixStream::connect(&path).expect("it is where it was");
        drop(other);
        fs::remove_file(&path).unwrap();
    }
}
