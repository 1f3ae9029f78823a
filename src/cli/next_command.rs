//! The advice after a run: the command that resumes it or processes its remaining items. Pure: prints nothing.

use crate::run::{Report, RunOutcome};
use crate::store::RunNumber;
use crate::types::{Attribution, Class};

use super::progress_text::counted;
use super::table;

/// A stored run, as far as a command needs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct NextCommand<'a> {
    /// Its number.
    pub(super) run: RunNumber,
    /// Its store, or the daemon that has it.
    pub(super) place: &'a str,
    /// The option by which another command finds the same store, if one is needed.
    pub(super) store_option: &'a str,
    /// The classes of failed items that its session processed again, if it processed only those.
    pub(super) retry: Option<&'a [Class]>,
    /// Whether its items come from stdin, which no command can read again.
    pub(super) is_from_stdin: bool,
    /// Whether its user cancelled it with `pointsman cancel`.
    pub(super) is_cancelled: bool,
    /// Whether the command that resumes it has `--give-up`.
    pub(super) has_give_up: bool,
}

impl NextCommand<'_> {
    /// Returns the advice for a run that has items left; `None` if nothing is left.
    pub(super) fn of(&self, report: &Report) -> Option<String> {
        let Self { run, place, store_option, .. } = self;
        let is_budget_pause = report.paused_class.is_none_or(|class| class == Class::Budget);
        match report.outcome {
            RunOutcome::Paused if is_budget_pause && table::run_cap_reached(report) => Some(format!(
                "run {run} is stored in {place}: {}",
                self.command(" --max-cost USD", "resumes it with a higher cap")
            )),
            RunOutcome::Paused if is_budget_pause => {
                Some(format!("run {run} is stored in {place}: {}", self.command("", "resumes it then")))
            }
            RunOutcome::Paused if report.max_failures_reached => Some(format!(
                "run {run} is stored in {place}: {}, `pointsman failures {run}{store_option}` lists the failed items{}",
                self.command("", "resumes it"),
                self.retry_command(report)
            )),
            RunOutcome::Paused if self.has_give_up && holds_for_last_items(report) => Some(format!(
                "run {run} is stored in {place}: {}{}; with `--give-up` the items that hold fail",
                self.command("", "resumes it"),
                self.retry_command(report)
            )),
            RunOutcome::Paused => Some(format!(
                "run {run} is stored in {place}: {}{}",
                self.command("", "resumes it"),
                self.retry_command(report)
            )),
            RunOutcome::Interrupted if self.is_cancelled => Some(self.cancelled()),
            RunOutcome::IoFailed if report.output_error.is_some() => Some(format!(
                "run {run} is stored in {place}: {}, `pointsman results {run}{store_option} --out OTHER` writes the finished \
                 items to another file",
                self.command("", "resumes it")
            )),
            RunOutcome::Limited => Some(format!(
                "{} of the input {} processed, and --limit leaves the rest. Run {run} is stored in {place}: {}{}",
                counted(report.items.finished(), "item"),
                if report.items.finished() == 1 { "is" } else { "are" },
                self.command("", "processes it, as the same command without --limit does"),
                self.retry_command(report)
            )),
            RunOutcome::Interrupted | RunOutcome::IoFailed => {
                Some(format!("run {run} is stored in {place}: {}", self.command("", "resumes it")))
            }
            RunOutcome::Completed if report.items.not_processed > 0 => Some(format!(
                "run {run}: `pointsman resume {run}{store_option}` processes the remaining items{}",
                self.retry_command(report)
            )),
            RunOutcome::Completed if report.items.failed > 0 => Some(format!(
                "run {run}: `pointsman retry {run}{store_option}` processes the failed items again"
            )),
            RunOutcome::Completed | RunOutcome::Running => None,
        }
    }

    /// Returns the command that processes the failed items, after another command; nothing if no item has failed, or
    /// if the session was such a command.
    fn retry_command(&self, report: &Report) -> String {
        let Self { run, store_option, .. } = self;
        if report.items.failed == 0 || self.retry.is_some() {
            return String::new();
        }
        format!(", `pointsman retry {run}{store_option}` processes the failed items again")
    }

    /// Returns the advice for a run that its user cancelled.
    fn cancelled(&self) -> String {
        let Self { run, store_option, .. } = self;
        let begin = "the same `pointsman run` with --overwrite begins a new run";
        if self.is_from_stdin {
            format!("run {run} was cancelled: {begin}")
        } else {
            format!(
                "run {run} was cancelled: {begin}, `pointsman resume {run}{store_option}` resumes this one"
            )
        }
    }

    /// Returns the command with these options, and its effect.
    fn command(&self, options: &str, what: &str) -> String {
        let Self { run, store_option, .. } = self;
        match self.retry {
            Some(classes) => {
                let classes: String = classes.iter().map(|class| format!(" --class {class}")).collect();
                format!("`pointsman retry {run}{classes}{store_option}{options}` {what}")
            }
            None if self.is_from_stdin => {
                format!(
                    "its items came from stdin: the same `pointsman run{options}` with the items piped in again {what}"
                )
            }
            None => format!("`pointsman resume {run}{store_option}{options}` {what}"),
        }
    }
}

/// Returns whether a run paused after all of its input had begun, for a failure that the items which are left may
/// have caused.
fn holds_for_last_items(report: &Report) -> bool {
    let may_be_item_failure = report.paused_class.is_some_and(|class| match class.attribution() {
        Attribution::Attempt => true,
        Attribution::Request | Attribution::Limit | Attribution::Account | Attribution::Router => false,
    });
    may_be_item_failure
        && report.items.not_processed == 0
        && report.items.completed + report.items.finished_before > 0
}
