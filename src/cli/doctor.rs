//! `echo-reactor doctor`: can this machine hold a number of connections, and which limit is reached first?
//!
//! Many connections fail for reasons that have nothing to do with the server: an old default of the descriptor limit, a
//! range of ports, a table of a firewall. Each shows as a different error at a different moment, most of them at the
//! client. So `doctor` reads all of these limits beforehand, changes nothing, needs no privileges, and says for each
//! limit how many connections it lets through and which command raises it.
//!
//! What may live in this file: the order of the steps, and the exit code. The question is in [`args`], the values of the
//! machine in [`system`], what is asked of them in [`limits`], with the texts beside it in `limits.txt`, the arithmetic in
//! [`row`], and the text and the JSON in [`report`].

mod args;
mod limits;
mod report;
mod row;
mod system;

pub(super) use args::DoctorArgs;

use super::error::{CliError, Exit};
use super::output::printable;
use super::stdio;
use row::Verdict;
use std::path::Path;
use system::Machine;

pub(super) fn run(args: &DoctorArgs) -> Result<Exit, CliError> {
    let machine = Machine::new(Path::new("/"));
    let rows = limits::assess(machine, args);
    let text = match args.json {
        true => format!("{:#}\n", report::json(machine, args, &rows)),
        false => report::text(machine, args, &rows),
    };
    stdio::print(&printable(&text))?;
    let short = rows.iter().any(|row| row.verdict == Verdict::Short);
    Ok(if short { Exit::Short } else { Exit::Ok })
}
