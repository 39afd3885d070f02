//! Tests of the rules, on sums that are made up.

use super::*;
use crate::load::preflight::tests::plan;
use crate::load::{Arrivals, Final, ServerFigures};
use crate::net::Endpoint;
use crate::procfs::Usage;

fn total(cpu: u64, waited: u64) -> Total {
    let mut total = Total::new(1);
    (0..10_000).for_each(|_| total.service_time.saturating_record(1_000));
    total.echoes = 10_000;
    total.opened.0 = 10;
    total.end = Final {
        usage: Usage { cpu, waited },
        window: 1_000_000_000,
        ..Final::default()
    };
    total
}

fn assessed(mode: Mode, total: &Total) -> Validity {
    let mut plan = plan(Endpoint::Tcp("127.0.0.1:7".parse().unwrap()));
    plan.mode = mode;
    assess(&plan, 1, total, &KernelCounters::default())
}

#[test]
fn a_generator_with_time_to_spare_is_believed() {
    let validity = assessed(Mode::Closed, &total(500_000_000, 0));
    assert_eq!(validity, Validity::default());
}

#[test]
fn a_generator_without_time_to_spare_is_not() {
    let validity = assessed(Mode::Closed, &total(990_000_000, 0));
    assert!(validity.invalid[0].contains("bottleneck"), "{validity:?}");
    let validity = assessed(Mode::Closed, &total(500_000_000, 200_000_000));
    assert!(validity.invalid[0].contains("20 %"), "{validity:?}");
}

#[test]
fn beside_a_server_that_is_as_busy_it_is_believed() {
    let beside = |server: u64| {
        let mut total = total(990_000_000, 0);
        let mut figures = ServerFigures::default();
        figures.end.usage.cpu = server;
        total.end.server = Some(figures);
        assessed(Mode::Closed, &total)
    };
    assert_eq!(beside(980_000_000), Validity::default());
    let idler = beside(960_000_000);
    assert!(idler.invalid[0].contains("only 96 %"), "{idler:?}");
}

#[test]
fn an_open_loop_that_was_late_by_itself_is_not() {
    let open = Mode::Open {
        rate: 10_000.0,
        arrivals: Arrivals::Constant,
    };
    let mut late = total(500_000_000, 0);
    assert!(assessed(open, &late).is_valid());
    (0..100).for_each(|_| late.lag.saturating_record(5_000_000));
    assert!(assessed(open, &late).invalid[0].contains("late itself"));
    late.echoes = 5_000;
    assert!(assessed(open, &late).notes[0].contains("50.0 %"));
}

