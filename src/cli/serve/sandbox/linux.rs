//! The two linux: [`files`] by Landlock, then [`calls`] by seccomp, whose list has none of Landlock's own calls.
//!
//! Either would do much of the other's work. They fail differently, though: Landlock knows what a path is, and is as old
//! as Linux 5.13, its rules for TCP and signals as 6.7 and 6.12; seccomp knows numbers alone, and is everywhere.

mod landlock;
mod seccomp;

use super::{Needs, Raised};

/// Raises both. What one is refused does not keep the other from being raised.
pub(super) fn raise(needs: &Needs) -> Raised {
    let mut raised = Raised::default();
    landlock::raise(needs, &mut raised);
    match seccomp::raise(needs) {
        Ok(stands) => raised.stands.push(stands),
        Err(missing) => raised.missing.push(missing),
    }
    raised
}
