//! Simulations in virtual time of a provider whose connections fail: a few at random, or all for a minute.

use futures_util::FutureExt;
use proptest::prelude::*;
use tokio::time::sleep_until;

use super::unresponsive::{answer, enqueue_call, fail, limited};
use super::*;
use crate::guard::BreakerState;
use crate::provider::CallReceiver;
use crate::provider::admission::decision::{NextCall, ReadyCall};
use crate::provider::admission::grant::SendTime;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Maximum number of calls that are queued, in flight or due for a retry.
const OUTSTANDING: usize = 60;

/// How a simulated call ends.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Answered(Duration),
    /// Its connection fails.
    Reset(Duration),
}

/// The result of a simulation.
#[derive(Debug, Default)]
struct Outcome {
    answered: usize,
    /// When connections failed, since the start.
    resets: Vec<Duration>,
    /// How often the endpoint breaker opened.
    openings: usize,
    /// When the last answer arrived.
    ended: Duration,
}

/// Keeps some calls queued until `wanted` of them were answered or `max_time` has passed; each failed call is
/// retried once, half a second later. `fate` returns how a call of a step ends that is sent at this time since
/// the start.
async fn simulate(
    state: &Arc<State>,
    steps: &[&str],
    (wanted, max_time): (usize, Duration),
    mut fate: impl FnMut(&str, Duration) -> Fate,
) -> Outcome {
    let began = Instant::now();
    let mut result = Outcome::default();
    let mut receivers: Vec<(String, CallReceiver)> = Vec::new();
    let mut queued = 0;
    let mut retries: Vec<(Instant, String)> = Vec::new();
    let mut in_flight: Vec<(Instant, Fate, ReadyCall)> = Vec::new();
    let mut next_sweep = began + SECOND;
    let mut was_open = false;
    while result.answered < wanted && began.elapsed() < max_time {
        while queued < wanted && receivers.len() + retries.len() < OUTSTANDING {
            let step = steps[queued % steps.len()];
            receivers.push((step.to_owned(), enqueue_call(state, false, Some(step))));
            queued += 1;
        }
        let now = Instant::now();
        for (_, step) in retries.extract_if(.., |(at, _)| *at <= now) {
            let receiver = enqueue_call(state, false, Some(&step));
            receivers.push((step, receiver));
        }
        let wake = loop {
            match state.next(now) {
                NextCall::Ready(mut ready) => {
                    ready.permit.mark_sent(SendTime { at: now, queue_time: Duration::ZERO });
                    let step = ready.queued.call.context.step.clone().unwrap();
                    let fate = fate(step.as_str(), now - began);
                    let (Fate::Answered(after) | Fate::Reset(after)) = fate;
                    in_flight.push((now + after, fate, *ready));
                }
                NextCall::WaitUntil(until) => break until,
                NextCall::Idle => break next_sweep,
            }
        };
        let is_open = state.lock().endpoint_breaker.state(now) != BreakerState::Closed;
        result.openings += usize::from(is_open && !was_open);
        was_open = is_open;
        // A rejected call is queued again, as the router does.
        for (step, receiver) in std::mem::take(&mut receivers) {
            let mut receiver = receiver;
            match (&mut receiver).now_or_never() {
                None => receivers.push((step, receiver)),
                Some(Ok(Err(_))) => retries.push((now + SECOND / 2, step)),
                Some(_) => {}
            }
        }
        let events = in_flight.iter().map(|(at, ..)| *at).chain(retries.iter().map(|(at, _)| *at));
        let first = events.chain([next_sweep, wake]).min().unwrap();
        sleep_until(first.max(now + MILLISECOND)).await;
        let now = Instant::now();
        for (_, fate, ready) in in_flight.extract_if(.., |(at, ..)| *at <= now) {
            match fate {
                Fate::Answered(after) => {
                    answer(ready, after);
                    result.answered += 1;
                    result.ended = began.elapsed();
                }
                Fate::Reset(after) => {
                    result.resets.push(began.elapsed());
                    let step = ready.queued.call.context.step.clone().unwrap();
                    fail(ready, Class::NetworkError, after);
                    retries.push((now + SECOND / 2, step.as_str().to_owned()));
                }
            }
        }
        if now >= next_sweep {
            state.sweep(now);
            next_sweep = now + SECOND;
        }
    }
    result
}

