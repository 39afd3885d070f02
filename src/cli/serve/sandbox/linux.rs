//! The restrictions of Linux: first Landlock, then seccomp, whose list has none of Landlock's own system calls.
//!
//! Each covers much of the other. Landlock knows paths, and needs Linux 5.13, for TCP 6.7 and for signals 6.12; seccomp
//! knows only numbers of system calls, and is in every kernel.

mod landlock;
mod seccomp;

use super::needs::{Needs, Restrictions};

/// Applies both. If the kernel refuses one of them, the other is still applied.
pub(super) fn restrict(needs: &Needs) -> Restrictions {
    let mut restrictions = Restrictions::default();
    landlock::restrict(needs, &mut restrictions);
    match seccomp::restrict(needs) {
        Ok(applied) => restrictions.applied.push(applied),
        Err(missing) => restrictions.missing.push(missing),
    }
    restrictions
}
