//! What the process's exit code means. Each has one meaning, and `--help` lists them.

use std::process::{ExitCode, Termination};

use crate::run::{Ended, Report};

/// How the program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Every item completed or was skipped as its conditions said.
    Done,
    /// Some items failed or were not asked, or some lines of the input were no items.
    ItemsFailed,
    /// The arguments are wrong.
    Usage,
    /// The configuration or the pipeline is wrong; nothing was run.
    Configuration,
    /// The input could not be read, or the output or the store not be written, to its end; or an output file is not the
    /// run's own.
    Broken,
    /// A cap on money was met, no request could be answered for too long, or too many items failed; the run can be resumed.
    Paused,
    /// Something that must not fail did; what was done is written.
    Internal,
    /// The run was stopped before its end.
    Interrupted,
    /// Whoever read the output has gone, as `head` does: no fault, and nothing is said.
    BrokenPipe,
}

/// The table that `--help` shows.
pub(super) const HELP: &str = "\
Exit codes:
    0  every item completed, or was skipped as its conditions said
    1  some items failed or were not asked, or some lines were no items
    2  the arguments are wrong
    3  the configuration or the pipeline is wrong; nothing was run
    4  the input, an output or the store failed; or an output file is not the run's own
    5  paused: a budget is met, no provider could answer, or too many items failed; resume it
   70  something that must not fail did; what was done is written
  130  stopped by Ctrl-C, SIGTERM or SIGHUP before the end
  141  the reader of the output has gone";

impl Exit {
    /// Returns how the program ends after a run with this report.
    pub(super) fn of(report: &Report, gave_up: bool) -> Self {
        match report.ended {
            _ if gave_up => Self::Internal,
            _ if report.reader_gone => Self::BrokenPipe,
            Ended::Broken => Self::Broken,
            Ended::Interrupted => Self::Interrupted,
            Ended::Paused => Self::Paused,
            Ended::Whole if report.items.failed + report.items.rejected + report.items.left > 0 => {
                Self::ItemsFailed
            }
            Ended::Whole => Self::Done,
        }
    }

    /// Returns the number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::ItemsFailed => 1,
            Self::Usage => 2,
            Self::Configuration => 3,
            Self::Broken => 4,
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
            Exit::Done,
            Exit::ItemsFailed,
            Exit::Usage,
            Exit::Configuration,
            Exit::Broken,
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
