//! A provider that is down for a while, and how soon it is used after its return.

use std::time::Duration;

use pointsman::simulator::{Fault, FaultKind, Settings};
use tokio::time::Instant;

use super::stage::*;

/// A twentieth of the default times: an outage of 3 s stands for one of a minute.
const SCALED: &str = r#"
breaker = { pause = "250ms", max_open_duration = "500ms" }
limits = { concurrency = 4 }
"#;

const OUTAGE: Duration = Duration::from_secs(3);

/// Counts the attempts that 200 waiting questions make while their only provider is down for the time that stands for a
/// minute.
async fn attempts_in(kind: FaultKind) -> u64 {
    let began = Instant::now();
    let simulator = play(Settings::default());
    let pointsman = start(&format!("{QUICK_RETRY}{}", provider("a", &simulator, SCALED)));
    ask(&pointsman, "default", "Does it work?").await.unwrap();
    let until = began.elapsed() + OUTAGE;
    simulator.set(Settings {
        faults: vec![Fault { until: Some(until), ..Fault::new(kind) }],
        ..Settings::default()
    });
    let answers = ask_many(&pointsman, "default", 200).await;
    let lost: Vec<_> = answers.iter().filter(|answer| answer.is_err()).collect();
    assert!(lost.is_empty(), "{kind:?}: {} lost, such as {:?}", lost.len(), lost[0]);
    simulator.counts().by_fault[&kind]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_costs_a_dozen_attempts_however_many_questions_wait() {
    for kind in [FaultKind::Reset, FaultKind::ServerError, FaultKind::Unavailable] {
        let attempts = attempts_in(kind).await;
        assert!((3..=12).contains(&attempts), "{kind:?}: {attempts}");
    }
}
