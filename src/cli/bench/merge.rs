//! Records of runs that were made apart, on several machines, as one run.
//!
//! Each record has the sum of its run, in the messages of a worker. They are added up by the code that adds up the workers of
//! one run, so latencies are merged bucket by bucket. The verdict is that of each record, with the name of its machine. No
//! clock is shared: rates are added up as if all had run at the same time, and a note says how far apart they began.

use super::record::{Record, Sum};
use super::run::Run;
use super::workers::Share;
use crate::load::validity::Validity;
use crate::load::{Mode, Plan, Total};
use crate::procfs::KernelCounters;
use serde_json::{Value, json};
use std::time::Duration;

/// Members of a plan that add up, or may be different on each machine.
const MAY_DIFFER: [&str; 4] = ["rate", "bad_clients", "sources", "seed"];

/// A record, and the sum in it.
struct Part<'a> {
    file: &'a str,
    /// The machine, and the file, since a machine may have made several.
    name: String,
    record: &'a Record,
    sum: Sum,
}

/// Merges records, each with the name of its file.
///
/// # Errors
/// They do not fit together: the value, and what to do about it.
pub(super) fn merge(records: &[(String, Record)]) -> Result<Run, String> {
    let parts: Vec<Part<'_>> = records.iter().map(Part::new).collect::<Result<_, _>>()?;
    let [first, rest @ ..] = &parts[..] else {
        return Err("there is no record to merge".to_owned());
    };
    for (place, part) in parts.iter().enumerate() {
        for earlier in &parts[..place] {
            part.check_fit(earlier)?;
        }
    }
    let mut plan = first.sum.plan.clone();
    rest.iter().for_each(|part| add(&mut plan, &part.sum.plan));
    let mut total = Total::new(parts.len());
    let mut shares = Vec::new();
    for (place, part) in parts.iter().enumerate() {
        part.add_to(&mut total, place)?;
        let mut own = Total::new(1);
        part.add_to(&mut own, 0)?;
        shares.push(Share {
            at: part.name.clone(),
            total: own,
            said: Vec::new(),
            invalid: part.record.not_valid_because.clone(),
        });
    }
    let started = || parts.iter().map(|part| part.record.started_unix);
    let apart = started().max().unwrap_or(0) - started().min().unwrap_or(0);
    Ok(Run {
        plan,
        workers: first.record.plan.workers.saturating_mul(parts.len()),
        total,
        kernel: KernelCounters::default(),
        validity: verdict(&parts, apart),
        memory: Vec::new(),
        shares,
        // A start is known to the second.
        spread: Duration::from_secs(apart.saturating_add(1)),
    })
}

/// All reasons and notes of all records, each with the name of its machine.
fn verdict(parts: &[Part<'_>], apart: u64) -> Validity {
    let named = |texts: fn(&Record) -> &[String]| -> Vec<String> {
        let of_part = |part: &Part<'_>| {
            let name = part.name.clone();
            let texts = texts(part.record).to_vec();
            texts
                .into_iter()
                .map(move |text| format!("'{name}': {text}"))
        };
        parts.iter().flat_map(of_part).collect()
    };
    let mut validity = Validity {
        invalid: named(|record| &record.not_valid_because),
        notes: named(|record| &record.notes),
    };
    if apart > 1 {
        validity.notes.push(format!(
            "by the clocks of their machines the runs began {apart} s apart; their rates are added up as if they had run at \
             the same time"
        ));
    }
    validity
}

/// Adds the load of another machine.
fn add(plan: &mut Plan, other: &Plan) {
    plan.connections = plan.connections.saturating_add(other.connections);
    plan.active = plan.active.saturating_add(other.active);
    let requests = plan.requests.zip(other.requests);
    plan.requests = requests.map(|(one, more)| one.saturating_add(more));
    if let (Mode::Open { rate, .. }, Mode::Open { rate: more, .. }) = (&mut plan.mode, &other.mode)
    {
        *rate += more;
    }
    let (clients, more) = (&mut plan.bad_clients, &other.bad_clients);
    for (count, more) in [
        (&mut clients.slow_reader, more.slow_reader),
        (&mut clients.reset, more.reset),
        (&mut clients.slowloris, more.slowloris),
        (&mut clients.half_close, more.half_close),
    ] {
        *count = count.saturating_add(more);
    }
}

