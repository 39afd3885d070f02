//! Plans and messages as lines of JSON, for workers in processes of their own. `scripts/measure.py` writes a plan too, for a
//! worker that it runs alone.

#[cfg(any(test, feature = "simulation"))]
pub(crate) use crate::load::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Appends a plan or a message, as a line.
pub(crate) fn write(said: &impl Serialize, line: &mut Vec<u8>) {
    // Writing to memory cannot fail.
    let _ = serde_json::to_writer(&mut *line, said);
    line.push(b'\n');
}

/// Reads a plan or a message; `None` if the line is none.
pub(crate) fn read<T: DeserializeOwned>(line: &str) -> Option<T> {
    serde_json::from_str(line).ok()
}

#[cfg(test)]
mod tests {
    use super::super::args::tests::args;
    use super::*;
    use crate::load::{FaultKind, Final, Interval, Plan, ServerFigures, Stage};
    use crate::net::{Endpoint, UnixName};

    fn line(said: &impl Serialize) -> String {
        let mut line = Vec::new();
        write(said, &mut line);
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn a_plan_survives_the_pipe() {
        let targets = [
            Endpoint::Tcp("127.0.0.1:7".parse().unwrap()),
            Endpoint::Udp("[fe80::7%1]:7".parse().unwrap()),
            Endpoint::Unix(UnixName::Path("/tmp/a b%c\"ü.sock".into())),
            Endpoint::UnixDatagram(UnixName::Abstract("a b%c\"ü".into())),
        ];
        for words in [
            "-r 5k --arrivals poisson",
            "--churn reset -n 5",
            "--trigger edge",
            "--source 127.0.0.0/16",
            "--bad-clients slow-reader=1,reset=2,slowloris=3,half-close=4",
        ] {
            let arguments: Vec<&str> = words.split(' ').collect();
            let plan = args(&arguments).plan(targets.to_vec(), &[5]).unwrap();
            let back: Plan = read(&line(&plan)).unwrap();
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
            let back: Message = read(&line(&message)).unwrap();
            assert_eq!(back, message);
        }
    }
}
