//! What scripts/deploy ships, the manifests for Kubernetes, the units for systemd and the Debian package: they are valid, they
//! agree with the program, and a server that is started by them serves.

mod kubernetes;
mod package;
mod systemd;

use std::fs;
use std::path::{Path, PathBuf};

fn shipped(path: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/deploy");
    folder.join(path)
}

#[track_caller]
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
