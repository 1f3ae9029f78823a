//! The runs of a daemon, page by page.

use serde::Deserialize;

use crate::run::RunSummary;
use crate::store::RunNumber;

use super::error::RemoteError;
use super::requests::Remote;
use super::server_url::path_segment;
use super::views::RunView;

/// How many runs are read at once.
const PAGE_RUNS: u32 = 100;

/// A page of a list of runs.
#[derive(Debug, Deserialize)]
struct Page {
    runs: Vec<RunView>,
    next_cursor: Option<String>,
}

impl Remote {
    /// Returns the runs for which `wanted` is true, the newest first, until it has `max` of them. With `with_summary`, each
    /// has its counts and its cost.
    pub(in crate::cli) fn runs(
        &self,
        max: usize,
        with_summary: bool,
        wanted: impl Fn(&RunView) -> bool,
    ) -> Result<Vec<RunView>, RemoteError> {
        let mut runs = Vec::new();
        let mut cursor = String::new();
        loop {
            let page: Page = self.get(&format!("/runs?limit={PAGE_RUNS}&summary={with_summary}{cursor}"))?;
            let free = max - runs.len();
            runs.extend(page.runs.into_iter().filter(&wanted).take(free));
            match page.next_cursor.filter(|_| runs.len() < max) {
                Some(next) => cursor = format!("&cursor={}", path_segment(&next)),
                None => return Ok(runs),
            }
        }
    }

    /// Returns all runs, the newest first, as lists show them.
    pub(in crate::cli) fn summaries(&self) -> Result<Vec<RunSummary>, RemoteError> {
        let runs = self.runs(usize::MAX, true, |_| true)?;
        Ok(runs.into_iter().filter_map(|run| run.summary).collect())
    }

    /// Returns a run.
    pub(in crate::cli) fn run(&self, run: RunNumber) -> Result<RunView, RemoteError> {
        self.get(&format!("/runs/{run}"))
    }
}
