//! The exit codes of the program. `--help` lists them.

use std::process::{ExitCode, Termination};

use crate::run::{Report, RunOutcome};
use crate::types::{Attribution, Class};

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Every item completed, or was skipped by its conditions.
    Success,
    /// Some items failed or were not processed, or some input records were rejected.
    ItemsFailed,
    /// The arguments are wrong.
    Usage,
    /// The configuration or the pipeline is invalid; nothing was run.
    Configuration,
    /// The input could not be read, or the output or the store could not be written, or an output exists that
    /// the run did not write. Or the daemon could not be reached, is not healthy, or refused the request.
    IoError,
    /// A spending cap was reached, no provider could answer for too long, or too many items failed; the run can be
    /// resumed.
    Paused,
    /// Internal error; stored answers are kept.
    Internal,
    /// The run was stopped before its end.
    Interrupted,
    /// The program that reads the output closed the pipe, as `head` does. This is no error, and no message is shown.
    BrokenPipe,
}

/// The table that `--help` shows.
pub(super) const HELP: &str = "\
Exit codes:
    0  every item completed, or was skipped by its conditions
    1  some items failed or were not processed, or some input records were rejected
    2  the arguments are invalid
    3  the configuration or the pipeline is invalid; nothing was run
    4  the input, an output, the store or the daemon failed, or an output is not this run's
    5  paused: a budget is exhausted, no provider could answer, or too many items failed; resume it
   70  internal error; stored answers are kept
  130  stopped by Ctrl-C, SIGTERM or SIGHUP before the end
  141  the program that reads the output (such as head) closed the pipe";

/// The table that the help of `ask` shows.
pub(super) const ASK_HELP: &str = "\
Exit codes:
    0  answered
    1  the request failed for a reason of its own: too long, refused, or its answer truncated or invalid
    2  the arguments are invalid
    3  the configuration is invalid; nothing was sent
    4  the prompt could not be read, or the answer could not be written
    5  no provider could answer: its key, its model, its quota, a budget, a rate limit, an outage or the deadline
   70  internal error
  130  stopped by Ctrl-C, SIGTERM or SIGHUP
  141  the program that reads the answer (such as head) closed the pipe";

impl Exit {
    /// Returns the exit code of a request that failed with this class.
    pub(super) fn of_class(class: Class) -> Self {
        match class.attribution() {
            // An unknown model or address, as a run pauses for.
            Attribution::Request if class == Class::NotFound => Self::Paused,
            Attribution::Request => Self::ItemsFailed,
            Attribution::Attempt | Attribution::Limit | Attribution::Account => Self::Paused,
            Attribution::Router => match class {
                Class::Cancelled => Self::Interrupted,
                Class::Internal => Self::Internal,
                // Of this attribution, the deadline is left.
                _ => Self::Paused,
            },
        }
    }

    /// Returns the exit code of a run with this report.
    pub(super) fn of(report: &Report, has_fatal_error: bool) -> Self {
        match report.outcome {
            _ if has_fatal_error => Self::Internal,
            _ if report.output_closed => Self::BrokenPipe,
            RunOutcome::IoFailed => Self::IoError,
            RunOutcome::Interrupted | RunOutcome::Running => Self::Interrupted,
            RunOutcome::Paused => Self::Paused,
            RunOutcome::Completed | RunOutcome::Limited
                if report.items.failed + report.items.rejected + report.items.not_processed > 0 =>
            {
                Self::ItemsFailed
            }
            RunOutcome::Completed | RunOutcome::Limited => Self::Success,
        }
    }

    /// Returns the number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::ItemsFailed => 1,
            Self::Usage => 2,
            Self::Configuration => 3,
            Self::IoError => 4,
            Self::Paused => 5,
            Self::Internal => 70,
            Self::Interrupted => 130,
            Self::BrokenPipe => 141,
        }
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_in_the_help() {
        let all = [
            Exit::Success,
            Exit::ItemsFailed,
            Exit::Usage,
            Exit::Configuration,
            Exit::IoError,
            Exit::Paused,
            Exit::Internal,
            Exit::Interrupted,
            Exit::BrokenPipe,
        ];
        let listed: Vec<u8> = HELP
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(all.map(Exit::code).to_vec(), listed);
    }
}