impl<'a> Part<'a> {
    fn new((file, record): &'a (String, Record)) -> Result<Self, String> {
        const VERSION: &str = env!("CARGO_PKG_VERSION");
        if record.version != VERSION {
            return Err(format!(
                "'{file}' is of echo-reactor {}, and this is {VERSION}: make and merge all records with the same version",
                record.version
            ));
        }
        let sum = record.sum.clone().ok_or_else(|| {
            format!(
                "'{file}' has no sum: it is of several steps, or of a search; measure each rate alone ('bench --rate 10k \
                 --format json')"
            )
        })?;
        let sum = serde_json::from_value(sum);
        let sum = sum.map_err(|error| format!("'{file}': its sum is damaged: {error}"))?;
        let name = format!("{} ({file})", record.host.name);
        Ok(Self {
            file,
            name,
            record,
            sum,
        })
    }

    /// Only runs of the same load on the same servers add up.
    fn check_fit(&self, earlier: &Self) -> Result<(), String> {
        let (file, other) = (self.file, earlier.file);
        if self.record.sum == earlier.record.sum {
            return Err(format!(
                "'{file}' is the same record as '{other}', and would count twice: name each once"
            ));
        }
        let [was, is] = [earlier, self].map(|part| {
            let mut plan = json!(part.record.plan);
            plan["duration_seconds"] = json!(part.sum.plan.duration.as_secs_f64());
            plan
        });
        let names = [&was, &is]
            .into_iter()
            .filter_map(Value::as_object)
            .flatten();
        for (name, _) in names.filter(|(name, _)| !MAY_DIFFER.contains(&name.as_str())) {
            let (was, is) = (&was[name], &is[name]);
            if was != is {
                return Err(format!(
                    "{name} is {is} in '{file}' and {was} in '{other}': only runs of the same load on the same servers add \
                     up; measure both with the same {name}"
                ));
            }
        }
        Ok(())
    }

