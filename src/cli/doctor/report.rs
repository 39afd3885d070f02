//! The answer of `doctor`, as a table and as JSON.

use super::args::DoctorArgs;
use super::limits::bottleneck;
use super::row::{Row, Verdict};
use super::system::Machine;
use crate::cli::units::{grouped, plural};
use serde_json::{Value, json};
use std::fmt::Write;

/// The answer as text: a sentence, a table, and what to do.
pub(super) fn text(machine: Machine<'_>, asked: &DoctorArgs, rows: &[Row]) -> String {
    let mut out = answer(asked, rows);
    let _ = table(&mut out, rows);
    let _ = fixes(&mut out, rows);
    let [name, kernel] = host(machine);
    let name = name.as_deref().unwrap_or("this machine");
    let kernel = kernel.as_deref().unwrap_or("of some version");
    let _ = writeln!(out, "\n{name}, Linux {kernel}");
    out
}

/// Its name, and the version of its kernel.
fn host(machine: Machine<'_>) -> [Option<String>; 2] {
    ["hostname", "osrelease"].map(|name| machine.tree.line(&format!("proc/sys/kernel/{name}")))
}

fn answer(asked: &DoctorArgs, rows: &[Row]) -> String {
    let (connections, role) = (plural(asked.connections, "connection"), asked.role);
    let what = format!("{connections} ({role})");
    let bound = bottleneck(rows).and_then(|row| Some((row.holds_connections?, row)));
    let short = rows.iter().find(|row| row.verdict == Verdict::Short);
    match (short, bound) {
        (Some(_), Some((holds, first))) if holds < asked.connections => format!(
            "No: of {what} this machine holds {}. Bottleneck: {} ({}).\n\n",
            grouped(holds),
            first.limit,
            short_form(first.unit, first.current),
        ),
        (Some(short), _) => format!("No: {} is too low for {what}.\n\n", short.limit),
        (None, Some((holds, first))) => format!(
            "Yes: this machine holds {what}, and up to {}. Bottleneck: {}.\n\n",
            grouped(holds),
            first.limit,
        ),
        (None, None) => format!(
            "Unknown: no limit of this machine could be read, so {what} may or may not fit.\n\n"
        ),
    }
}

fn table(out: &mut String, rows: &[Row]) -> std::fmt::Result {
    let width = rows.iter().map(|row| row.limit.len()).max().unwrap_or(0);
    let mut line = |[limit, current, needed, holds, verdict]: [&str; 5]| {
        writeln!(
            out,
            "  {limit:<width$}  {current:>12}  {needed:>12}  {holds:>13}  {verdict}"
        )
    };
    line(["limit", "current", "needed", "connections", "verdict"])?;
    for row in rows {
        let of = |number| short_form(row.unit, number);
        let holds = row.holds_connections.map_or("-".to_owned(), grouped);
        let (current, needed) = (of(row.current), of(Some(row.needed)));
        let verdict = row.verdict.to_string();
        line([row.limit, &current, &needed, &holds, &verdict])?;
    }
    Ok(())
}

/// The commands that raise what is too low, in the order in which the limits are reached; then notes on the other limits.
fn fixes(out: &mut String, rows: &[Row]) -> std::fmt::Result {
    let low = rows.iter();
    let low =
        low.filter_map(|row| Some((row, row.fix_now.as_ref()?, row.fix_persistent.as_ref()?)));
    for (place, (row, now, permanently)) in low.enumerate() {
        writeln!(out, "\n{}. {}: {}", place + 1, row.limit, row.note)?;
        writeln!(out, "   now          {now}")?;
        writeln!(out, "   permanently  {permanently}")?;
    }
    let notes = rows
        .iter()
        .filter(|row| row.fix_now.is_none() && !row.note.is_empty());
    for (place, row) in notes.enumerate() {
        if place == 0 {
            writeln!(out, "\nNotes")?;
        }
        writeln!(out, "  {}: {}", row.limit, row.note)?;
    }
    Ok(())
}

/// Formats a number with its unit, short enough for a column.
fn short_form(unit: &str, number: Option<u64>) -> String {
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

pub(super) fn json(machine: Machine<'_>, asked: &DoctorArgs, rows: &[Row]) -> Value {
    let (first, [name, kernel]) = (bottleneck(rows), host(machine));
    json!({
        "program": "echo-reactor doctor",
        "version": env!("CARGO_PKG_VERSION"),
        "host": {"name": name, "kernel": kernel},
        "asked": asked,
        "fits": rows.iter().all(|row| row.verdict != Verdict::Short),
        "holds_connections": first.and_then(|row| row.holds_connections),
        "bottleneck": first.map(|row| row.id),
        "limits": rows,
    })
}

#[cfg(test)]
mod tests {
    use super::super::args::Role;
    use super::super::limits::assess;
    use super::super::limits::tests::{asked, usual};
    use super::*;

    #[test]
    fn a_limit_that_is_too_low_comes_first_with_its_command() {
        let asked = asked(1_000_000, Role::Server);
        let text = text(
            usual().machine(1_024, 20_000),
            &asked,
            &assess(usual().machine(1_024, 20_000), &asked),
        );
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
        let text = text(
            usual().machine(1_024, 20_000),
            &asked,
            &assess(usual().machine(1_024, 20_000), &asked),
        );
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
        let report = json(
            usual().machine(1_024, 20_000),
            &asked,
            &assess(usual().machine(1_024, 20_000), &asked),
        );
        assert_eq!(report["fits"], false);
        assert_eq!(report["bottleneck"], "descriptors_hard");
        assert_eq!(report["limits"][0]["needed"], 1_000_032);
        assert_eq!(report["holds_connections"], 19_968);
    }
}
