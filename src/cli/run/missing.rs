//! Says what a run lacks, and which command mends it.

use anyhow::Context;

use super::Session;
use crate::cli::exit::Exit;
use crate::cli::kept::is_dash;
use crate::cli::next_command::NextCommand;
use crate::cli::status::{count, numbered};
use crate::run::{Ended, Report, sums_of_input};
use crate::runtime::{Kept, rejected_by};
use crate::store::RunNumber;

impl Session<'_> {
    /// Says what can be done about a run that has something left; also when it is to be quiet, where the run has paused.
    pub(super) fn say_what_next(&self, run: RunNumber, ended: &Report) {
        let next = NextCommand {
            run,
            url: &self.url,
            here: &self.here(),
            retry: self.going.retry.as_deref(),
            is_from_stdin: is_dash(&self.args.items),
        };
        let exit = if ended.ended == Ended::Paused { Exit::Paused } else { Exit::Done };
        if let Some(text) = next.of(ended) {
            self.mode.end(&text, exit);
        }
    }

    /// Says so when there is nothing to do.
    pub(super) fn nothing_left(&self, kept: &Kept) -> Option<Exit> {
        let number = kept.number().filter(|_| kept.nothing_left() && self.going.retry.is_none())?;
        let before = kept.before();
        let rejected = kept.rejected_before();
        let (out, here) = (self.args.out.display(), self.here());
        let rejects = format!(", {} rejected", count(rejected));
        let retry = format!(", `pointsman retry {number}{here}` asks again what failed");
        let text = format!(
            "run {number} is complete, and nothing is left of it: {} completed, {} failed, {} skipped{} before; {out} \
             is as it was written. `pointsman report {number}{here}` shows its report{}, --new asks everything again",
            count(before.completed),
            count(before.failed),
            count(before.skipped),
            if rejected > 0 { &rejects } else { "" },
            if before.failed > 0 { &retry } else { "" },
        );
        let exit = if before.failed + rejected > 0 { Exit::ItemsFailed } else { Exit::Done };
        Some(self.mode.end(&text, exit))
    }

    /// Says what a run lacks beside that which `retry` was asked for; `None` where it lacks nothing.
    pub(super) fn missing(&self, kept: &Kept) -> Option<String> {
        let (number, here) = (kept.number()?, self.here());
        if !kept.is_whole() {
            return Some(format!(
                "run {number} is not complete: `pointsman resume {number}{here}` goes on with it"
            ));
        }
        lacking(number, kept.before().failed, kept.rejected_before(), &here)
    }

    /// Says what a run lacks after failed items were asked again that came from the store: the report is theirs alone.
    pub(super) fn still_missing(&self, run: RunNumber) -> anyhow::Result<Option<String>> {
        self.pointsman.runtime().block_on(async {
            let store = self.url.open().await?.context("the store is gone")?;
            let known = store.run(run).await?;
            let failed = sums_of_input(&*store, &known).await?.failed;
            Ok(lacking(run, failed, rejected_by(&known), &self.here()))
        })
    }
}

/// Says what of a complete run has no answer; `None` where nothing has none.
fn lacking(run: RunNumber, failed: u64, rejected: u64, here: &str) -> Option<String> {
    let rejected = (rejected > 0).then(|| format!("{} of its input rejected", numbered(rejected, "piece")));
    let retry = format!("`pointsman retry {run}{here}` asks again what failed");
    let failed = (failed > 0).then(|| format!("{} failed: {retry}", numbered(failed, "item")));
    let lacking: Vec<String> = [rejected, failed].into_iter().flatten().collect();
    (!lacking.is_empty()).then(|| format!("run {run} has {}", lacking.join(" and ")))
}
