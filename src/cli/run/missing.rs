//! Messages about items that a run has not processed, with the command that processes them.

use anyhow::Context;

use super::Session;
use crate::cli::advice::new_run_option;
use crate::cli::exit::Exit;
use crate::cli::next_command::NextCommand;
use crate::cli::progress_text::{count, counted};
use crate::cli::saved_args::is_dash;
use crate::run::{Report, RunOutcome, input_totals};
use crate::runtime::{PreparedRun, rejected_count};
use crate::store::{RunNumber, RunState};

impl Session<'_> {
    /// Shows the command for the items that are left. If the run has paused, it is shown in quiet mode, too.
    pub(super) fn show_next_command(&self, run: RunNumber, ended: &Report) {
        let is_interrupted = ended.outcome == RunOutcome::Interrupted;
        let next = NextCommand {
            run,
            place: &self.url.to_string(),
            store_option: &self.store_option(),
            retry: self.target.retry.as_deref(),
            is_from_stdin: is_dash(&self.args.items),
            is_cancelled: is_interrupted && self.is_cancelled(run),
            has_give_up: true,
        };
        let exit = if ended.outcome == RunOutcome::Paused { Exit::Paused } else { Exit::Success };
        if let Some(text) = next.of(ended) {
            self.mode.end(&text, exit);
        }
    }

    /// Returns whether the user cancelled the run with `pointsman cancel`. A store that cannot be read any more has
    /// been reported.
    fn is_cancelled(&self, run: RunNumber) -> bool {
        let state = self.pointsman.runtime().block_on(async {
            let store = self.url.open().await.ok()??;
            store.state(run).await.ok()
        });
        state == Some(RunState::Cancelled)
    }

    /// Shows that there is nothing to do, and returns the exit code; `None` if there is something to do.
    pub(super) fn up_to_date(&self, prepared: &PreparedRun) -> Option<Exit> {
        let number = prepared.id().filter(|_| prepared.is_up_to_date() && self.target.retry.is_none())?;
        let before = prepared.earlier_totals();
        let rejected = prepared.rejected_before();
        let out = self.args.out.display();
        let store_option = self.store_option();
        let new_run = new_run_option();
        let overwrite = if is_dash(&self.args.out) { "" } else { " --overwrite" };
        let rejects = format!(", {} rejected", count(rejected));
        let retry = format!(", `pointsman retry {number}{store_option}` processes the failed items again");
        let text = format!(
            "run {number} is complete, and there is nothing to do: {} completed, {} failed, {} skipped{} before; {out} \
             is unchanged. `pointsman report {number}{store_option}` shows its report{}, {new_run}{overwrite} processes \
             every item again",
            count(before.completed),
            count(before.failed),
            count(before.skipped),
            if rejected > 0 { &rejects } else { "" },
            if before.failed > 0 { &retry } else { "" },
        );
        let exit = if before.failed + rejected > 0 { Exit::ItemsFailed } else { Exit::Success };
        Some(self.mode.end(&text, exit))
    }

    /// Returns which items a run has not processed, besides those that are retried; `None` if there are none.
    pub(super) fn missing(&self, prepared: &PreparedRun) -> Option<String> {
        let number = prepared.id()?;
        let store_option = self.store_option();
        if !prepared.is_still_complete() {
            return Some(format!(
                "run {number} is not complete: `pointsman resume {number}{store_option}` resumes it"
            ));
        }
        unanswered(number, prepared.earlier_totals().failed, prepared.rejected_before(), &store_option)
    }

    /// Returns which items a run has not processed after a retry from the store, whose report covers only the
    /// retried items.
    pub(super) fn still_missing(&self, run: RunNumber) -> anyhow::Result<Option<String>> {
        self.pointsman.runtime().block_on(async {
            let store = self.url.open().await?.context("the store is gone")?;
            let known = store.run(run).await?;
            let failed = input_totals(&*store, &known).await?.failed;
            Ok(unanswered(run, failed, rejected_count(&known), &self.store_option()))
        })
    }
}

/// Returns which items of a complete run have no answer; `None` if all have one.
fn unanswered(run: RunNumber, failed: u64, rejected: u64, store_option: &str) -> Option<String> {
    let rejected = (rejected > 0).then(|| format!("{} of its input rejected", counted(rejected, "record")));
    let retry = format!("`pointsman retry {run}{store_option}` processes the failed items again");
    let failed = (failed > 0).then(|| format!("{} failed: {retry}", counted(failed, "item")));
    let parts: Vec<String> = [rejected, failed].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| format!("run {run} has {}", parts.join(" and ")))
}
