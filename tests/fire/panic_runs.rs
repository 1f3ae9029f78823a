//! Shared by the tests of this binary: restarts without delay, runs that write a file, and a silent panic hook.

use std::collections::HashSet;
use std::panic;
use std::path::Path;
use std::sync::Once;

use pointsman::chaos::point_counts;
use pointsman::run::{Report, RunOutput};
use pointsman::runtime::Pointsman;
use pointsman::sink::{Destination, Format, Sink};
use pointsman::source::Source;
use serde::Deserialize;

/// A restart budget that is never exhausted, with almost no delay.
pub(crate) const UNLIMITED_RESTARTS: &str = "
[supervisor]
router_restarts = 1_000_000
provider_restarts = 1_000_000
run_restarts = 1_000_000
backoff = \"1ms\"
max_backoff = \"2ms\"
";

/// Retries with almost no delay.
pub(crate) const FAST_RETRIES: &str = "[retry]\ninitial_backoff = \"5ms\"\nmax_backoff = \"20ms\"\n";

/// A pipeline of one step, whose prompt differs for each item.
pub(crate) const STEP: &str = "[[step]]\nname = \"word\"\nprompt = \"A word about {{ item.id }}.\"\n";

/// Installs a panic hook that does not print planned panics.
pub(crate) fn silence_planned_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let default_hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !info.payload_as_str().is_some_and(|text| text.starts_with("planned")) {
                default_hook(info);
            }
        }));
    });
}

/// Returns the number of planned panics so far.
pub(crate) fn panic_count() -> u64 {
    point_counts().values().map(|count| count.panics).sum()
}

/// The fields of an output line that the tests use.
#[derive(Debug, Deserialize)]
pub(crate) struct OutputLine {
    pub(crate) key: String,
    pub(crate) status: String,
}

/// A finished run.
pub(crate) struct PanicRun {
    pub(crate) report: Report,
    pub(crate) lines: Vec<OutputLine>,
}

impl PanicRun {
    /// Returns the number of distinct items with an output line.
    pub(crate) fn distinct_keys(&self) -> usize {
        self.lines.iter().map(|line| line.key.as_str()).collect::<HashSet<_>>().len()
    }

    pub(crate) fn completed(&self) -> usize {
        self.lines.iter().filter(|line| line.status == "completed").count()
    }
}

/// Starts a run of `items` items through [`STEP`], which writes to a file in `folder`.
pub(crate) async fn start_items(
    pointsman: &Pointsman,
    folder: &Path,
    items: usize,
) -> pointsman::runtime::RunHandle {
    let pipeline = pointsman.parse_pipeline(&format!("name = \"fire\"\n{STEP}")).unwrap();
    let destination = Destination::file(folder.join("out.jsonl"), &[]).unwrap();
    let sink = Sink::results(destination, Format::Jsonl, &["word".into()]).unwrap();
    let values = (0..items).map(|number| serde_json::json!({ "id": format!("item-{number}") }));
    pointsman.run(pipeline, Source::values("items", values), RunOutput::new(sink)).await.unwrap()
}

/// Reads the output of a run. An incomplete line fails the test.
pub(crate) fn read_lines(folder: &Path) -> Vec<OutputLine> {
    let text = std::fs::read_to_string(folder.join("out.jsonl")).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is incomplete");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs `items` items and waits for the report.
pub(crate) async fn run_items(pointsman: &Pointsman, items: usize) -> PanicRun {
    let folder = tempfile::tempdir().unwrap();
    let report = start_items(pointsman, folder.path(), items).await.report().await.unwrap();
    PanicRun { report, lines: read_lines(folder.path()) }
}
