//! What came of one run: its figures, or the reasons why it gives none.

use super::record::{Figure, Figures, Load, Scenario};
use crate::cli::bench::record::Server;
use crate::cli::bench::run::Run;
use crate::cli::units::grouped;
use crate::load::FaultKind;

/// From this number of connections on, the memory of each can be computed: memory comes in pages of 4 KiB, and a server that
/// takes one more of them for three connections has not used a kilobyte for each.
const CONNECTIONS_WEIGHED: u64 = 100;

/// Why a model is left out of a load.
#[derive(Debug)]
pub(super) struct LeftOut {
    pub(super) why: String,
    /// Whether something was echoed that was not sent, which is worse than nothing.
    pub(super) wrong: bool,
}

/// Why a run is no sample; the server may have written a complaint to standard error.
pub(super) fn refusal(run: &Run, load: &Load, complaint: Option<String>) -> Option<LeftOut> {
    let faults = &run.total.end.faults;
    let (opened, planned) = (run.total.opened.0, load.connections);
    let mut why = match faults.total() {
        _ if load.scenario != Scenario::Churn && opened < planned => {
            let [opened, planned] = [opened, planned].map(grouped);
            format!("{opened} of {planned} connections came about")
        }
        0 if run.total.echoes > 0 => return None,
        0 => "nothing came back".to_owned(),
        count => format!("{} faults", grouped(count)),
    };
    if let Some((kind, _, first)) = faults.iter().next() {
        why.push_str(&format!("; the first: {kind}, {first}"));
    }
    if let Some(complaint) = complaint {
        why.push_str(&format!("; the server said: {complaint}"));
    }
    let wrong = [FaultKind::Mismatch, FaultKind::Extra];
    let wrong = wrong.iter().any(|&kind| faults.count(kind) > 0);
    Some(LeftOut { why, wrong })
}

/// The figures of a sample.
pub(super) fn figures(run: &Run, load: &Load) -> Figures<f64> {
    let (total, server) = (&run.total, Server::new(run));
    let percentile = |quantile| {
        let latencies = &total.service_time;
        // Of a hundred answers there is no thousandth.
        let is_known = latencies.len() as f64 * (1.0 - quantile) >= 1.0;
        is_known.then(|| latencies.value_at_quantile(quantile) as f64)
    };
    let of_server = |figure: fn(&Server) -> f64| server.as_ref().map(figure);
    let switches = of_server(|one| (one.switches_voluntary + one.switches_forced) as f64);
    let echoes = total.end.counters.echoed.saturating_sub(total.opened.0);
    // Where connections come and go, threads may too, and each takes its count of switches with it.
    let is_steady = load.scenario != Scenario::Churn;
    let is_weighed = is_steady && load.connections >= CONNECTIONS_WEIGHED;
    Figure::each(|figure| match figure {
        Figure::EchoesPerSecond => Some(total.rate()),
        Figure::P50Ns => percentile(0.5),
        Figure::P90Ns => percentile(0.9),
        Figure::P99Ns => percentile(0.99),
        Figure::P999Ns => percentile(0.999),
        Figure::P9999Ns => percentile(0.9999),
        Figure::CpuNsPerEcho => of_server(|one| one.cpu_ns_per_echo),
        Figure::SwitchesPerEcho if !is_steady => None,
        Figure::SwitchesPerEcho => switches.map(|all| all / echoes.max(1) as f64),
        Figure::Threads => of_server(|one| one.threads as f64),
        Figure::RssBytes => of_server(|one| one.rss_bytes as f64),
        Figure::RssBytesPerConnection if !is_weighed => None,
        Figure::RssBytesPerConnection => of_server(|one| one.rss_bytes_per_connection),
    })
}
