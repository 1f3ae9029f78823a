//! What becomes of calls that wait for, or are out at, a model that says nothing.

use std::collections::VecDeque;

use tokio::time::sleep;

use super::tests::call;
use super::*;
use crate::guard::Trouble;
use crate::provider::Awaited;
use crate::types::{Asker, Class, Reply, StepName, Tokens, Usage};

const SECOND: Duration = Duration::from_secs(1);

/// A provider with one model, and these limits.
pub(super) fn limited(limits: &str) -> Arc<State> {
    let text = format!("base_url = 'http://127.0.0.1:9'\nmodels.m = {{}}\nlimits = {{ {limits} }}");
    let settings: Settings = toml::from_str(&text).unwrap();
    let (base_url, headers) = (settings.base_url.clone().unwrap(), HeaderMap::new());
    let (name, keys, purses) = ("a".into(), Vec::new(), Vec::new());
    State::new(Account { name, settings, base_url, keys, headers, purses }, Handle::current()).unwrap()
}

/// Lets a call come that may go elsewhere, or not.
pub(super) fn comes(state: &State, has_others: bool, step: Option<&str>) -> Awaited {
    let (reply, awaited) = ReplyTo::awaited();
    let asker = Asker { step: step.map(StepName::from), ..Asker::default() };
    let (alone, stay) = (!has_others, !has_others);
    let call = Call { alone, stay, asker, ..call(Duration::from_secs(600)) };
    let asked = Instant::now();
    state.enqueue(Arrival { call, reply, asked }, asked);
    awaited
}

/// Lets all leave that may.
fn leave(state: &Arc<State>) -> VecDeque<Departure> {
    let mut left = VecDeque::new();
    while let Next::Leave(departure) = state.next(Instant::now()) {
        left.push_back(*departure);
    }
    left.iter_mut().for_each(|departure| departure.permit.leaves());
    left
}

pub(super) fn answers(departure: Departure, took: Duration) {
    departure.permit.heard(&Hints::default(), true);
    let usage = Usage { input: Tokens(9), output: Tokens(9), ..Usage::default() };
    let result =
        Ok(Reply { text: String::new(), usage: Some(usage), model: String::new(), request_id: None });
    departure.permit.settle(&Ended { result: &result, took, began: true });
}

pub(super) fn fails(departure: Departure, class: Class, took: Duration) {
    let result = Err(Failure::new(class, "as planned"));
    departure.permit.settle(&Ended { result: &result, took, began: false });
}

/// Lets time pass as the actor of the provider does: it looks once a second. Returns what left.
async fn passes(state: &Arc<State>, seconds: u32) -> VecDeque<Departure> {
    let mut left = VecDeque::new();
    for _ in 0..seconds {
        sleep(SECOND).await;
        state.sweep(Instant::now());
        left.extend(leave(state));
    }
    left
}

fn trouble(state: &State) -> Option<Trouble> {
    state.lock().lanes["m"].breaker.trouble()
}

fn waiting(state: &State) -> usize {
    state.lock().queue.len()
}

#[actix_web::test]
async fn what_waits_for_a_model_that_falls_silent_goes_elsewhere_at_once() {
    tokio::time::pause();
    let state = limited("concurrency = 2");
    let others: Vec<Awaited> = (0..6).map(|_| comes(&state, true, None)).collect();
    let _alone = comes(&state, false, None);
    let _hang = leave(&state);
    assert!(passes(&state, 9).await.is_empty());
    assert_eq!(waiting(&state), 5);
    assert!(passes(&state, 1).await.is_empty());
    assert_eq!(
        (trouble(&state), waiting(&state)),
        (Some(Trouble::Silence), 1),
        "only the one without another stays"
    );
    let refused = others.into_iter().skip(2);
    for waiting in refused {
        assert!(matches!(waiting.await.unwrap(), Err(Refused::Open { until: Some(_) })));
    }
    // Nor does one that comes while the probe is under way.
    let _probe = passes(&state, 6).await;
    assert_eq!(waiting(&state), 0);
    let late = comes(&state, true, None);
    assert!(matches!(late.await.unwrap(), Err(Refused::Open { until: None })));
}

