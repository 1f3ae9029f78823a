//! The number of attempts during an outage of the only provider.

use std::time::Duration;

use pointsman::simulator::{Fault, FaultKind, Settings};
use tokio::time::Instant;

use super::support::*;

/// A twentieth of the default durations: an outage of 3 s represents one of a minute.
const SCALED_CONFIG: &str = r#"
breaker = { open_duration = "250ms", max_open_duration = "500ms" }
limits = { concurrency = 4 }
"#;

const OUTAGE: Duration = Duration::from_secs(3);

/// Counts the attempts of 200 waiting requests during an outage of the only provider that represents one of a
/// minute.
async fn count_attempts_in_outage(kind: FaultKind) -> u64 {
    let simulator = start_simulator(Settings::default());
    // After the start of the simulator, whose clock the fault follows: else the outage would be longer.
    let start = Instant::now();
    let pointsman =
        start_pointsman(&format!("{QUICK_RETRY}{}", provider_config("a", &simulator, SCALED_CONFIG)));
    send_request(&pointsman, "default", "Does it work?").await.unwrap();
    let until = start.elapsed() + OUTAGE;
    simulator.set(Settings {
        faults: vec![Fault { until: Some(until), ..Fault::new(kind) }],
        ..Settings::default()
    });
    let results = send_requests(&pointsman, "default", 200).await;
    let lost: Vec<_> = results.iter().filter(|result| result.is_err()).collect();
    assert!(lost.is_empty(), "{kind:?}: {} lost, such as {:?}", lost.len(), lost[0]);
    simulator.counts().by_fault[&kind]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_costs_at_most_twelve_attempts_however_many_requests_wait() {
    for kind in [FaultKind::Reset, FaultKind::ServerError, FaultKind::Unavailable] {
        let attempts = count_attempts_in_outage(kind).await;
        assert!((3..=12).contains(&attempts), "{kind:?}: {attempts}");
    }
}
