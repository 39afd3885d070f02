//! Judges an exercise. Started without arguments, the program lets `echo-reactor check` judge its own server by the rules of
//! one stage; the exit code is that of `check`, and 0 means that the exercise is solved.

use std::env;
use std::io;
use std::process::{Command, ExitCode, exit};
use std::thread;
use std::time::Duration;

/// `serve` takes the address to listen on, and returns only with an error.
pub fn main(stage: u8, serve: fn(&str) -> io::Result<()>) -> ExitCode {
    if let Some(address) = env::args().nth(1) {
        if let Err(error) = serve(&address) {
            eprintln!("the server ends: {error}");
        }
        return ExitCode::FAILURE;
    }
    let own = env::current_exe().expect("the program knows its file");
    // `check` starts a server on TCP itself, and is given the address of any other one.
    let number = std::process::id();
    let subject = match stage {
        7 => in_thread("udp", format!("127.0.0.1:{}", 20_000 + number % 10_000), serve),
        8 => in_thread("unix", format!("{}/echo-exercise-{number}.sock", env::temp_dir().display()), serve),
        _ => format!("--command='{}' 127.0.0.1:{{port}}", own.display()),
    };
    let checker = env::var("ECHO_REACTOR").unwrap_or("echo-reactor".to_owned());
    let stage = stage.to_string();
    // A SHOULD counts here, but for the backlog, which std does not set.
    let arguments = ["check", "--quick", "--strict", "--exclude", "burst", "--stage", &stage, &subject];
    let judged = Command::new(&checker).args(arguments).status();
    match judged.map(|status| status.code()) {
        Ok(code) => code.map_or(ExitCode::FAILURE, |code| ExitCode::from(code as u8)),
        Err(error) => {
            eprintln!("{checker} cannot be started ({error}): install it, or name its file by ECHO_REACTOR");
            ExitCode::FAILURE
        }
    }
}

/// Starts the server in a thread, and returns its address as `check` is given it.
fn in_thread(scheme: &str, address: String, serve: fn(&str) -> io::Result<()>) -> String {
    let name = format!("{scheme}://{address}");
    thread::spawn(move || {
        if let Err(error) = serve(&address) {
            eprintln!("the server ends: {error}");
            exit(1);
        }
    });
    thread::sleep(Duration::from_millis(200)); // until it has bound its socket
    name
}
