//! Plans and messages as lines of JSON, for workers in processes of their own. Histograms go in their own compressed
//! form (HdrHistogram V2), in hexadecimal digits.

use crate::load::{
    Arrivals, BadClients, Counters, Fairness, FaultKind, Faults, Final, Interval, Latencies,
    Message, Mode, Pauses, Plan, Resent, ServerFigures, Stage, Unanswered,
};
use crate::net::connect::Trigger;
use crate::net::{Address, Endpoint};
use crate::procfs::{ServerSample, Usage};
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2Serializer};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// A plan as JSON. `scripts/measure.py` writes one like it, for a worker that it runs alone.
pub(super) fn plan_to_json(plan: &Plan) -> Value {
    let targets: Vec<String> = plan.targets.iter().map(ToString::to_string).collect();
    let mode = match plan.mode {
        Mode::Closed => json!({"closed": true}),
        Mode::Open { rate, arrivals } => {
            json!({"rate": rate, "poisson": arrivals == Arrivals::Poisson})
        }
        Mode::Churn { reset } => json!({"churn": reset}),
    };
    json!({
        "targets": targets,
        "sources": plan.sources.map(|sources| sources.to_string()),
        "worker": plan.worker,
        "first_number": plan.first_number,
        "connections": plan.connections,
        "active": plan.active,
        "active_by_worker": plan.active_by_worker,
        "bad_clients": plan.bad_clients.counts().map(|(_, count)| count),
        "size": plan.size,
        "depth": plan.depth,
        "mode": mode,
        "level_triggered": plan.trigger == Trigger::Level,
        "warm_up": plan.warm_up.as_nanos() as u64,
        "duration": plan.duration.as_nanos() as u64,
        "requests": plan.requests,
        "ramp_up": plan.ramp_up.as_nanos() as u64,
        "connect_concurrency": plan.connect_concurrency,
        "timeout": plan.timeout.as_nanos() as u64,
        "interval": plan.interval.as_nanos() as u64,
        "seed": plan.seed,
        "servers": plan.servers,
        "reset_at_end": plan.reset_at_end,
    })
}

pub(super) fn plan_from(line: &str) -> Option<Plan> {
    let value: Value = serde_json::from_str(line).ok()?;
    let number = |name: &str| value[name].as_u64();
    let size = |name: &str| number(name).and_then(|number| usize::try_from(number).ok());
    let time = |name: &str| number(name).map(Duration::from_nanos);
    let mode = &value["mode"];
    let mode = match (mode["rate"].as_f64(), mode["churn"].as_bool()) {
        (Some(rate), _) => Mode::Open {
            rate,
            arrivals: match mode["poisson"].as_bool()? {
                true => Arrivals::Poisson,
                false => Arrivals::Constant,
            },
        },
        (None, Some(reset)) => Mode::Churn { reset },
        (None, None) => Mode::Closed,
    };
    let target = |text: &Value| -> Option<Endpoint> {
        let address: Address = text.as_str()?.parse().ok()?;
        address.resolve().ok()?.into_iter().next()
    };
    Some(Plan {
        targets: value["targets"]
            .as_array()?
            .iter()
            .map(target)
            .collect::<Option<_>>()?,
        sources: value["sources"].as_str().and_then(|text| text.parse().ok()),
        worker: size("worker")?,
        first_number: number("first_number")? as u32,
        connections: size("connections")?,
        active: size("active")?,
        active_by_worker: numbers(&value["active_by_worker"])?
            .map(|share| share as usize)
            .collect(),
        bad_clients: bad_clients_from(&value["bad_clients"])?,
        size: size("size")?,
        depth: size("depth")?,
        mode,
        trigger: match value["level_triggered"].as_bool()? {
            true => Trigger::Level,
            false => Trigger::Edge,
        },
        warm_up: time("warm_up")?,
        duration: time("duration")?,
        requests: number("requests"),
        ramp_up: time("ramp_up")?,
        connect_concurrency: size("connect_concurrency")?,
        timeout: time("timeout")?,
        interval: time("interval")?,
        seed: number("seed")?,
        servers: numbers(&value["servers"])?.map(|pid| pid as u32).collect(),
        reset_at_end: value["reset_at_end"].as_bool()?,
    })
}

fn numbers(value: &Value) -> Option<impl Iterator<Item = u64> + '_> {
    Some(value.as_array()?.iter().filter_map(Value::as_u64))
}

fn bad_clients_from(value: &Value) -> Option<BadClients> {
    let count = |place: usize| Some(value[place].as_u64()? as usize);
    Some(BadClients {
        slow_reader: count(0)?,
        reset: count(1)?,
        slowloris: count(2)?,
        half_close: count(3)?,
    })
}

/// Appends a message, as a line.
pub(super) fn write_message(message: &Message, line: &mut Vec<u8>) {
    // Writing to memory cannot fail.
    let _ = serde_json::to_writer(&mut *line, &message_to_json(message));
    line.push(b'\n');
}

