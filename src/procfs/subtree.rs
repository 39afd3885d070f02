//! The descendants of a process.

use std::collections::BTreeMap;
use std::fs;
#[cfg(all(feature = "cli", feature = "bench"))]
use std::{thread, time::Duration};

/// All descendants of a process, without zombies. `None` where there is no /proc.
pub(crate) fn descendants(ancestor: u32) -> Option<Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<(u32, bool)>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(pid) = pid else { continue };
        if let Some((parent, is_zombie)) = parent_of(pid) {
            children.entry(parent).or_default().push((pid, is_zombie));
        }
    }
    let (mut found, mut at) = (Vec::new(), vec![ancestor]);
    while let Some(parent) = at.pop() {
        for (pid, is_zombie) in children.remove(&parent).unwrap_or_default() {
            at.push(pid);
            if !is_zombie {
                found.push(pid);
            }
        }
    }
    Some(found)
}

/// The descendants of a process that two looks in a row have seen, this long apart: what has only started others in the
/// background, and is ending, is not among them.
#[cfg(all(feature = "cli", feature = "bench"))]
pub(crate) fn settled_descendants(ancestor: u32, apart: Duration) -> Vec<u32> {
    const LOOKS_MAX: usize = 20;
    let mut last = Vec::new();
    for _ in 0..LOOKS_MAX {
        thread::sleep(apart);
        let seen = descendants(ancestor).unwrap_or_default();
        if seen == last {
            break;
        }
        last = seen;
    }
    last
}

/// The parent of a process, and whether it is a zombie. Both stand behind the name, which may contain any character, even
/// a bracket (proc_pid_stat(5)).
fn parent_of(pid: u32) -> Option<(u32, bool)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let is_zombie = matches!(fields.next()?, "Z" | "X");
    Some((fields.next()?.parse().ok()?, is_zombie))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_are_found() {
        let own = std::process::id();
        let parent = parent_of(own).unwrap().0;
        assert!(descendants(parent).unwrap().contains(&own));
        assert!(!descendants(own).unwrap().contains(&own));
        assert_eq!(parent_of(u32::MAX), None);
    }
}
