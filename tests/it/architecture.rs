//! The shape of the sources: which module may import which, what no module may use, and how long a function and a file may be.
//!
//! What may live in this file: rules of the design that a reader of the sources can check, and that would not last
//! without a test. The sources are read as text, formatted by rustfmt as they are: no parser, and no rule that would
//! need one.

mod cycles;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which modules a module may import. A module that is missing here imports nothing and is imported by none.
const MAY_IMPORT: [(&str, &[&str]); 17] = [
    ("procfs", &[]),
    ("random", &[]),
    ("settings", &[]),
    ("limits", &["procfs"]),
    ("stats", &[]),
    ("net", &["limits", "procfs", "random"]),
    ("reactor", &[]),
    ("echo", &["reactor", "net", "stats", "limits"]),
    ("blocking", &["net", "stats", "limits", "procfs"]),
    ("load", &["reactor", "net", "limits", "procfs", "random"]),
    // Neither of the two knows echo: both work on any echo server.
    // It wraps the sockets of net, and records what echo and reactor tell.
    ("trace", &["echo", "reactor", "net", "stats"]),
    ("faults", &["echo", "reactor", "net", "random"]),
    (
        "check",
        &["load", "reactor", "net", "procfs", "random", "settings"],
    ),
    (
        "simulation",
        &[
            "echo", "reactor", "net", "stats", "limits", "random", "trace",
        ],
    ),
    (
        "cli",
        &[
            "echo", "blocking", "load", "check", "reactor", "net", "limits", "stats", "procfs",
            "random", "settings", "trace", "faults",
        ],
    ),
    ("fuzz_targets", &["simulation", "net", "reactor", "cli"]),
    ("main", &["cli"]),
];

/// Crates that only some modules may name.
const MAY_NAME: [(&str, &[&str]); 2] = [("mio", &["net", "reactor"]), ("slab", &["reactor"])];

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 600;

/// The path of one echo, comments included and unit tests left out.
const PATH_FILES_MAX: usize = 5;
const PATH_LINES_MAX: usize = 700;

// --- Reading the sources -----------------------------------------------------------------------------------------------

struct Source {
    path: PathBuf,
    /// The first part of its path: the top-level module that it belongs to.
    module: String,
    /// Its lines up to the tests, numbered from 1; comments are empty.
    code: Vec<(usize, String)>,
}

impl Source {
    fn read(root: &Path, path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap();
        let inside = path.strip_prefix(root).unwrap();
        let module = inside.components().next().unwrap().as_os_str();
        let module = module.to_str().unwrap().trim_end_matches(".rs").to_owned();
        let lines: Vec<&str> = text.lines().collect();
        let end = tests_begin(&lines);
        let code = lines[..end].iter().enumerate();
        let code = code.map(|(index, line)| (index + 1, without_comment(line).to_owned()));
        Self {
            module,
            code: code.collect(),
            path,
        }
    }

    fn at(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }
}

/// Unit tests come last in a file, in a module of their own.
fn tests_begin(lines: &[&str]) -> usize {
    let is_end = |pair: &[&str]| {
        let for_tests = pair[0].starts_with("#[cfg(") && pair[0].contains("test");
        for_tests && pair[1].ends_with("mod tests {")
    };
    lines.windows(2).position(is_end).unwrap_or(lines.len())
}

fn without_comment(line: &str) -> &str {
    if line.trim_start().starts_with("//") {
        return "";
    }
    line.split_once(" // ").map_or(line, |(code, _)| code)
}

/// The Rust files below a folder.
fn rust_files(folder: PathBuf) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut folders = vec![folder];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                paths.push(path);
            }
        }
    }
    paths
}

/// All sources, tests among them.
fn all_sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let paths = rust_files(root.clone());
    let sources: Vec<Source> = paths
        .into_iter()
        .map(|path| Source::read(&root, path))
        .collect();
    assert!(sources.len() > 20, "too few sources were found");
    sources
}

/// The sources that the rules of imports hold for: no tests.
fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = all_sources();
    sources.retain(|source| {
        let inside = source.path.strip_prefix(&root).unwrap();
        let is_for_tests = inside
            .iter()
            .any(|part| part == "tests" || part == "tests.rs");
        !is_for_tests
    });
    sources
}

