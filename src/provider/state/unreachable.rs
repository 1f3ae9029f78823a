//! A provider in virtual time whose connections fail: a few at random, or all for a minute.

use futures_util::FutureExt;
use proptest::prelude::*;
use tokio::time::sleep_until;

use super::silent::{answers, comes, fails, limited};
use super::*;
use crate::guard::BreakerState;
use crate::provider::Awaited;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Calls that wait, are in flight or come again, at most.
const OUTSTANDING: usize = 60;

/// How a simulated call ends.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Answered(Duration),
    /// Its connection fails.
    Reset(Duration),
}

/// What came of a simulation.
#[derive(Debug, Default)]
struct Came {
    answered: usize,
    /// When connections failed, from the beginning.
    resets: Vec<Duration>,
    /// Times that the shared breaker opened.
    openings: usize,
    /// When the last answer came.
    ended: Duration,
}

/// Keeps some calls waiting until `wanted` of them were answered or `most` is over; each that fails is made once more,
/// half a second later. `fate` says how a call of a step ends that leaves so long after the beginning.
async fn simulate(
    state: &Arc<State>,
    steps: &[&str],
    (wanted, most): (usize, Duration),
    mut fate: impl FnMut(&str, Duration) -> Fate,
) -> Came {
    let began = Instant::now();
    let mut came = Came::default();
    let mut askers: Vec<(String, Awaited)> = Vec::new();
    let mut asked = 0;
    let mut due: Vec<(Instant, String)> = Vec::new();
    let mut out: Vec<(Instant, Fate, Departure)> = Vec::new();
    let mut next_sweep = began + SECOND;
    let mut was_open = false;
    while came.answered < wanted && began.elapsed() < most {
        while asked < wanted && askers.len() + due.len() < OUTSTANDING {
            let step = steps[asked % steps.len()];
            askers.push((step.to_owned(), comes(state, false, Some(step))));
            asked += 1;
        }
        let now = Instant::now();
        for (_, step) in due.extract_if(.., |(at, _)| *at <= now) {
            let awaited = comes(state, false, Some(&step));
            askers.push((step, awaited));
        }
        let wake = loop {
            match state.next(now) {
                Next::Leave(mut departure) => {
                    departure.permit.leaves();
                    let step = departure.waiting.call.asker.step.clone().unwrap();
                    let fate = fate(step.as_str(), now - began);
                    let (Fate::Answered(after) | Fate::Reset(after)) = fate;
                    out.push((now + after, fate, *departure));
                }
                Next::Wait(until) => break until,
                Next::Nothing => break next_sweep,
            }
        };
        let is_open = state.lock().door.state(now) != BreakerState::Closed;
        came.openings += usize::from(is_open && !was_open);
        was_open = is_open;
        // What is refused comes again, as the router sees to it.
        for (step, awaited) in std::mem::take(&mut askers) {
            let mut awaited = awaited;
            match (&mut awaited).now_or_never() {
                None => askers.push((step, awaited)),
                Some(Ok(Err(_))) => due.push((now + SECOND / 2, step)),
                Some(_) => {}
            }
        }
        let events = out.iter().map(|(at, ..)| *at).chain(due.iter().map(|(at, _)| *at));
        let first = events.chain([next_sweep, wake]).min().unwrap();
        sleep_until(first.max(now + MILLISECOND)).await;
        let now = Instant::now();
        for (_, fate, departure) in out.extract_if(.., |(at, ..)| *at <= now) {
            match fate {
                Fate::Answered(after) => {
                    answers(departure, after);
                    came.answered += 1;
                    came.ended = began.elapsed();
                }
                Fate::Reset(after) => {
                    came.resets.push(began.elapsed());
                    let step = departure.waiting.call.asker.step.clone().unwrap();
                    fails(departure, Class::NetworkError, after);
                    due.push((now + SECOND / 2, step.as_str().to_owned()));
                }
            }
        }
        if now >= next_sweep {
            state.sweep(now);
            next_sweep = now + SECOND;
        }
    }
    came
}

fn reset() -> Fate {
    Fate::Reset(MILLISECOND)
}

#[actix_web::test]
async fn two_requests_whose_connections_fail_keep_no_other_from_being_answered() {
    tokio::time::pause();
    for concurrency in [8, 32] {
        let state =
            limited(&format!("concurrency = {{ min = 1, start = {concurrency}, max = {concurrency} }}"));
        // The first two are reset whenever they are made; they come again twice a second.
        let mut steps = vec!["good"; concurrency * 40];
        steps[..2].fill("bad");
        let fate = |step: &str, _| if step == "bad" { reset() } else { Fate::Answered(SECOND / 5) };
        let came = simulate(&state, &steps, (steps.len(), 7 * SECOND), fate).await;
        assert!(came.answered > concurrency * 25, "{} answered", came.answered);
        assert_eq!(came.openings, 0, "with {concurrency} at once");
        assert!(came.resets.len() >= 6, "{}", came.resets.len());
    }
}

#[actix_web::test]
async fn an_outage_costs_a_dozen_connections_beside_those_in_flight_however_many_calls_wait() {
    tokio::time::pause();
    for concurrency in [1, 4, 32] {
        let state =
            limited(&format!("concurrency = {{ min = 1, start = {concurrency}, max = {concurrency} }}"));
        let (from, until) = (5 * SECOND, 65 * SECOND);
        let fate = |_: &str, at: Duration| match () {
            () if at >= until => Fate::Answered(SECOND),
            () if at >= from => reset(),
            // What was in flight when it began breaks off with it.
            () if at + SECOND > from => Fate::Reset(from - at),
            () => Fate::Answered(SECOND),
        };
        let came = simulate(&state, &["s"], (concurrency * 40, 400 * SECOND), fate).await;
        assert_eq!(came.answered, concurrency * 40, "with {concurrency} at once");
        assert!(came.resets.len() <= concurrency + 12, "{} with {concurrency} at once", came.resets.len());
        // Before, it was busy for five seconds; it is used within ten seconds of its return, and soon as before.
        let ideal = until + 35 * SECOND;
        assert!(came.ended <= ideal + 20 * SECOND, "{:?} with {concurrency} at once", came.ended);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_few_connections_that_fail_at_random_open_no_breaker_and_cost_little_time(
        seed in any::<u64>(),
        share in 0.0..0.06f64,
        concurrency in 8usize..40,
        long in 200u64..8_000,
    ) {
        let run = async {
            tokio::time::pause();
            let limits = format!("concurrency = {{ min = 1, start = {concurrency}, max = {concurrency} }}");
            let (state, mut random) = (limited(&limits), fastrand::Rng::with_seed(seed));
            let wanted = concurrency * 60;
            let long = Duration::from_millis(long);
            let fate = |step: &str, _| {
                let after = if step == "long" { long } else { SECOND / 5 };
                if random.f64() < share { Fate::Reset(MILLISECOND) } else { Fate::Answered(after) }
            };
            let came = simulate(&state, &["short", "long"], (wanted, 3_000 * SECOND), fate).await;
            (came, wanted, (long + SECOND / 5) * 30)
        };
        let (came, wanted, ideal) = actix_rt::System::new().block_on(run);
        prop_assert_eq!((came.answered, came.openings), (wanted, 0));
        // At the end some calls are waited for alone.
        let most = ideal.mul_f64(1.3) + Duration::from_millis(long) * 3 + 5 * SECOND;
        prop_assert!(came.ended <= most, "{:?} of {:?}", came.ended, ideal);
    }
}
