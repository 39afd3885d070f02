//! The answer of `doctor`: one set of figures, as JSON and, by `report.txt`, as text.

use super::args::DoctorArgs;
use super::row::{Row, Verdict};
use super::system::Machine;
use crate::cli::templates;
use crate::cli::units::grouped;
use minijinja::value::Serde;
use serde::Serialize;

#[derive(Debug, Serialize)]
pub(super) struct Report<'a> {
    program: &'static str,
    version: &'static str,
    host: Host,
    asked: &'a DoctorArgs,
    pub(super) fits: bool,
    holds_connections: Option<u64>,
    /// The limit that bounds how many connections the machine holds as it is.
    bottleneck: Option<&'static str>,
    limits: &'a [Row],
}

#[derive(Debug, Serialize)]
struct Host {
    name: Option<String>,
    kernel: Option<String>,
}

impl<'a> Report<'a> {
    pub(super) fn new(machine: Machine<'_>, asked: &'a DoctorArgs, limits: &'a [Row]) -> Self {
        let of_kernel = |name| machine.tree.line(&format!("proc/sys/kernel/{name}"));
        let bounds = limits.iter();
        let bounds = bounds.filter_map(|row| Some((row.holds_connections?, row.id)));
        let (holds_connections, bottleneck) = bounds.min_by_key(|(holds, _)| *holds).unzip();
        Self {
            program: "echo-reactor doctor",
            version: env!("CARGO_PKG_VERSION"),
            host: Host {
                name: of_kernel("hostname"),
                kernel: of_kernel("osrelease"),
            },
            asked,
            fits: limits.iter().all(|row| row.verdict != Verdict::Short),
            holds_connections,
            bottleneck,
            limits,
        }
    }

    /// As text: a sentence, a table, and what to do.
    ///
    /// # Errors
    /// The template is wrong, for the reason that is returned.
    pub(super) fn text(&self) -> Result<String, String> {
        let mut environment = templates::environment()?;
        environment.add_filter("amount", amount);
        let text = environment.render_str(include_str!("report.txt"), Serde(self));
        text.map_err(|error| error.to_string())
    }
}

/// A number in its unit, short enough for a column.
fn amount(number: Option<u64>, unit: &str) -> String {
    match (unit, number) {
        (_, None) => "?".to_owned(),
        ("bytes", Some(bytes)) if bytes >= 10 << 30 => format!("{} GiB", bytes >> 30),
        ("bytes", Some(bytes)) => format!("{} MiB", grouped(bytes.div_ceil(1 << 20))),
        ("connections/s", Some(count)) => format!("{}/s", grouped(count)),
        // A limit so high that it is none, such as file-max where systemd has raised it.
        (_, Some(count)) if count > 1 << 40 => "no limit".to_owned(),
        (_, Some(count)) => grouped(count),
    }
}

#[cfg(test)]
mod tests {
    use super::super::args::Role;
    use super::super::limits::tests::{answer, asked, usual};
    use super::*;
    use serde_json::json;

    #[test]
    fn a_limit_that_is_too_low_comes_first_with_its_command() {
        let asked = asked(1_000_000, Role::Server);
        let (made, rows) = (usual(), answer(&usual(), &asked));
        let text = Report::new(made.machine(1_024, 20_000), &asked, &rows)
            .text()
            .unwrap();
        let first = text.lines().next().unwrap();
        assert_eq!(
            first,
            "No: of 1,000,000 connections (server) this machine holds 19,968. Bottleneck: open files of a process, hard \
             limit (20,000)."
        );
        assert!(text.contains("1. open files of a process"), "{text}");
        assert!(text.contains("LimitNOFILE=1000032"), "{text}");
    }

    #[test]
    fn a_machine_that_suffices_names_the_bottleneck() {
        let asked = asked(10_000, Role::Both);
        let (made, rows) = (usual(), answer(&usual(), &asked));
        let text = Report::new(made.machine(1_024, 20_000), &asked, &rows)
            .text()
            .unwrap();
        assert!(
            text.starts_with(
                "Yes: this machine holds 10,000 connections (both), and up to 19,968. Bottleneck: "
            ),
            "{text}"
        );
        assert!(!text.contains("now          "), "{text}");
    }

    #[test]
    fn json_has_the_same_answer() {
        let asked = asked(1_000_000, Role::Server);
        let (made, rows) = (usual(), answer(&usual(), &asked));
        let report = json!(Report::new(made.machine(1_024, 20_000), &asked, &rows));
        assert_eq!(report["fits"], false);
        assert_eq!(report["bottleneck"], "descriptors_hard");
        assert_eq!(report["limits"][0]["needed"], 1_000_032);
        assert_eq!(report["holds_connections"], 19_968);
    }
}