fn is_of_a_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The text after each place where `word` stands in the line as a whole word.
fn behind<'a>(line: &'a str, word: &'a str) -> impl Iterator<Item = &'a str> {
    line.match_indices(word).filter_map(move |(place, _)| {
        let rest = &line[place + word.len()..];
        let goes_on = word.ends_with(is_of_a_name) && rest.starts_with(is_of_a_name);
        let is_part = line[..place].ends_with(is_of_a_name) || goes_on;
        (!is_part).then_some(rest)
    })
}

/// The first name after `crate::`; in a group, the first name of each member.
fn first_names(rest: &str) -> Vec<String> {
    let name = |text: &str| {
        text.trim()
            .chars()
            .take_while(|&c| is_of_a_name(c))
            .collect()
    };
    let Some(group) = rest.strip_prefix('{') else {
        return vec![name(rest)];
    };
    let mut depth = 0;
    let parts = group.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        depth == 0 && c == ','
    });
    parts
        .map(name)
        .filter(|name: &String| !name.is_empty())
        .collect()
}

/// The modules of this crate that a source imports, each with its line.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let own = if source.module == "main" {
        "echo_reactor::"
    } else {
        "crate::"
    };
    let mut imports = Vec::new();
    for (place, (number, line)) in source.code.iter().enumerate() {
        for rest in behind(line, own) {
            // A group may extend over several lines.
            let mut text = rest.to_owned();
            let more = source.code[place + 1..].iter();
            for (_, line) in more.take_while(|_| rest.starts_with('{') && !rest.contains('}')) {
                text.push_str(line.trim());
                if line.starts_with('}') {
                    break;
                }
            }
            for name in first_names(&text) {
                // Two names of the crate page belong to modules.
                let module = match name.as_str() {
                    "Limits" => "limits".to_owned(),
                    "Stats" => "stats".to_owned(),
                    _ => name,
                };
                if module != source.module {
                    imports.push((*number, module));
                }
            }
        }
    }
    imports
}

#[test]
fn imports_are_read_in_groups_and_paths() {
    let source = |lines: &[&str]| Source {
        path: PathBuf::from("x.rs"),
        module: "x".to_owned(),
        code: lines
            .iter()
            .map(|line| (1, without_comment(line).to_owned()))
            .collect(),
    };
    let read = |lines: &[&str]| -> Vec<String> {
        imports(&source(lines))
            .into_iter()
            .map(|(_, module)| module)
            .collect()
    };
    assert_eq!(read(&["use crate::net::{self, Stream};"]), ["net"]);
    assert_eq!(
        read(&["use crate::{Limits, net::{a, b}, echo};"]),
        ["limits", "net", "echo"]
    );
    assert_eq!(
        read(&["use crate::{", "    Stats,", "    reactor::Key,", "};"]),
        ["stats", "reactor"]
    );
    assert_eq!(
        read(&["    let x = crate::cli::main(); // crate::net"]),
        ["cli"]
    );
    assert_eq!(
        read(&["// use crate::net;", "use mycrate::net; use crate::x::y;"]),
        [""; 0]
    );
}

// --- The rules ---------------------------------------------------------------------------------------------------------