#[test]
fn requests_without_an_answer_are_named_and_make_a_run_invalid() {
    let mut frozen = total(500_000_000, 0);
    frozen.end.unanswered.note(3, 2, true, 3_512_345_678);
    let said = &assessed(Mode::Closed, &frozen).invalid[0];
    for part in [
        "2 requests on 1 connection (number 3)",
        "3.51s",
        "half an answer",
    ] {
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_moment_without_answers_is_named_in_a_closed_loop() {
    let mut stalled = total(500_000_000, 0);
    stalled.end.fairness.longest_gap = 300_000_000;
    let validity = assessed(Mode::Closed, &stalled);
    assert!(validity.is_valid(), "{validity:?}");
    assert!(
        validity.notes[0].contains("no answer for 300ms"),
        "{validity:?}"
    );
}

#[test]
fn pauses_of_the_generator_are_its_own() {
    let mut paused = total(500_000_000, 0);
    paused.end.pauses.note(400_000_000, 60_000_000);
    paused.end.window = 10_000_000_000;
    assert!(assessed(Mode::Closed, &paused).notes[0].contains("itself stood still, 1 pause"));
    paused.end.pauses.note(1_000_000_000, 100_000_000);
    let validity = assessed(Mode::Closed, &paused);
    assert!(
        validity.invalid[0].contains("100ms at 1.0 s of"),
        "{validity:?}"
    );
}

#[test]
fn a_pause_in_the_opening_is_told_with_the_connects() {
    let mut paused = total(500_000_000, 0);
    paused.end.opening_pauses.note(10_000_000, 1_500_000_000);
    let validity = assessed(Mode::Closed, &paused);
    assert!(validity.is_valid(), "{validity:?}");
    assert!(
        validity.notes[0].contains("while connections were opened"),
        "{validity:?}"
    );
}

/// What was observed may have its cause in the generator or in the machine.
#[test]
fn no_sentence_gives_the_server_as_the_cause() {
    let open = Mode::Open {
        rate: 1e6,
        arrivals: Arrivals::Constant,
    };
    let mut bad = total(500_000_000, 0);
    bad.lag.saturating_record(1_000_000_000);
    bad.connect.saturating_record(1_000_000_000);
    bad.end.fairness.longest_gap = 900_000_000;
    bad.end.pauses.note(1, 800_000_000);
    bad.end.resent.note(3);
    (bad.end.counters.unsent, bad.end.counters.warm_up_dropped) = (5, 6);
    (bad.end.counters.sent, bad.end.counters.lost) = (7, 7);
    let kernel = KernelCounters([9; 7]);
    let mut plan = plan(Endpoint::Tcp("127.0.0.1:7".parse().unwrap()));
    let mut said = Vec::new();
    for mode in [Mode::Closed, open, Mode::Churn { reset: true }] {
        plan.mode = mode;
        let validity = assess(&plan, 1, &bad, &kernel);
        said.extend([validity.invalid, validity.notes].concat());
    }
    assert!(said.len() > 20, "{said:#?}");
    for cause in [
        "the server was",
        "the server's work",
        "overloaded",
        "the server stood",
    ] {
        let accusing = said.iter().find(|text| text.contains(cause));
        assert_eq!(accusing, None, "{said:#?}");
    }
}

#[test]
fn fewer_connections_than_planned_are_not_what_was_asked_for() {
    let mut few = total(500_000_000, 0);
    few.opened.0 = 7;
    few.end.counters.untried = 2;
    let said = &assessed(Mode::Closed, &few).invalid[0];
    assert!(
        said.contains("only 7 of 10 connections") && said.contains("2 were not"),
        "{said}"
    );
}

#[test]
fn overflows_of_other_programs_are_a_note() {
    let churn = Mode::Churn { reset: true };
    let mut kernel = KernelCounters::default();
    kernel.0[0] = 5;
    kernel.0[3] = 9;
    let mut plan = plan(Endpoint::Tcp("127.0.0.1:7".parse().unwrap()));
    plan.mode = churn;
    let mut run = total(500_000_000, 0);
    let validity = assess(&plan, 1, &run, &kernel);
    assert!(
        validity.is_valid() && validity.notes[0].contains("another program"),
        "{validity:?}"
    );
    assert!(
        validity.notes[1].contains("none of them by"),
        "{validity:?}"
    );
    run.end.resent.note(2);
    let validity = assess(&plan, 1, &run, &kernel);
    assert!(
        validity.invalid[0].contains("1 connection of this run"),
        "{validity:?}"
    );
}

#[test]
fn a_full_queue_is_told_with_its_bound() {
    let open = Mode::Open {
        rate: 1e4,
        arrivals: Arrivals::Constant,
    };
    let mut flood = total(500_000_000, 0);
    flood.end.counters.left_out = 9;
    let said = &assessed(open, &flood).invalid[0];
    assert!(
        said.contains("1048576") && said.contains("9 were left out"),
        "{said}"
    );
}

#[test]
fn times_are_brief() {
    let texts = [
        (0, "0ns"),
        (999, "999ns"),
        (1_234_567, "1.23ms"),
        (99_960_000, "100ms"),
    ];
    for (nanoseconds, text) in texts {
        assert_eq!(format!("{:?}", brief(nanoseconds)), text);
    }
}

#[test]
fn a_limit_of_our_own_is_no_result_of_the_servers() {
    let mut short = total(500_000_000, 0);
    short.end.faults.add(FaultKind::Refused, 1, "refused");
    assert!(
        assessed(Mode::Closed, &short).is_valid(),
        "that is a result"
    );
    short.end.faults.add(FaultKind::NoPort, 3, "no port");
    let validity = assessed(Mode::Churn { reset: false }, &short);
    assert!(validity.invalid[0].contains("3 times a connection could not connect"));
    assert!(validity.invalid[0].contains("--source"), "{validity:?}");
}

#[test]
fn nothing_is_no_measurement() {
    let mut nothing = Total::new(1);
    nothing.opened.0 = 10;
    let judged_closed = |nothing: &Total| assessed(Mode::Closed, nothing).invalid;
    assert!(judged_closed(&nothing)[0].contains("no connection was left"));
    nothing.end.interrupted = true;
    assert!(judged_closed(&nothing)[0].contains("ended before the window"));
    nothing.end.window = 1_000_000_000;
    assert_eq!(judged_closed(&nothing), ["nothing came back in the window"]);
    let mut open = total(0, 0);
    open.service_time.reset();
    assert_eq!(judged_closed(&open), ["no latency was measured"]);
    let mut plan = plan(Endpoint::Tcp("127.0.0.1:7".parse().unwrap()));
    plan.requests = Some(500);
    (nothing.end.counters.sent, nothing.end.counters.echoed) = (500, 500);
    let validity = assess(&plan, 1, &nothing, &KernelCounters::default());
    assert!(validity.invalid[0].contains("--warm-up 0"), "{validity:?}");
}

#[test]
fn each_machine_is_assessed_and_a_reason_names_it() {
    let (right, mut wrong) = (total(500_000_000, 0), total(500_000_000, 0));
    wrong.end.pauses.note(1, 300_000_000);
    let mut both = total(1_000_000_000, 0);
    both.end.pauses = wrong.end.pauses;
    let part = |machine, total| Part {
        machine: Some(machine),
        workers: 1,
        total,
    };
    let mut plan = plan(Endpoint::Tcp("127.0.0.1:7".parse().unwrap()));
    plan.mode = Mode::Closed;
    let parts = [part("ssh load1", &right), part("ssh load2", &wrong)];
    // A hundredth of the window is the most by which they may begin apart.
    let validity = assess_machines(&plan, &both, &parts, 10_000_000);
    assert_eq!(validity.invalid.len(), 1, "{validity:?}");
    let told = "'ssh load2': the generator itself stood still";
    assert!(validity.invalid[0].starts_with(told), "{validity:?}");
    let validity = assess_machines(&plan, &right, &parts[..1], 10_000_001);
    let told = "the machines began up to 10ms apart";
    assert!(validity.invalid[0].starts_with(told), "{validity:?}");
}
