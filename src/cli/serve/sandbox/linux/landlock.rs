//! Landlock (landlock(7)): no file, no TCP port, no signal to other processes.
//!
//! A right that is handled and not granted is refused from now on, with EACCES or EPERM; descriptors that are open stay
//! as they are, which is why the log and the file of `--stats-json` need nothing here. The one right
//! that is granted is to remove files in the directories of the own socket files and of `--pid-file`.

use super::super::needs::{Needs, Restrictions};
use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, LandlockStatus, PathBeneath, PathFd,
    RestrictionStatus, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    Scope,
};

/// The rules as Linux 6.12 knows them. Later versions have more; each is to be tried before it is asked for.
const WANTED: ABI = ABI::V6;

/// Refuses the process files, TCP ports and signals.
pub(super) fn restrict(needs: &Needs, restrictions: &mut Restrictions) {
    match enforce(needs) {
        Ok(status) => describe(&status, restrictions),
        Err(error) => restrictions
            .missing
            .push(format!("Landlock was refused: {error}")),
    }
}

fn enforce(needs: &Needs) -> Result<RestrictionStatus, RulesetError> {
    // A datagram to an abstract name counts as a connection to it.
    let scopes = match needs.sends_to_names {
        true => BitFlags::from(Scope::Signal),
        false => Scope::from_all(WANTED),
    };
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(WANTED))?
        .handle_access(AccessNet::from_all(WANTED))?
        .scope(scopes)?
        .create()?;
    for directory in &needs.directories {
        // A directory that is gone has no file to remove.
        if let Ok(opened) = PathFd::new(directory) {
            rules = rules.add_rule(PathBeneath::new(opened, AccessFs::RemoveFile))?;
        }
    }
    rules.restrict_self()
}

fn describe(status: &RestrictionStatus, restrictions: &mut Restrictions) {
    let stands = match status.landlock {
        LandlockStatus::NotEnabled => "Landlock is switched off in this kernel (lsm=)".to_owned(),
        LandlockStatus::NotImplemented => "this kernel has no Landlock (Linux 5.13)".to_owned(),
        LandlockStatus::Available { effective_abi, .. } => {
            format!("Landlock ABI {}", effective_abi as i32)
        }
    };
    match status.ruleset {
        RulesetStatus::FullyEnforced => restrictions
            .applied
            .push(format!("no files, no TCP but what is open ({stands})")),
        RulesetStatus::PartiallyEnforced => {
            restrictions.missing.push(format!(
                "{stands} is too old for some of the rules (all take ABI {}, Linux 6.12)",
                WANTED as i32
            ));
            restrictions
                .applied
                .push("files and TCP as far as it goes".to_owned());
        }
        RulesetStatus::NotEnforced => restrictions.missing.push(stands),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::io::{ErrorKind, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    /// The rules hold for one thread, so the thread of a test can restrict itself.
    #[test]
    fn a_restricted_thread_has_no_files_and_no_ports_but_open_ones() {
        let directory = std::env::temp_dir().join(format!("echo-landlock-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let ours = directory.join("ours");
        let mut report = File::create(directory.join("report")).unwrap();
        File::create(&ours).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let needs = Needs {
            directories: vec![directory.clone()],
            ..Needs::default()
        };
        let behind = thread::spawn(move || {
            let mut restrictions = Restrictions::default();
            restrict(&needs, &mut restrictions);
            if !restrictions.missing.is_empty() {
                return println!("skipped: {}", restrictions.missing[0]);
            }
            let denied = |result: std::io::Result<()>| {
                assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
            };
            denied(File::open("/proc/self/maps").map(drop));
            denied(File::open(&ours).map(drop));
            denied(File::create(ours.with_file_name("new")).map(drop));
            denied(fs::remove_file("/proc/self/maps"));
            denied(TcpListener::bind("127.0.0.1:0").map(drop));
            denied(TcpStream::connect(listener.local_addr().unwrap()).map(drop));
            report.write_all(b"what was open stays open").unwrap();
            report.set_len(0).unwrap();
            fs::remove_file(&ours).unwrap();
        });
        let result = behind.join();
        fs::remove_dir_all(&directory).unwrap();
        result.unwrap();
    }
}
