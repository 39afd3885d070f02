//! One seed of the simulation, told: what the clients and the network do, beside what the server does.
//!
//! ```sh
//! cargo run --features simulation --example replay -- 42
//! cargo run --features simulation --example replay -- 42 --until budget-spent
//! cargo run --features simulation --example replay -- 42 --html seed.html
//! cargo run --features simulation --example replay -- 42 --mistake read-once
//! ```
//!
//! The output follows from the seed alone, to the byte. `--until KIND` ends it with the first event of that kind, and `--html
//! FILE` writes a page of all of it, which steps forwards and back. `--mistake NAME` tells the seed of a server with that
//! mistake of tests/mutants: `scripts/mutants --replay` makes it in a copy of the sources, and runs this example there. The exit
//! code is 1 if an invariant does not hold.

use echo_reactor::simulation::{Story, tell};
use echo_reactor::trace::Kind;
use std::error::Error;
use std::fs;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;
use std::process::{Command, ExitCode};

const USAGE: &str = "usage: replay SEED [--until KIND] [--html FILE] [--mistake NAME]";

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut words = arguments.iter().cloned();
    let seed: u64 = words.next().ok_or(USAGE)?.parse().map_err(|_| USAGE)?;
    let (mut until, mut html, mut mistake) = (None, None, None);
    while let Some(flag) = words.next() {
        let value = words.next().ok_or(USAGE)?;
        match flag.as_str() {
            "--until" => until = Some(kind(&value)?),
            "--html" => html = Some(value),
            "--mistake" => mistake = Some(value),
            _ => return Err(USAGE.into()),
        }
    }
    if let Some(name) = mistake {
        return with_mistake(&name, &arguments);
    }
    let story = tell(seed);
    let failure = story.failure.clone();
    let story = match until {
        Some(kind) => story.until(kind),
        None => story,
    };
    match html {
        Some(path) => fs::write(path, story.page(&format!("seed {seed}")))?,
        None => print(&story)?,
    }
    Ok(match failure {
        None => ExitCode::SUCCESS,
        Some(failure) => {
            eprintln!("seed {seed} fails: {failure}");
            ExitCode::FAILURE
        }
    })
}

/// Runs the example in a copy of the sources with a mistake.
fn with_mistake(name: &str, arguments: &[String]) -> Result<ExitCode, Box<dyn Error>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/mutants");
    let place = arguments.iter().position(|word| word == "--mistake");
    let (before, rest) = arguments.split_at(place.unwrap_or(0));
    let status = Command::new(&script)
        .args(["--replay", name, "--"])
        .args(before)
        .args(rest.iter().skip(2))
        .status()
        .map_err(|error| format!("{}: {error}; it needs Python 3", script.display()))?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

fn kind(name: &str) -> Result<Kind, String> {
    let found = Kind::ALL.iter().copied().find(|kind| kind.name() == name);
    let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.name()).collect();
    found.ok_or_else(|| {
        format!(
            "there is no kind '{name}'; write one of {}",
            names.join(", ")
        )
    })
}

/// Prints the story, until its reader has enough.
fn print(story: &Story) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut write = || {
        story.lines().try_for_each(|line| writeln!(out, "{line}"))?;
        out.flush()
    };
    match write() {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
