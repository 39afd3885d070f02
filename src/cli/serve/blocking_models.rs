//! Serving by one of the blocking models: a thread for the signals, and this one for the server.

use super::commands::SignalCommands;
use super::counters::Counters;
use super::delivery;
use super::end::End;
use super::errors;
use super::notify;
use super::pid_file::PidFile;
use super::plan::Plan;
use super::signals;
use crate::blocking;
use crate::cli::error::CliError;
use std::thread;

/// Serves until the server has stopped.
pub(super) fn serve(model: blocking::Model, plan: Plan<'_>) -> Result<End, CliError> {
    let mut signals = signals::signals()?;
    signals::listen();
    let mut commands = SignalCommands::new(plan.drain_delay, plan.config.limits.drain_timeout);
    let options = plan.config.bind_options();
    let server =
        blocking::Server::bind_resolved(model, &plan.addresses, plan.config.limits, &options)
            .map_err(|error| errors::blocking_error(&error))?;
    let _pid_file = plan.pid_file.map(PidFile::write).transpose()?;
    let mut handle = server.handle();
    let closer = signals.handle();
    let watch = move || {
        for signal in &mut signals {
            commands.follow(signal.si_signo, &mut handle);
        }
        commands
    };
    let watcher = thread::Builder::new()
        .name("signals".to_owned())
        .spawn(watch)
        .map_err(|error| errors::system("no thread for signals", &error))?;
    let addresses = server.addresses();
    let mut delivery = plan.announcement.tell(&addresses);
    if let Some(mut pause) = delivery.retry() {
        let deliver = move || loop {
            thread::sleep(pause);
            match delivery.retry() {
                Some(next) => pause = next,
                None => break,
            }
        };
        // Without a thread there is only the first attempt.
        let _ = thread::Builder::new().spawn(deliver);
    }
    let result = server.run();
    notify::finish(delivery::FINISH_TIMEOUT);
    closer.close();
    let commands = watcher.join().ok();
    let stats = result.map_err(|error| errors::system("serving failed", &error))?;
    let discarded_before = commands.map_or(0, |commands| commands.discarded_before());
    Ok(End {
        counters: Counters::of(&stats, discarded_before, &[]),
        addresses,
        ..End::default()
    })
}