#[actix_web::test]
async fn a_call_that_came_while_no_other_target_was_well_looks_elsewhere_after_a_while() {
    tokio::time::pause();
    let state = limited("concurrency = 1");
    let _first = comes(&state, false, None);
    let _hang = leave(&state);
    assert!(passes(&state, 11).await.is_empty());
    let (reply, awaited) = ReplyTo::awaited();
    let call = Call { alone: true, stay: false, ..call(Duration::from_secs(600)) };
    let asked = Instant::now();
    state.enqueue(Arrival { call, reply, asked }, asked);
    // The first of these seconds ends before the pause of the breaker does.
    state.lock().lanes.get_mut("m").unwrap().breaker.not_before(asked + 60 * SECOND);
    assert!(passes(&state, 4).await.is_empty());
    assert_eq!(waiting(&state), 1);
    assert!(passes(&state, 1).await.is_empty());
    assert!(matches!(awaited.await.unwrap(), Err(Refused::Open { .. })));
}

#[actix_web::test]
async fn calls_that_hang_take_no_room_once_a_later_one_was_answered() {
    tokio::time::pause();
    let state = limited("concurrency = { min = 1, start = 8, max = 8 }");
    let _askers: Vec<Awaited> = (0..40).map(|_| comes(&state, false, None)).collect();
    let mut out = leave(&state);
    for _ in 0..8 {
        answers(out.pop_front().unwrap(), SECOND);
    }
    let hang = leave(&state);
    assert_eq!(hang.len(), 8);
    // Nothing but probes leaves meanwhile, at most ten seconds apart.
    let mut probes = passes(&state, 60).await;
    assert!((4..=6).contains(&probes.len()), "{}", probes.len());
    let left: Vec<Instant> = probes.iter().map(|probe| probe.waiting.asked).collect();
    assert_eq!(left.len(), probes.len());
    // The provider is back: the next probe is answered at once.
    let probe = passes(&state, 11).await.pop_front().unwrap();
    answers(probe, SECOND);
    assert_eq!(trouble(&state), None);
    let mut answered = 0;
    let mut rounds = 0;
    while waiting(&state) > 0 {
        let left = leave(&state);
        assert!(!left.is_empty(), "{} wait behind calls that hang, after {answered}", waiting(&state));
        sleep(SECOND).await;
        answered += left.len();
        left.into_iter().for_each(|departure| answers(departure, SECOND));
        rounds += 1;
    }
    assert!(rounds <= 6, "{rounds} rounds for {answered}");
    // The end of those that hung says nothing of now.
    let limit = state.lock().lanes["m"].concurrency.limit();
    probes.extend(hang);
    for departure in probes {
        fails(departure, Class::Timeout, 120 * SECOND);
    }
    let inner = state.lock();
    let lane = &inner.lanes["m"];
    assert_eq!((lane.concurrency.limit(), lane.breaker.trouble()), (limit, None));
    assert_eq!((inner.in_flight, lane.concurrency.in_flight(), lane.concurrency.counted()), (0, 0, 0));
}

#[actix_web::test]
async fn a_call_that_hung_and_has_a_word_after_all_takes_its_room_again() {
    tokio::time::pause();
    let state = limited("concurrency = 1");
    let _askers: Vec<Awaited> = (0..3).map(|_| comes(&state, false, None)).collect();
    let hung = leave(&state).pop_front().unwrap();
    let probe = passes(&state, 16).await.pop_front().unwrap();
    answers(probe, SECOND);
    let counted = || state.lock().lanes["m"].concurrency.counted();
    assert_eq!(counted(), 0);
    hung.permit.heard(&Hints::default(), true);
    assert_eq!(counted(), 1);
    assert!(leave(&state).is_empty());
    answers(hung, 17 * SECOND);
    assert_eq!((counted(), leave(&state).len()), (0, 1));
}

