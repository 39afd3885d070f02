//! The Debian package: what `[package.metadata.deb]` of Cargo.toml names is there, and of this version and license.
//! `scripts/deb --check` makes the package, and has lintian read it.

use super::read;
use std::fs;
use std::path::Path;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The table of Cargo.toml; its arrays are indented, so that the next table is the next bracket at the start of a line.
fn metadata() -> String {
    let cargo = read(&root().join("Cargo.toml"));
    let (_, table) = cargo.split_once("[package.metadata.deb]\n").unwrap();
    table.split("\n[").next().unwrap().to_owned()
}

/// The value of a key, or the first one of its array.
fn value<'a>(table: &'a str, key: &str) -> Option<&'a str> {
    let line = table.lines().find(|line| line.starts_with(key))?;
    line.split('"').nth(1)
}

#[test]
fn what_the_package_is_made_of_is_there() {
    let (table, script) = (metadata(), read(&root().join("scripts/deb")));
    let assets = table.lines().filter(|line| line.starts_with("    [\""));
    let mut count = 0;
    for asset in assets {
        let parts: Vec<&str> = asset.split('"').collect();
        let (source, target, mode) = (parts[1], parts[3], parts[5]);
        let name = source.rsplit('/').next().unwrap();
        match source.strip_suffix("/*") {
            _ if source == "target/release/echo-reactor" => assert_eq!(mode, "755"),
            Some("target/deb/man") => assert!(script.contains("man1/echo-reactor-serve.1.gz")),
            Some(folder) => assert!(fs::read_dir(root().join(folder)).unwrap().count() > 0),
            None if source.starts_with("target/deb/completions/") => {
                assert!(script.contains(&format!("\"{name}\"")), "{name} is made");
            }
            None => assert!(root().join(source).is_file(), "{source}"),
        }
        assert!(target.starts_with("usr/"), "{target}");
        assert!(
            script.contains(&format!("./{}", target.trim_end_matches('/'))),
            "{target} is looked for"
        );
        count += 1;
    }
    assert_eq!(count, 6);
    assert_eq!(
        value(&table, "maintainer-scripts"),
        None,
        "nothing runs as root when it is installed"
    );
}

#[test]
fn version_and_licenses_are_those_of_the_crate() {
    let table = metadata();
    let changelog = read(&root().join(value(&table, "changelog").unwrap()));
    let first = format!(
        "echo-reactor ({}-1) unstable; urgency=medium",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(changelog.lines().next(), Some(first.as_str()));

    let copyright = read(&root().join(value(&table, "license-file").unwrap()));
    assert_eq!(env!("CARGO_PKG_LICENSE"), "MIT OR Apache-2.0");
    assert!(copyright.contains("\nLicense: Expat or Apache-2.0\n"));
    let mit = read(&root().join("LICENSE-MIT"));
    let holder = mit
        .lines()
        .find_map(|line| line.strip_prefix("Copyright (c) "))
        .unwrap();
    assert!(copyright.contains(&format!("\nCopyright: {holder}\n")));
    let (_, terms) = mit.split_once("\n\nPermission").unwrap();
    for line in terms.lines().filter(|line| !line.is_empty()).skip(1) {
        assert!(copyright.contains(line), "{line}");
    }
}
