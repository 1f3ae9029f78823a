//! An outage of the preferred of two providers: all requests are still answered.

use std::collections::VecDeque;
use std::time::Duration;

use pointsman::Pointsman;
use pointsman::router::Request;
use pointsman::simulator::{Fault, FaultKind, Settings, Simulator};
use pointsman::types::{Attempt, Outcome, RequestError, Response};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};

use super::rows::{OutageKind, Row};
use super::score::Measured;
use super::setup::{SimulatorHost, start};

/// Interval between two requests.
const REQUEST_INTERVAL: Duration = Duration::from_secs(4);
/// Time before the outage.
const WARM_UP: Duration = Duration::from_secs(12);
/// Maximum wait for the first call after the outage, and then for the last response.
const MAX_WAIT: Duration = Duration::from_secs(180);

type RequestResult = Result<Response, Box<RequestError>>;

/// The result of a request, and its duration.
type TimedResult = (RequestResult, Duration);

/// Summary of the requests.
struct Summary {
    /// Failed calls to the first provider.
    failed: u64,
    /// Requests without a response.
    lost: u64,
    /// Duration of the slowest request, in seconds.
    slowest: f64,
}

pub(crate) async fn measure(host: &SimulatorHost, row: &Row, kind: OutageKind) -> anyhow::Result<Measured> {
    let first = host.start_simulator(row)?;
    let second = host.start_simulator(row)?;
    let pointsman = start(row, &first, Some(&second))?;
    let mut requests = VecDeque::new();
    send_requests_for(WARM_UP, &pointsman, &mut requests).await;
    let address = first.addr();
    let settings = first.settings();
    let unavailable = start_outage(first, kind);
    send_requests_for(host.measured_for, &pointsman, &mut requests).await;
    // Counted before the provider is available again.
    let calls_in_outage = unavailable.as_ref().map(|first| first.counts().by_fault.values().sum::<u64>());
    let first = match unavailable {
        Some(first) => {
            first.set(settings);
            first.reset();
            first
        }
        None => host.start_simulator_at(settings, address)?,
    };
    let seconds = recovery_seconds(&first, &pointsman, &mut requests).await;
    let Summary { failed, lost, slowest } = summarize(requests).await;
    Ok(Measured {
        used: None,
        refused: None,
        // A stopped provider counts nothing. Its calls are counted by the attempt logs.
        calls: calls_in_outage.unwrap_or(failed),
        lost,
        seconds: Some(seconds),
        slowest: Some(slowest),
        attempts: None,
    })
}

fn start_outage(first: Simulator, kind: OutageKind) -> Option<Simulator> {
    match kind {
        OutageKind::Silent => {
            first.set(Settings { faults: vec![Fault::new(FaultKind::Silent)], ..first.settings() });
            Some(first)
        }
        OutageKind::ConnectionRefused => None,
    }
}

/// Sends a request every interval for `duration`.
async fn send_requests_for(
    duration: Duration,
    pointsman: &Pointsman,
    requests: &mut VecDeque<JoinHandle<TimedResult>>,
) {
    let end = Instant::now() + duration;
    while Instant::now() < end {
        requests.push_back(send_request(pointsman, requests.len()));
        sleep(REQUEST_INTERVAL.min(end - Instant::now())).await;
    }
}

fn send_request(pointsman: &Pointsman, number: usize) -> JoinHandle<TimedResult> {
    let request = Request::new("default", format!("Is request {number} answered?"));
    let client = pointsman.clone();
    let started = Instant::now();
    pointsman.runtime().spawn(async move { (client.send(request).await, started.elapsed()) })
}

/// Continues sending requests, and returns the seconds until the restored provider admits a call.
async fn recovery_seconds(
    first: &Simulator,
    pointsman: &Pointsman,
    requests: &mut VecDeque<JoinHandle<TimedResult>>,
) -> f64 {
    let restored_at = Instant::now();
    while restored_at.elapsed() < MAX_WAIT {
        requests.push_back(send_request(pointsman, requests.len()));
        let next = Instant::now() + REQUEST_INTERVAL;
        while Instant::now() < next {
            if first.counts().admitted > 0 {
                return restored_at.elapsed().as_secs_f64();
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    f64::INFINITY
}

async fn summarize(requests: VecDeque<JoinHandle<TimedResult>>) -> Summary {
    let end = Instant::now() + MAX_WAIT;
    let mut summary = Summary { failed: 0, lost: 0, slowest: 0.0 };
    for request in requests {
        let Ok(Ok((result, took))) = timeout_at(end, request).await else {
            summary.lost += 1;
            summary.slowest = f64::INFINITY;
            continue;
        };
        summary.slowest = summary.slowest.max(took.as_secs_f64());
        summary.lost += u64::from(result.is_err());
        let attempts = match &result {
            Ok(response) => &response.attempts,
            Err(error) => &error.attempts,
        };
        summary.failed += attempts.0.iter().filter(|attempt| failed_at_first(attempt)).count() as u64;
    }
    summary
}

fn failed_at_first(attempt: &Attempt) -> bool {
    attempt.target.provider.as_str() == "first" && matches!(attempt.outcome, Outcome::Failed(_))
}
