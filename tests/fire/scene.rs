//! What every test here needs: restarts without waits, runs into a file, and quiet panics.

use std::collections::HashSet;
use std::panic;
use std::path::Path;
use std::sync::Once;

use pointsman::chaos::passed;
use pointsman::run::{Output, Report};
use pointsman::runtime::Pointsman;
use pointsman::sink::{Format, Sink, Target};
use pointsman::source::Source;
use serde::Deserialize;

/// Restarts that are never too many and come at once.
pub(crate) const UNDAUNTED: &str = "
[supervisor]
router_restarts = 1_000_000
provider_restarts = 1_000_000
run_restarts = 1_000_000
pause = \"1ms\"
max_pause = \"2ms\"
";

/// Retries that hardly wait.
pub(crate) const AT_ONCE: &str = "[retry]\nbase = \"5ms\"\nmax = \"20ms\"\n";

/// One step; its prompt is another for each item.
pub(crate) const STEP: &str = "[[step]]\nname = \"word\"\nprompt = \"A word about {{ item.id }}.\"\n";

/// Shows no panic that was planned.
pub(crate) fn quiet() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !info.payload_as_str().is_some_and(|text| text.starts_with("planned")) {
                loud(info);
            }
        }));
    });
}

/// How many panics there have been, by plan.
pub(crate) fn panics() -> u64 {
    passed().values().map(|passed| passed.panics).sum()
}

/// What a test wants to know of a line of output.
#[derive(Debug, Deserialize)]
pub(crate) struct Written {
    pub(crate) key: String,
    pub(crate) status: String,
}

/// A run that is over.
pub(crate) struct Burnt {
    pub(crate) report: Report,
    pub(crate) lines: Vec<Written>,
}

impl Burnt {
    /// Returns how many different items have a line.
    pub(crate) fn keys(&self) -> usize {
        self.lines.iter().map(|line| line.key.as_str()).collect::<HashSet<_>>().len()
    }

    pub(crate) fn completed(&self) -> usize {
        self.lines.iter().filter(|line| line.status == "completed").count()
    }
}

/// Runs this many items through [`STEP`], into a file in `folder`.
pub(crate) async fn begin(
    pointsman: &Pointsman,
    folder: &Path,
    items: usize,
) -> pointsman::runtime::RunHandle {
    let pipeline = pointsman.parse_pipeline(&format!("name = \"fire\"\n{STEP}")).unwrap();
    let target = Target::file(folder.join("out.jsonl"), &[]).unwrap();
    let sink = Sink::results(target, Format::Jsonl, &["word".into()]).unwrap();
    let values = (0..items).map(|number| serde_json::json!({ "id": format!("item-{number}") }));
    pointsman.run(pipeline, Source::values("items", values), Output::new(sink)).await.unwrap()
}

/// Reads what a run has written; a line that is not whole fails the test.
pub(crate) fn read(folder: &Path) -> Vec<Written> {
    let text = std::fs::read_to_string(folder.join("out.jsonl")).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "the last line is torn");
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Runs this many items to their end.
pub(crate) async fn burn(pointsman: &Pointsman, items: usize) -> Burnt {
    let folder = tempfile::tempdir().unwrap();
    let report = begin(pointsman, folder.path(), items).await.report().await.unwrap();
    Burnt { report, lines: read(folder.path()) }
}
