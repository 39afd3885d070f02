//! Options that change nothing in the chosen mode.

use super::{BenchArgs, Following, Share};
use crate::cli::error::{CliError, CliErrorKind};
use crate::cli::units::{Count, Percent};

impl BenchArgs {
    /// Refuses options that change nothing in the chosen mode: a command line that has them means another mode.
    pub(super) fn refuse_without_effect(&self) -> Result<(), CliError> {
        let (load, timing) = (&self.load, &self.timing);
        let plans = !load.rate.is_empty() || load.hold.is_some() || load.find_max_rate.is_some();
        if load.arrivals == Following::Poisson && !plans {
            let text = "--arrivals has no effect without a plan; add --rate, or leave it out";
            return Err(CliError::new(CliErrorKind::Usage, text));
        }
        let args = [
            ("--pipeline", load.pipeline.0 > 1),
            ("--active", load.active != Share::Percent(Percent(100.0))),
            ("--ramp-up", !timing.ramp_up.0.is_zero()),
            (
                "--connect-concurrency",
                timing.connect_concurrency != Count(64),
            ),
        ];
        match args.iter().find(|(_, is_typed)| *is_typed) {
            Some((flag, _)) if load.churn.is_some() => Err(CliError::new(
                CliErrorKind::Usage,
                format!(
                    "{flag} has no effect with --churn, where every connection has one request; leave it out"
                ),
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::args;

    #[test]
    fn what_has_no_effect_is_refused() {
        for wrong in [
            "--arrivals poisson",
            "--churn fin --pipeline 2",
            "--churn fin --active 1",
            "--churn reset --ramp-up 1s",
            "--churn reset --connect-concurrency 5",
        ] {
            let arguments: Vec<&str> = wrong.split(' ').collect();
            let failure = args(&arguments).refuse_without_effect().unwrap_err();
            assert!(failure.text.contains("has no effect"), "{wrong}");
        }
        for right in [
            "--arrivals poisson -r 5",
            "--pipeline 2",
            "--churn fin -c 5",
        ] {
            let arguments: Vec<&str> = right.split(' ').collect();
            assert_eq!(args(&arguments).refuse_without_effect(), Ok(()), "{right}");
        }
    }
}