#[actix_web::test]
async fn a_model_is_not_silent_while_a_step_that_takes_long_to_begin_is_out() {
    tokio::time::pause();
    let state = limited("concurrency = 64");
    for _ in 0..100 {
        let _short = comes(&state, false, Some("short"));
        answers(leave(&state).pop_front().unwrap(), SECOND / 5);
    }
    // Its first answers begin after 15 s; at the end those of the short step have been waited for in vain.
    for _ in 0..30 {
        let _long: Vec<Awaited> = (0..4).map(|_| comes(&state, false, Some("long"))).collect();
        let out = leave(&state);
        assert!(passes(&state, 15).await.is_empty());
        assert_eq!(trouble(&state), None);
        out.into_iter().for_each(|departure| answers(departure, 15 * SECOND));
    }
    let _short = comes(&state, false, Some("short"));
    let _hangs = leave(&state);
    passes(&state, 5).await;
    assert_eq!(trouble(&state), Some(Trouble::Silence));
}

#[actix_web::test]
async fn a_model_that_does_not_exist_is_left_alone_after_three_refusals_and_probed() {
    tokio::time::pause();
    let state = limited("concurrency = 2");
    let refuse = |departure: Departure| {
        departure.permit.heard(&Hints::default(), false);
        let failure = Failure { status: Some(404), ..Failure::new(Class::NotFound, "no such model") };
        departure.permit.settle(&Ended { result: &Err(failure), took: SECOND, began: false });
    };
    for number in 0..3 {
        assert_eq!(trouble(&state), None, "after {number}");
        let _asks = comes(&state, true, None);
        refuse(leave(&state).pop_front().unwrap());
    }
    let refused = comes(&state, true, None).await.unwrap();
    assert!(matches!(&refused, Err(Refused::NoModel(why)) if why.class == Class::NotFound), "{refused:?}");
    let outage = state.outage(&"m".into(), SECOND, Instant::now()).unwrap();
    assert!(!outage.can_mend);
    // Each probe is refused, too; they are seconds apart.
    let mut probes = 0;
    for _ in 0..60 {
        sleep(SECOND).await;
        let _asks = comes(&state, true, None);
        for departure in leave(&state) {
            probes += 1;
            refuse(departure);
        }
    }
    assert!((5..=8).contains(&probes), "{probes}");
    sleep(10 * SECOND).await;
    let _asks = comes(&state, true, None);
    answers(leave(&state).pop_front().unwrap(), SECOND);
    assert_eq!(trouble(&state), None);
    // Once it has answered, it is the request that is refused.
    for _ in 0..20 {
        let _asks = comes(&state, true, None);
        refuse(leave(&state).pop_front().unwrap());
    }
    assert_eq!(trouble(&state), None);
}

#[actix_web::test]
async fn a_target_that_asks_to_wait_says_why_in_its_own_words() {
    tokio::time::pause();
    let state = limited("concurrency = 2");
    let outage = |state: &State| state.outage(&"m".into(), SECOND, Instant::now()).unwrap().failure;
    for (class, message, shown) in [
        (Class::Overloaded, "down for maintenance", "down for maintenance"),
        (Class::RateLimit, "slow down", "the provider asked to wait"),
        (Class::ServerError, "a restart", "a restart"),
    ] {
        let _asks = comes(&state, false, None);
        let departure = leave(&state).pop_front().unwrap();
        let failure = Failure { retry_after: Some(900 * SECOND), ..Failure::new(class, message) };
        departure.permit.settle(&Ended { result: &Err(failure), took: SECOND, began: false });
        assert_eq!((outage(&state).class, &*outage(&state).message), (class, shown));
        sleep(1_000 * SECOND).await;
    }
}
