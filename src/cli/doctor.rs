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

use super::error::{CliError, CliErrorKind, Exit};
use super::output::printable;
use super::stdio;
use report::Report;
use serde_json::json;
use std::path::Path;
use system::Machine;

pub(super) fn run(args: &DoctorArgs) -> Result<Exit, CliError> {
    let internal = |text| CliError::new(CliErrorKind::Internal, text);
    let machine = Machine::new(Path::new("/"));
    let rows = limits::assess(machine, args).map_err(internal)?;
    let report = Report::new(machine, args, &rows);
    let text = match args.json {
        true => format!("{:#}\n", json!(report)),
        false => report.text().map_err(internal)?,
    };
    stdio::print(&printable(&text))?;
    Ok(if report.fits { Exit::Ok } else { Exit::Short })
}