pub(crate) fn message_to_json(message: &Message) -> Value {
    match message {
        Message::Opening(open) => json!({"opening": open}),
        Message::Opened(open, took) => json!({"opened": open, "took": took}),
        Message::Interval(interval) => json!({"interval": {
            "stage": interval.stage.name(),
            "start": interval.start,
            "end": interval.end,
            "echoes": interval.echoes,
            "open": interval.open,
            "faults": interval.faults,
            "service_time": latencies_to_json(&interval.service_time),
            "response_time": latencies_to_json(&interval.response_time),
            "lag": latencies_to_json(&interval.lag),
            "connect": latencies_to_json(&interval.connect),
        }}),
        Message::Done(end) => json!({"done": final_to_json(end)}),
        Message::Failed(why) => json!({"failed": why}),
    }
}

fn final_to_json(end: &Final) -> Value {
    let counters: Map<String, Value> = end
        .counters
        .counters()
        .into_iter()
        .map(|(name, count)| (name.to_owned(), json!(count)))
        .collect();
    let faults: Vec<Value> = end
        .faults
        .iter()
        .map(|(kind, count, first)| json!([kind.name(), count, first]))
        .collect();
    let fairness = &end.fairness;
    let server = end.server.map(|server| {
        let moments = [
            server.before,
            server.opened,
            server.begin,
            server.end,
            server.drained,
        ];
        moments.map(|sample| {
            json!([
                sample.usage.cpu,
                sample.usage.waited,
                sample.rss,
                sample.switches_voluntary,
                sample.switches_forced,
                sample.threads
            ])
        })
    });
    json!({
        "counters": counters,
        "faults": faults,
        "fairness": [fairness.connections, fairness.sum, fairness.squares, fairness.fewest, fairness.most, fairness.longest_gap],
        "unanswered": {
            "requests": end.unanswered.requests,
            "awaited": end.unanswered.awaited,
            "connections": end.unanswered.connections,
            "half": end.unanswered.half,
            "longest": end.unanswered.longest,
            "numbers": end.unanswered.numbers,
        },
        "pauses": pauses_to_json(end.pauses),
        "opening_pauses": pauses_to_json(end.opening_pauses),
        "resent": [end.resent.segments, end.resent.connections],
        "usage": [end.usage.cpu, end.usage.waited],
        "window": end.window,
        "server": server,
        "interrupted": end.interrupted,
    })
}

pub(crate) fn message_from(line: &str) -> Option<Message> {
    let value: Value = serde_json::from_str(line).ok()?;
    if let Some(open) = value["opened"].as_u64() {
        return Some(Message::Opened(open, value["took"].as_u64()?));
    }
    if let Some(open) = value["opening"].as_u64() {
        return Some(Message::Opening(open));
    }
    if let Some(why) = value["failed"].as_str() {
        return Some(Message::Failed(why.to_owned()));
    }
    if value["done"].is_object() {
        return Some(Message::Done(Box::new(final_from(&value["done"])?)));
    }
    let interval = &value["interval"];
    let histogram = |name: &str| latencies_from(&interval[name]);
    Some(Message::Interval(Box::new(Interval {
        stage: Stage::from_name(interval["stage"].as_str()?)?,
        start: interval["start"].as_u64()?,
        end: interval["end"].as_u64()?,
        echoes: interval["echoes"].as_u64()?,
        open: interval["open"].as_u64()?,
        faults: interval["faults"].as_u64()?,
        service_time: histogram("service_time")?,
        response_time: histogram("response_time")?,
        lag: histogram("lag")?,
        connect: histogram("connect")?,
    })))
}

fn final_from(value: &Value) -> Option<Final> {
    let mut faults = Faults::default();
    for fault in value["faults"].as_array()? {
        let name = fault[0].as_str()?;
        let kind = FaultKind::ALL
            .into_iter()
            .find(|kind| kind.name() == name)?;
        faults.add(kind, fault[1].as_u64()?, fault[2].as_str()?);
    }
    let fairness = &value["fairness"];
    let sample = |value: &Value| ServerSample {
        usage: Usage {
            cpu: value[0].as_u64().unwrap_or(0),
            waited: value[1].as_u64().unwrap_or(0),
        },
        rss: value[2].as_u64().unwrap_or(0),
        switches_voluntary: value[3].as_u64().unwrap_or(0),
        switches_forced: value[4].as_u64().unwrap_or(0),
        threads: value[5].as_u64().unwrap_or(0),
    };
    let server = match value["server"].as_array().map(Vec::as_slice) {
        None => None,
        Some([before, opened, begin, end, drained]) => Some(ServerFigures {
            before: sample(before),
            opened: sample(opened),
            begin: sample(begin),
            end: sample(end),
            drained: sample(drained),
        }),
        Some(_) => return None,
    };
    Some(Final {
        counters: Counters::from_counters(|name| value["counters"][name].as_u64().unwrap_or(0)),
        faults,
        fairness: Fairness {
            connections: fairness[0].as_u64()?,
            sum: fairness[1].as_f64()?,
            squares: fairness[2].as_f64()?,
            fewest: fairness[3].as_u64()?,
            most: fairness[4].as_u64()?,
            longest_gap: fairness[5].as_u64()?,
        },
        unanswered: unanswered_from(&value["unanswered"])?,
        pauses: pauses_from(&value["pauses"])?,
        opening_pauses: pauses_from(&value["opening_pauses"])?,
        resent: Resent {
            segments: value["resent"][0].as_u64()?,
            connections: value["resent"][1].as_u64()?,
        },
        usage: Usage {
            cpu: value["usage"][0].as_u64()?,
            waited: value["usage"][1].as_u64()?,
        },
        window: value["window"].as_u64()?,
        server,
        interrupted: value["interrupted"].as_bool()?,
    })
}