#[test]
fn a_module_imports_only_what_the_design_allows() {
    let mut wrong = Vec::new();
    for source in sources() {
        if source.module == "lib" {
            continue; // it names all modules, as its purpose is
        }
        let allowed = MAY_IMPORT
            .iter()
            .find(|(module, _)| *module == source.module);
        let allowed = allowed.map_or(&[][..], |(_, modules)| modules);
        for (line, module) in imports(&source) {
            if !allowed.contains(&module.as_str()) {
                wrong.push(format!(
                    "{}: {} imports {module}",
                    source.at(line),
                    source.module
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn mio_is_named_in_net_and_reactor_alone_and_slab_in_reactor() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, modules) in MAY_NAME {
            if modules.contains(&source.module.as_str()) {
                continue;
            }
            for (number, line) in &source.code {
                if behind(line, &format!("{name}::")).next().is_some() {
                    wrong.push(format!("{}: {}", source.at(*number), line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// /proc and /sys are read by `procfs`, and random numbers are made by `random`.
#[test]
fn each_piece_of_knowledge_has_one_home() {
    const HOMES: [(&str, &str); 4] = [
        ("\"/proc/", "procfs"),
        ("\"/sys/", "procfs"),
        ("build_hasher()", "random"),
        ("0x9e37_79b9_7f4a_7c15", "random"),
    ];
    let mut wrong = Vec::new();
    for source in sources() {
        for (number, line) in &source.code {
            for (text, home) in HOMES {
                if line.contains(text) && source.module != home {
                    wrong.push(format!("{}: {}", source.at(*number), line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_unsafe_and_the_compiler_forbids_it() {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest = fs::read_to_string(manifest).unwrap();
    assert!(manifest.contains("unsafe_code = \"forbid\""));
    let sources = sources();
    let unsafe_ones = sources.iter().flat_map(|source| {
        let lines = source.code.iter();
        lines.filter(|(_, line)| behind(line, "unsafe").next().is_some())
    });
    assert_eq!(unsafe_ones.count(), 0);
}

/// These macros panic when the stream is closed. What the simulation prints is captured by the tests that run it.
#[test]
fn no_source_prints_by_a_macro() {
    let mut wrong = Vec::new();
    for source in sources() {
        if source.module == "simulation" {
            continue;
        }
        for (number, line) in &source.code {
            for macro_name in ["println!", "eprintln!", "print!", "eprint!", "dbg!"] {
                if behind(line, macro_name).next().is_some() {
                    wrong.push(source.at(*number));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The first line of each function and its number of lines. rustfmt puts the closing brace at the indent of the first
/// line.
fn functions(source: &Source) -> Vec<(usize, usize)> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    let begins = |line: &str| {
        let start = line.trim_start();
        let start = start.strip_prefix("pub").map_or(start, |rest| {
            let rest = rest.trim_start();
            rest.split_once(") ")
                .filter(|_| rest.starts_with('('))
                .map_or(rest, |(_, rest)| rest)
        });
        start.trim_start_matches("const ").starts_with("fn ")
    };
    let mut functions = Vec::new();
    for (place, (number, line)) in source.code.iter().enumerate() {
        if !begins(line) {
            continue;
        }
        let rest = source.code[place..].iter().map(|(_, line)| line);
        let end = rest.take_while(|later| {
            let closes = indent(later) == indent(line) && later.trim_start().starts_with('}');
            let is_declared = indent(later) <= indent(line) && later.ends_with(';');
            !(closes || is_declared)
        });
        functions.push((*number, end.count() + 1));
    }
    functions
}

#[test]
fn a_function_fits_a_screen() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for source in all_sources() {
        for (line, lines) in functions(&source) {
            count += 1;
            if lines > FUNCTION_LINES_MAX {
                wrong.push(format!("{}: {lines} lines", source.at(line)));
            }
        }
    }
    assert!(count > 200, "too few functions were found: {count}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Tests are code, too.
#[test]
fn a_file_has_one_subject() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["src", "tests/it", "benches"].map(|folder| rust_files(root.join(folder)));
    for path in folders.concat() {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(
            lines <= FILE_LINES_MAX,
            "{}: {lines} lines; divide it by its subjects",
            path.display()
        );
    }
}

#[test]
fn every_file_begins_with_a_module_page() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = fs::read_dir(root.join("tests/it")).unwrap();
    let tests = tests
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    for path in tests.chain(sources().into_iter().map(|source| source.path)) {
        let text = fs::read_to_string(&path).unwrap();
        assert!(
            text.starts_with("//! "),
            "{} does not begin with a module page",
            path.display()
        );
    }
}

/// The crate page lists the files of the path in reading order, each with the functions that are on it.
#[test]
fn the_path_of_one_echo_is_short() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("src/lib.rs")).unwrap();
    let list = page.split("//! **The path of one echo** is").nth(1);
    let list = list.expect("the crate page lists the path").lines();
    let steps: Vec<&str> = list
        .filter_map(|line| line.strip_prefix("//! "))
        .take_while(|line| !line.starts_with('#'))
        .filter(|line| line.starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    assert!(steps.len() > 2, "{steps:?}");
    let (mut files, mut lines) = (BTreeSet::new(), 0);
    for (index, step) in steps.iter().enumerate() {
        let number = format!("{}. `", index + 1);
        let step = step.strip_prefix(&number).expect("the next number");
        let (file, prose) = step.split_once('`').unwrap();
        let source = Source::read(&root.join("src"), root.join(file));
        for name in prose.split('`').skip(1).step_by(2) {
            let name = name.rsplit("::").next().unwrap();
            // The name of a type stands alone.
            let is_function = name.starts_with(|c: char| c.is_ascii_lowercase());
            let form = if is_function { "fn " } else { "enum " }.to_owned() + name;
            let mut code = source.code.iter();
            let is_there = code.any(|(_, line)| behind(line, &form).next().is_some());
            assert!(is_there, "{file} has no {name}");
        }
        if files.insert(file) {
            lines += source.code.len();
        }
    }
    println!("the path of one echo: {} files, {lines} lines", files.len());
    assert!(files.len() <= PATH_FILES_MAX, "{files:?}");
    assert!(lines <= PATH_LINES_MAX, "the path has {lines} lines");
}

#[test]
fn the_glossary_of_the_crate_page_is_short() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("src/lib.rs")).unwrap();
    let glossary = page.split("//! # Glossary\n").nth(1).unwrap();
    let glossary = glossary.split("//! # ").next().unwrap().trim_end();
    let lines = glossary.lines().filter(|line| line.starts_with("//! - "));
    let count = lines.count();
    assert!((15..=25).contains(&count), "{count} lines");
}

// --- Dependencies ------------------------------------------------------------------------------------------------------

/// The crates that a build needs besides this one; none if cargo cannot be started.
fn crates(features: &[&str]) -> Option<BTreeSet<String>> {
    let result = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--edges",
            "normal",
            "--prefix",
            "none",
        ])
        .args(features)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    let Ok(output) = result else {
        crate::support::skip("cargo cannot be started here");
        return None;
    };
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{err}");
    let tree = String::from_utf8(output.stdout).unwrap();
    let names = tree.lines().filter_map(|line| line.split(' ').next());
    let names = names.filter(|name| !name.is_empty() && *name != "echo-reactor");
    Some(names.map(str::to_owned).collect())
}

#[test]
fn the_library_needs_five_crates() {
    let Some(needed) = crates(&["--no-default-features"]) else {
        return;
    };
    let expected = ["libc", "log", "mio", "slab", "socket2"].map(str::to_owned);
    assert_eq!(needed, BTreeSet::from(expected));
}

/// The library alone, the program with `serve` and `send` alone, and the program.
#[test]
fn the_guide_states_how_many_crates_are_needed() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/guide/operations.md");
    let page = fs::read_to_string(page).unwrap();
    for features in [
        &["--no-default-features"][..],
        &["--no-default-features", "--features", "cli"],
        &[],
    ] {
        let Some(needed) = crates(features) else {
            return;
        };
        let stated = format!(" {} crates", needed.len());
        assert!(
            page.contains(&stated),
            "the guide does not state{stated}: {features:?}"
        );
    }
}

// --- The top level -----------------------------------------------------------------------------------------------------

/// What git tracks, or would: nothing of a build, and no file that a program made and that is large.
#[test]
fn the_top_level_and_the_benchmarks_hold_no_more_than_the_design_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output();
    let Some(listed) = listed.ok().filter(|output| output.status.success()) else {
        return crate::support::skip("there is no git here, or no repository");
    };
    let listed = String::from_utf8(listed.stdout).unwrap();
    let top: BTreeSet<&str> = listed
        .lines()
        .map(|path| path.split('/').next().unwrap())
        .collect();
    let top: Vec<&str> = top
        .into_iter()
        .filter(|name| !name.starts_with('.'))
        .collect();
    let allowed = [
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "benches",
        "scripts",
        "src",
        "tests",
    ];
    assert_eq!(top, allowed);
    let sizes = listed.lines().filter(|path| path.starts_with("benches/"));
    let sizes = sizes.filter_map(|path| fs::metadata(root.join(path)).ok());
    let bytes: u64 = sizes.map(|file| file.len()).sum();
    assert!(bytes <= 100_000, "benches holds {bytes} bytes");
}
