//! Passing descriptors to another program: to a worker that is started, or to the program that takes this process over.
//!
//! The convention is that of sd_listen_fds(3), with a first number of its own, as the crate listenfd reads it:
//!
//! ```text
//! LISTEN_FDS=4  LISTEN_FDS_FIRST_FD=17     descriptors 17 to 20
//! ECHO_REACTOR_ROLE=worker                 what the program is to do with them
//! ```
//!
//! The numbers have to follow each other. dup(2) takes the lowest free number, so copies fill the gaps between open
//! descriptors first, and the next copies follow each other. Nothing is moved to a certain number: a descriptor of this
//! process is never replaced, and if the other program cannot be started, closing the copies leaves everything as it was.

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// The variable that names the role of a program that this one has started.
pub(super) const ROLE: &str = "ECHO_REACTOR_ROLE";

/// The variables by which descriptors are passed, of this convention and of others; a new program gets those of [`Block`] alone.
pub(super) const VARIABLES: [&str; 5] = [
    ROLE,
    "LISTEN_FDS",
    "LISTEN_FDS_FIRST_FD",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
];

/// What a program that this one has started is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It is one of the workers of a master.
    Worker,
    /// It takes the place of a master, in the same process.
    Successor,
}

impl Role {
    const ALL: [Self; 2] = [Self::Worker, Self::Successor];

    fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Successor => "successor",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// Copies of descriptors that stay open on exec(3), with numbers that follow each other. Dropping it closes them.
#[derive(Debug)]
pub(super) struct Block {
    copies: Vec<OwnedFd>,
}

impl Block {
    /// Copies these descriptors.
    ///
    /// # Errors
    /// Those of fcntl(2): usually that there are no descriptors left.
    pub(super) fn of(descriptors: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let mut filling = Vec::new();
        let copies = loop {
            let copies: Vec<OwnedFd> = descriptors
                .iter()
                .map(BorrowedFd::try_clone_to_owned)
                .collect::<io::Result<_>>()?;
            let are_consecutive = |pair: &[OwnedFd]| pair[0].as_raw_fd() + 1 == pair[1].as_raw_fd();
            if copies.windows(2).all(are_consecutive) {
                break copies;
            }
            filling.extend(copies);
        };
        for copy in &copies {
            fcntl(copy, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(Self { copies })
    }

    /// The environment of the program that gets them.
    pub(super) fn variables(&self, role: Role) -> [(&'static str, String); 3] {
        let first = self.copies.first().map_or(3, AsRawFd::as_raw_fd);
        [
            (ROLE, role.name().to_owned()),
            ("LISTEN_FDS", self.copies.len().to_string()),
            ("LISTEN_FDS_FIRST_FD", first.to_string()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;

    #[test]
    fn the_copies_follow_each_other_whatever_is_open() {
        let open: Vec<File> = (0..40).map(|_| File::open("/dev/null").unwrap()).collect();
        // Every third is closed, so that there are gaps.
        let left: Vec<File> = (0..)
            .zip(open)
            .filter(|(place, _)| place % 3 > 0)
            .map(|(_, file)| file)
            .collect();
        let descriptors: Vec<BorrowedFd<'_>> = left.iter().map(AsFd::as_fd).collect();
        let block = Block::of(&descriptors).unwrap();
        assert_eq!(block.copies.len(), left.len());
        let first = block.copies[0].as_raw_fd();
        assert!(
            (first..)
                .zip(&block.copies)
                .all(|(number, copy)| copy.as_raw_fd() == number)
        );
        let variables = block.variables(Role::Worker);
        assert_eq!(variables[0], (ROLE, "worker".to_owned()));
        assert_eq!(variables[2].1, first.to_string());
        assert_eq!(Role::named("successor"), Some(Role::Successor));
        assert_eq!(Role::named(""), None);
    }
}
