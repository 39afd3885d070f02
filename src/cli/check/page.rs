//! The report as a page: what the template `page.html` is filled in with.

use super::formats;
use super::judged::{Judged, names};
use crate::check::{Outcome, STAGES, Verdict};
use crate::cli::bench::environment::Host;
use crate::cli::output::printable;
use crate::cli::page;
use minijinja::value::Serde;
use serde_json::{Value, json};

/// The whole page.
///
/// # Errors
/// The template is wrong, for the reason that is returned.
pub(super) fn page(judged: &[Judged], host: &Host) -> Result<String, String> {
    let view = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "date": page::date(host.started),
        "command": page::command(&host.command),
        "servers": judged.iter().map(server).collect::<Vec<_>>(),
        "stages": stages(judged),
    });
    let environment = page::environment()?;
    let filled = environment.render_named_str("page.html", include_str!("page.html"), Serde(&view));
    filled
        .map(|text| printable(&text))
        .map_err(|error| error.to_string())
}

/// A server: how many rules have which verdict, and what is broken.
fn server(judged: &Judged) -> Value {
    let count = |verdict: &Verdict| {
        let has_it = |outcome: &&Outcome| outcome.verdict == *verdict;
        let count = judged.outcomes.iter().filter(has_it).count();
        json!({ "verdict": verdict.name(), "count": count })
    };
    let broken = judged.outcomes.iter().filter(|one| one.broken.is_some());
    json!({
        "name": judged.name,
        "counts": Verdict::ALL.iter().map(count).collect::<Vec<_>>(),
        "broken": broken.map(formats::rule).collect::<Vec<_>>(),
    })
}

/// The rules of each stage that has some, and what each server has made of them.
fn stages(judged: &[Judged]) -> Vec<Value> {
    let names = names(judged);
    let of = |name: &str| {
        let found = judged.iter().map(move |one| {
            let outcome = one.outcomes.iter().find(|outcome| outcome.id == name);
            outcome.map(formats::rule)
        });
        found.collect::<Vec<_>>()
    };
    let rows: Vec<Vec<Option<Value>>> = names.into_iter().map(of).collect();
    let stage = |(place, subject): (usize, &&str)| {
        let is_here = |row: &&Vec<Option<Value>>| {
            let number = row.iter().flatten().next().map(|rule| &rule["stage"]);
            number.and_then(Value::as_u64) == Some(place as u64 + 1)
        };
        let rows: Vec<_> = rows.iter().filter(is_here).collect();
        let subject = subject.replace('`', "");
        (!rows.is_empty()).then(|| json!({ "number": place + 1, "subject": subject, "rows": rows }))
    };
    STAGES.iter().enumerate().filter_map(stage).collect()
}
