//! The program. What it does is in the library, under `cli`, where tests can reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    echo_reactor::cli::main()
}
