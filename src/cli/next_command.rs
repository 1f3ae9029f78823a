//! Names the command that takes a run further. Pure: it prints nothing.

use crate::run::{Ended, Report};
use crate::store::{RunNumber, StoreUrl};
use crate::types::{Class, Whose};

use super::table;

/// A kept run, as far as a command has to name it.
#[derive(Debug, Clone, Copy)]
pub(super) struct NextCommand<'a> {
    /// Its number.
    pub(super) run: RunNumber,
    /// Where it is kept.
    pub(super) url: &'a StoreUrl,
    /// The option by which another command finds the same store, where it needs one.
    pub(super) here: &'a str,
    /// The classes of failed items that its session asked again, where it asked those alone.
    pub(super) retry: Option<&'a [Class]>,
    /// Whether its items come from stdin, where no command can read them again.
    pub(super) is_from_stdin: bool,
}

impl NextCommand<'_> {
    /// Says what can be done about a run that has something left; `None` where nothing has to be done.
    pub(super) fn of(&self, report: &Report) -> Option<String> {
        let Self { run, url, here, .. } = self;
        let is_of_money = report.paused_class.is_none_or(|class| class == Class::Budget);
        match report.ended {
            Ended::Paused if is_of_money && table::is_of_run(report) => Some(format!(
                "run {run} is kept in {url}: {}",
                self.how(" --max-cost USD", "goes on with more")
            )),
            Ended::Paused if is_of_money => {
                Some(format!("run {run} is kept in {url}: {}", self.how("", "goes on then")))
            }
            Ended::Paused if holds_for_its_last(report) => Some(format!(
                "run {run} is kept in {url}: {}; with `--give-up` the items that it holds for fail",
                self.how("", "resumes it")
            )),
            Ended::Paused => Some(format!("run {run} is kept in {url}: {}", self.how("", "resumes it"))),
            Ended::Interrupted | Ended::Broken => {
                Some(format!("run {run} is kept in {url}: {}", self.how("", "goes on")))
            }
            Ended::Whole if report.items.left > 0 => {
                Some(format!("run {run}: `pointsman resume {run}{here}` asks what was not asked"))
            }
            Ended::Whole if report.items.failed > 0 => {
                Some(format!("run {run}: `pointsman retry {run}{here}` asks again what failed"))
            }
            Ended::Whole => None,
        }
    }

    /// Returns the command with these options, and what it does.
    fn how(&self, options: &str, what: &str) -> String {
        let Self { run, here, .. } = self;
        match self.retry {
            Some(classes) => {
                let classes: String = classes.iter().map(|class| format!(" --class {class}")).collect();
                format!("`pointsman retry {run}{classes}{here}{options}` {what}")
            }
            None if self.is_from_stdin => {
                format!(
                    "its items came from stdin: the same `pointsman run{options}` with them piped in again {what}"
                )
            }
            None => format!("`pointsman resume {run}{here}{options}` {what}"),
        }
    }
}

/// Returns whether a run paused with all of its input begun, for a failure that may be that of the items which are left.
fn holds_for_its_last(report: &Report) -> bool {
    let may_be_theirs = report.paused_class.is_some_and(|class| match class.whose() {
        Whose::Attempt => true,
        Whose::Request | Whose::Limit | Whose::Account | Whose::Ours => false,
    });
    may_be_theirs && report.items.left == 0 && report.items.completed + report.items.settled_before > 0
}