    /// Adds what it has reported to a sum.
    fn add_to(&self, total: &mut Total, worker: usize) -> Result<(), String> {
        for message in self.sum.reported.clone() {
            let taken = total.take(worker, message);
            taken.map_err(|why| format!("'{}': its sum is damaged: {why}", self.file))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::answer::Answer;
    use super::super::args::tests::args;
    use super::super::environment::Host;
    use super::*;
    use crate::load::{Fairness, FaultKind, Final, Interval, Message, Stage};
    use crate::random::Random;

    /// What a worker reports of two seconds, with latencies at random.
    fn reported(seed: u64) -> Vec<Message> {
        let mut random = Random::new(seed);
        let mut messages = vec![Message::Opened(3, seed + 5)];
        for stage in [Stage::WarmUp, Stage::Window, Stage::Window, Stage::Drain] {
            let mut interval = Interval::new(stage, 0);
            (interval.end, interval.echoes) = (1_000_000_000, 500);
            for _ in 0..500 {
                let sample = random.next() >> (20 + random.below(40));
                interval.service_time.saturating_record(sample);
                interval.response_time.saturating_record(2 * sample);
                interval.lag.saturating_record(sample / 100);
                interval.connect.saturating_record(sample / 3);
            }
            messages.push(Message::Interval(Box::new(interval)));
        }
        let mut end = Final {
            window: 2_000_000_000,
            ..Final::default()
        };
        (end.counters.sent, end.counters.echoed) = (1_500, 1_500);
        end.faults.add(FaultKind::Reset, seed, "at the first");
        end.fairness = Fairness {
            connections: 3,
            sum: 1_000.0,
            squares: 400_000.0 + seed as f64,
            fewest: 100 - seed,
            most: 500,
            longest_gap: seed,
        };
        messages.push(Message::Done(Box::new(end)));
        messages
    }

    /// The record of a run of these workers, as a file has it.
    fn record(seeds: &[u64], change: impl FnOnce(&mut Run)) -> Value {
        let mut total = Total::new(seeds.len());
        for (worker, seed) in seeds.iter().enumerate() {
            for message in reported(*seed) {
                total.take(worker, message).unwrap();
            }
        }
        let target = "127.0.0.1:7".parse().unwrap();
        let plan =
            args(&["-r", "100", "-c", "6"]).plan(vec![crate::net::Endpoint::Tcp(target)], &[]);
        let mut run = Run {
            plan: plan.unwrap(),
            workers: 2,
            total,
            kernel: KernelCounters::default(),
            validity: Validity::default(),
            memory: Vec::new(),
            shares: Vec::new(),
            spread: Duration::ZERO,
        };
        change(&mut run);
        of_run(run)
    }

    fn of_run(run: Run) -> Value {
        let answer = Answer {
            runs: vec![run],
            search: None,
        };
        json!(Record::new(&Host::look(1_000), &answer))
    }

    fn read(file: &str, record: &Value) -> (String, Record) {
        let text = record.to_string();
        (file.to_owned(), serde_json::from_str(&text).unwrap())
    }

    #[test]
    fn two_records_are_that_of_all_samples_bucket_for_bucket() {
        let parts = [record(&[1, 2], |_| {}), record(&[3, 4], |_| {})];
        let all = record(&[1, 2, 3, 4], |run| {
            let half = run.plan.clone();
            add(&mut run.plan, &half);
            run.workers = 4;
        });
        let merged = merge(&[read("a", &parts[0]), read("b", &parts[1])]).unwrap();
        assert_eq!(merged.shares.len(), 2);
        assert_eq!(merged.shares[1].total.echoes, 2_000);
        let merged = of_run(merged);
        for name in [
            "plan",
            "echoes_per_second",
            "bytes_per_second",
            "seconds",
            "echoes",
            "connections",
            "response_time_ns",
            "service_time_ns",
            "generator_lag_ns",
            "connect_ns",
            "handshakes_retried",
            "requests",
            "unanswered",
            "resent",
            "faults",
            "fairness",
            "generator",
            "sum",
        ] {
            assert_eq!(merged[name], all[name], "{name}");
        }
        assert_eq!(
            merged["intervals"][0]["p99"],
            all["response_time_ns"]["p99"]
        );
        assert_eq!(merged["plan"]["rate"], 200.0);
    }

    #[test]
    fn the_verdict_is_that_of_each_and_names_the_machine() {
        let valid = record(&[1], |_| {});
        let mut doubtful = record(&[2], |run| {
            run.validity.invalid.push("it was late".to_owned());
            run.validity.notes.push("a note".to_owned());
        });
        doubtful["host"]["name"] = json!("load2");
        doubtful["started_unix"] = json!(doubtful["started_unix"].as_u64().unwrap() + 7);
        let run = merge(&[read("a.json", &valid), read("b.json", &doubtful)]).unwrap();
        assert_eq!(run.validity.invalid, ["'load2 (b.json)': it was late"]);
        assert_eq!(run.validity.notes[0], "'load2 (b.json)': a note");
        assert!(run.validity.notes[1].contains("began 7 s apart"));
        let machines = &of_run(run)["machines"];
        assert_eq!(
            (&machines[0]["valid"], &machines[1]["valid"]),
            (&json!(true), &json!(false))
        );
        assert_eq!(machines[1]["not_valid_because"], json!(["it was late"]));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_the_value() {
        let first = record(&[1], |_| {});
        let refused = |change: fn(&mut Value), words: &[&str]| {
            let mut other = record(&[2], |_| {});
            change(&mut other);
            let text = merge(&[read("a", &first), read("b", &other)]).unwrap_err();
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        };
        refused(
            |one| one["version"] = json!("9.9.9"),
            &["'b' is of echo-reactor 9.9.9", "same version"],
        );
        refused(
            |one| one["plan"]["size"] = json!(65),
            &["size is 65 in 'b' and 64 in 'a'", "measure both"],
        );
        let server = |one: &mut Value| one["plan"]["targets"] = json!(["tcp://127.0.0.1:8"]);
        refused(server, &["targets", "tcp://127.0.0.1:8"]);
        refused(
            |one| one["plan"]["proxy"] = json!("v2"),
            &["proxy is \"v2\""],
        );
        let longer = |one: &mut Value| one["sum"]["plan"]["duration"]["secs"] = json!(11);
        refused(longer, &["duration_seconds is 11.0 in 'b' and 10.0"]);
        refused(
            |one| drop(one.as_object_mut().unwrap().remove("sum")),
            &["'b' has no sum", "each rate alone"],
        );
        refused(
            |one| one["sum"]["reported"][1] = json!("opening"),
            &["'b': its sum is damaged"],
        );
        refused(
            |one| one["sum"]["reported"][1] = json!({"failed": "no"}),
            &["damaged: no"],
        );
        let text = merge(&[read("a", &first), read("b", &first)]).unwrap_err();
        assert!(text.contains("'b' is the same record as 'a'"), "{text}");
    }
}