fn pauses_to_json(pauses: Pauses) -> Value {
    json!([pauses.count, pauses.total, pauses.longest, pauses.at])
}

fn pauses_from(value: &Value) -> Option<Pauses> {
    Some(Pauses {
        count: value[0].as_u64()?,
        total: value[1].as_u64()?,
        longest: value[2].as_u64()?,
        at: value[3].as_u64()?,
    })
}

/// The histogram in digits, and what it does not hold: the exact maximum, and the count beyond its range.
fn latencies_to_json(latencies: &Latencies) -> Value {
    let digits = to_hex(latencies.histogram());
    json!([digits, latencies.max(), latencies.beyond_range()])
}

fn latencies_from(value: &Value) -> Option<Latencies> {
    let histogram = from_hex(value[0].as_str()?)?;
    Latencies::from_parts(&histogram, value[1].as_u64()?, value[2].as_u64()?)
}

fn unanswered_from(value: &Value) -> Option<Unanswered> {
    let count = |name: &str| value[name].as_u64();
    Some(Unanswered {
        requests: count("requests")?,
        awaited: count("awaited")?,
        connections: count("connections")?,
        half: count("half")?,
        longest: count("longest")?,
        numbers: numbers(&value["numbers"])?
            .map(|number| number as u32)
            .collect(),
    })
}

fn to_hex(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    // Writing to memory cannot fail.
    let _ = V2Serializer::new().serialize(histogram, &mut bytes);
    let digit = |half: u8| char::from(b"0123456789abcdef"[usize::from(half)]);
    let digits = bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]);
    digits.collect()
}

fn from_hex(text: &str) -> Option<Histogram<u64>> {
    let digit = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    let bytes: Vec<u8> = (0..text.len())
        .step_by(2)
        .map(digit)
        .collect::<Option<_>>()?;
    Deserializer::new().deserialize(&mut bytes.as_slice()).ok()
}

#[cfg(test)]
mod tests {
    use super::super::args::tests::args;
    use super::*;
    use crate::net::UnixName;

    #[test]
    fn a_plan_survives_the_pipe() {
        let targets = [
            Endpoint::Tcp("127.0.0.1:7".parse().unwrap()),
            Endpoint::Udp("[fe80::7%1]:7".parse().unwrap()),
            Endpoint::Unix(UnixName::Path("/tmp/a b%c\"ü.sock".into())),
            Endpoint::UnixDatagram(UnixName::Abstract("a b%c\"ü".into())),
        ];
        for line in [
            "-r 5k --arrivals poisson",
            "--churn reset -n 5",
            "--trigger edge",
            "--source 127.0.0.0/16",
            "--bad-clients slow-reader=1,reset=2,slowloris=3,half-close=4",
        ] {
            let arguments: Vec<&str> = line.split(' ').collect();
            let plan = args(&arguments).plan(targets.to_vec(), &[5]).unwrap();
            let back = plan_from(&plan_to_json(&plan).to_string()).unwrap();
            assert_eq!(format!("{back:?}"), format!("{plan:?}"));
        }
    }

    #[test]
    fn messages_survive_the_pipe() {
        let mut interval = Interval::new(Stage::Window, 5);
        (1..1000).for_each(|n| interval.service_time.saturating_record(n * n * 1000));
        interval.service_time.saturating_record(u64::MAX); // beyond the range
        interval.echoes = 999;
        let mut end = Final::default();
        end.counters.lost = 3;
        end.faults.add(FaultKind::Reset, 2, "it was reset");
        end.fairness.squares = 2.5;
        end.unanswered.numbers = vec![3, 5];
        end.pauses.at = 7;
        end.opening_pauses.count = 1;
        end.resent.segments = 9;
        end.server = Some(ServerFigures::default());
        let end = Message::Done(Box::new(end));
        for message in [
            Message::Interval(Box::new(interval)),
            end,
            Message::Opened(1, 2),
            Message::Opening(3),
        ] {
            let back = message_from(&message_to_json(&message).to_string()).unwrap();
            assert_eq!(message_to_json(&back), message_to_json(&message));
        }
    }
}