fn reset() -> Fate {
    Fate::Reset(MILLISECOND)
}

#[actix_web::test]
async fn two_requests_whose_connections_fail_delay_no_other() {
    tokio::time::pause();
    for concurrency in [8, 32] {
        let state =
            limited(&format!("concurrency = {{ min = 1, start = {concurrency}, max = {concurrency} }}"));
        // The first two are reset whenever they are sent; they are retried twice a second.
        let mut steps = vec!["good"; concurrency * 40];
        steps[..2].fill("bad");
        let fate = |step: &str, _| if step == "bad" { reset() } else { Fate::Answered(SECOND / 5) };
        let result = simulate(&state, &steps, (steps.len(), 7 * SECOND), fate).await;
        assert!(result.answered > concurrency * 25, "{} answered", result.answered);
        assert_eq!(result.openings, 0, "with {concurrency} at once");
        assert!(result.resets.len() >= 6, "{}", result.resets.len());
    }
}

#[actix_web::test]
async fn an_outage_costs_a_dozen_connections_beside_those_in_flight_however_many_calls_are_queued() {
    tokio::time::pause();
    for concurrency in [1, 4, 32] {
        let state =
            limited(&format!("concurrency = {{ min = 1, start = {concurrency}, max = {concurrency} }}"));
        let from = 5 * SECOND;
        let until = 65 * SECOND;
        let fate = |_: &str, at: Duration| match () {
            () if at >= until => Fate::Answered(SECOND),
            () if at >= from => reset(),
            // Calls in flight at the start of the outage break off with it.
            () if at + SECOND > from => Fate::Reset(from - at),
            () => Fate::Answered(SECOND),
        };
        let result = simulate(&state, &["s"], (concurrency * 40, 400 * SECOND), fate).await;
        assert_eq!(result.answered, concurrency * 40, "with {concurrency} at once");
        assert!(
            result.resets.len() <= concurrency + 12,
            "{} with {concurrency} at once",
            result.resets.len()
        );
        // Before the outage, the provider was busy for five seconds; it is used again within ten seconds of its
        // recovery, and soon as much as before.
        let ideal = until + 35 * SECOND;
        assert!(result.ended <= ideal + 20 * SECOND, "{:?} with {concurrency} at once", result.ended);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_few_random_connection_failures_open_no_breaker_and_cost_little_time(
        seed in any::<u64>(),
        share in 0.0..0.06f64,
        concurrency in 8usize..40,
        long in 200u64..8_000,
    ) {
        let run = async {
            tokio::time::pause();
            let limits = format!("concurrency = {{ min = 1, start = {concurrency}, max = {concurrency} }}");
            let state = limited(&limits);
            let mut random = fastrand::Rng::with_seed(seed);
            let wanted = concurrency * 60;
            let long = Duration::from_millis(long);
            let fate = |step: &str, _| {
                let after = if step == "long" { long } else { SECOND / 5 };
                if random.f64() < share { Fate::Reset(MILLISECOND) } else { Fate::Answered(after) }
            };
            let result = simulate(&state, &["short", "long"], (wanted, 3_000 * SECOND), fate).await;
            (result, wanted, (long + SECOND / 5) * 30)
        };
        let (result, wanted, ideal) = actix_rt::System::new().block_on(run);
        prop_assert_eq!((result.answered, result.openings), (wanted, 0));
        // At the end some calls are waited for alone.
        let max_time = ideal.mul_f64(1.3) + Duration::from_millis(long) * 3 + 5 * SECOND;
        prop_assert!(result.ended <= max_time, "{:?} of {:?}", result.ended, ideal);
    }
}
