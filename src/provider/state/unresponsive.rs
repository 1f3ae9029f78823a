//! Calls that are queued or in flight at a model that becomes unresponsive.

use std::collections::VecDeque;

use tokio::time::sleep;

use super::tests::call;
use super::*;
use crate::guard::TripReason;
use crate::provider::admission::decision::{NextCall, ReadyCall};
use crate::provider::admission::grant::SendTime;
use crate::provider::admission::queued_call::IncomingCall;
use crate::provider::{Call, CallReceiver, Rejection};
use crate::supervisor::Responder as ReplyTo;
use crate::types::{Class, Completion, RequestContext, StepName, Tokens, Usage};

const SECOND: Duration = Duration::from_secs(1);

/// A provider with one model and these limits.
pub(super) fn limited(limits: &str) -> Arc<State> {
    let text = format!("base_url = 'http://127.0.0.1:9'\nmodels.m = {{}}\nlimits = {{ {limits} }}");
    let settings: Settings = toml::from_str(&text).unwrap();
    let base_url = settings.base_url.clone().unwrap();
    let headers = HeaderMap::new();
    let name = "a".into();
    let keys = Vec::new();
    let budgets = Vec::new();
    State::new(Account { name, settings, base_url, keys, headers, budgets }, Handle::current()).unwrap()
}

/// Queues a call that may go elsewhere, or not.
pub(super) fn enqueue_call(state: &State, has_others: bool, step: Option<&str>) -> CallReceiver {
    let (responder, receiver) = ReplyTo::channel();
    let context = RequestContext { step: step.map(StepName::from), ..RequestContext::default() };

    let call = Call {
        only_option_now: !has_others,
        only_option: !has_others,
        context,
        ..call(Duration::from_secs(600))
    };
    let requested_at = Instant::now();
    state.enqueue(IncomingCall { call, responder, requested_at }, requested_at);
    receiver
}

/// Sends all calls that are ready.
fn send_ready(state: &Arc<State>) -> VecDeque<ReadyCall> {
    let mut ready_calls = VecDeque::new();
    while let NextCall::Ready(ready) = state.next(Instant::now()) {
        ready_calls.push_back(*ready);
    }
    let sent = SendTime { at: Instant::now(), queue_time: Duration::ZERO };
    ready_calls.iter_mut().for_each(|ready| ready.permit.mark_sent(sent));
    ready_calls
}

pub(super) fn answer(ready: ReadyCall, took: Duration) {
    ready.permit.on_headers(&RateLimitHeaders::default(), true);
    let usage = Usage { input: Tokens(9), output: Tokens(9), ..Usage::default() };
    let result = Ok(Completion { usage: Some(usage), ..Completion::default() });
    ready.permit.finish(&CallOutcome { result: &result, took, first_token: Some(took) });
}

pub(super) fn fail(ready: ReadyCall, class: Class, took: Duration) {
    let result = Err(Failure::new(class, "as planned"));
    ready.permit.finish(&CallOutcome { result: &result, took, first_token: None });
}

/// Advances the time as the provider's actor does: with one sweep a second. Returns the calls that were sent.
async fn advance(state: &Arc<State>, seconds: u32) -> VecDeque<ReadyCall> {
    let mut ready_calls = VecDeque::new();
    for _ in 0..seconds {
        sleep(SECOND).await;
        state.sweep(Instant::now());
        ready_calls.extend(send_ready(state));
    }
    ready_calls
}

fn trouble(state: &State) -> Option<TripReason> {
    state.lock().targets["m"].breaker.trip_reason()
}

fn queued_calls(state: &State) -> usize {
    state.lock().queue.len()
}

#[actix_web::test]
async fn calls_queued_for_a_model_that_becomes_unresponsive_are_rejected_at_once() {
    tokio::time::pause();
    let state = limited("concurrency = 2");
    let others: Vec<CallReceiver> = (0..6).map(|_| enqueue_call(&state, true, None)).collect();
    let _only_option = enqueue_call(&state, false, None);
    let _hang = send_ready(&state);
    assert!(advance(&state, 9).await.is_empty());
    assert_eq!(queued_calls(&state), 5);
    assert!(advance(&state, 1).await.is_empty());
    assert_eq!(
        (trouble(&state), queued_calls(&state)),
        (Some(TripReason::Unresponsive), 1),
        "only the call without another target stays"
    );
    let rejected = others.into_iter().skip(2);
    for receiver in rejected {
        assert!(matches!(receiver.await.unwrap(), Err(Rejection::BreakerOpen { until: Some(_) })));
    }
    // Nor does a call that arrives while the probe is in flight.
    let _probe = advance(&state, 6).await;
    assert_eq!(queued_calls(&state), 0);
    let late = enqueue_call(&state, true, None);
    assert!(matches!(late.await.unwrap(), Err(Rejection::BreakerOpen { until: None })));
}

#[actix_web::test]
async fn a_call_that_was_queued_while_no_other_target_was_healthy_is_evicted_after_a_while() {
    tokio::time::pause();
    let state = limited("concurrency = 1");
    let _first = enqueue_call(&state, false, None);
    let _hang = send_ready(&state);
    assert!(advance(&state, 11).await.is_empty());
    let (responder, receiver) = ReplyTo::channel();
    let call = Call { only_option_now: true, only_option: false, ..call(Duration::from_secs(600)) };
    let requested_at = Instant::now();
    state.enqueue(IncomingCall { call, responder, requested_at }, requested_at);
    // The first of these seconds ends before the breaker's pause does.
    state.lock().targets.get_mut("m").unwrap().breaker.extend_open_until(requested_at + 60 * SECOND);
    assert!(advance(&state, 4).await.is_empty());
    assert_eq!(queued_calls(&state), 1);
    assert!(advance(&state, 1).await.is_empty());
    assert!(matches!(receiver.await.unwrap(), Err(Rejection::BreakerOpen { .. })));
}

#[actix_web::test]
async fn calls_that_hang_do_not_count_once_a_later_call_is_answered() {
    tokio::time::pause();
    let state = limited("concurrency = { min = 1, start = 8, max = 8 }");
    let _receivers: Vec<CallReceiver> = (0..40).map(|_| enqueue_call(&state, false, None)).collect();
    let mut out = send_ready(&state);
    for _ in 0..8 {
        answer(out.pop_front().unwrap(), SECOND);
    }
    let hang = send_ready(&state);
    assert_eq!(hang.len(), 8);
    // Only probes are sent meanwhile, at most ten seconds apart.
    let mut probes = advance(&state, 60).await;
    assert!((4..=6).contains(&probes.len()), "{}", probes.len());
    let left: Vec<Instant> = probes.iter().map(|probe| probe.queued.requested_at).collect();
    assert_eq!(left.len(), probes.len());
    // The provider has recovered: the next probe is answered at once.
    let probe = advance(&state, 11).await.pop_front().unwrap();
    answer(probe, SECOND);
    assert_eq!(trouble(&state), None);
    let mut answered = 0;
    let mut rounds = 0;
    while queued_calls(&state) > 0 {
        let left = send_ready(&state);
        assert!(!left.is_empty(), "{} calls wait behind hung calls, after {answered}", queued_calls(&state));
        sleep(SECOND).await;
        answered += left.len();
        left.into_iter().for_each(|ready| answer(ready, SECOND));
        rounds += 1;
    }
    assert!(rounds <= 6, "{rounds} rounds for {answered}");
    // The end of the hung calls says nothing about now.
    let limit = state.lock().targets["m"].concurrency.limit();
    probes.extend(hang);
    for ready in probes {
        fail(ready, Class::Timeout, 120 * SECOND);
    }
    let inner = state.lock();
    let target = &inner.targets["m"];
    assert_eq!((target.concurrency.limit(), target.breaker.trip_reason()), (limit, None));
    assert_eq!((inner.in_flight, target.concurrency.in_flight(), target.concurrency.active()), (0, 0, 0));
}

#[actix_web::test]
async fn a_hung_call_with_a_late_response_counts_again() {
    tokio::time::pause();
    let state = limited("concurrency = 1");
    let _receivers: Vec<CallReceiver> = (0..3).map(|_| enqueue_call(&state, false, None)).collect();
    let hung = send_ready(&state).pop_front().unwrap();
    let probe = advance(&state, 16).await.pop_front().unwrap();
    answer(probe, SECOND);
    let counted = || state.lock().targets["m"].concurrency.active();
    assert_eq!(counted(), 0);
    hung.permit.on_headers(&RateLimitHeaders::default(), true);
    assert_eq!(counted(), 1);
    assert!(send_ready(&state).is_empty());
    answer(hung, 17 * SECOND);
    assert_eq!((counted(), send_ready(&state).len()), (0, 1));
}

#[actix_web::test]
async fn a_model_is_not_unresponsive_while_a_step_with_slow_answers_is_in_flight() {
    tokio::time::pause();
    let state = limited("concurrency = 64");
    for _ in 0..100 {
        let _short = enqueue_call(&state, false, Some("short"));
        answer(send_ready(&state).pop_front().unwrap(), SECOND / 5);
    }
    // Its first answers begin after 15 s; at the end those of the short step have waited without a response.
    for _ in 0..30 {
        let _long: Vec<CallReceiver> = (0..4).map(|_| enqueue_call(&state, false, Some("long"))).collect();
        let out = send_ready(&state);
        assert!(advance(&state, 15).await.is_empty());
        assert_eq!(trouble(&state), None);
        out.into_iter().for_each(|ready| answer(ready, 15 * SECOND));
    }
    let _short = enqueue_call(&state, false, Some("short"));
    let _hangs = send_ready(&state);
    advance(&state, 5).await;
    assert_eq!(trouble(&state), Some(TripReason::Unresponsive));
}

#[actix_web::test]
async fn a_model_that_does_not_exist_is_only_probed_after_three_refusals() {
    tokio::time::pause();
    let state = limited("concurrency = 2");
    let refuse = |ready: ReadyCall| {
        ready.permit.on_headers(&RateLimitHeaders::default(), false);
        let failure = Failure { status: Some(404), ..Failure::new(Class::NotFound, "no such model") };
        ready.permit.finish(&CallOutcome { result: &Err(failure), took: SECOND, first_token: None });
    };
    for number in 0..3 {
        assert_eq!(trouble(&state), None, "after {number}");
        let _receiver = enqueue_call(&state, true, None);
        refuse(send_ready(&state).pop_front().unwrap());
    }
    let refused = enqueue_call(&state, true, None).await.unwrap();
    assert!(
        matches!(&refused, Err(Rejection::ModelNotFound(why)) if why.class == Class::NotFound),
        "{refused:?}"
    );
    let outage = state.outage(&"m".into(), SECOND, Instant::now()).unwrap();
    assert!(!outage.can_recover);
    // Each probe is refused, too; they are seconds apart.
    let mut probes = 0;
    for _ in 0..60 {
        sleep(SECOND).await;
        let _receiver = enqueue_call(&state, true, None);
        for ready in send_ready(&state) {
            probes += 1;
            refuse(ready);
        }
    }
    assert!((5..=8).contains(&probes), "{probes}");
    sleep(10 * SECOND).await;
    let _receiver = enqueue_call(&state, true, None);
    answer(send_ready(&state).pop_front().unwrap(), SECOND);
    assert_eq!(trouble(&state), None);
    // Once the target has answered, the request is refused.
    for _ in 0..20 {
        let _receiver = enqueue_call(&state, true, None);
        refuse(send_ready(&state).pop_front().unwrap());
    }
    assert_eq!(trouble(&state), None);
}

#[actix_web::test]
async fn an_outage_by_a_requested_wait_shows_the_message_of_the_provider() {
    tokio::time::pause();
    let state = limited("concurrency = 2");
    let outage = |state: &State| state.outage(&"m".into(), SECOND, Instant::now()).unwrap().failure;
    for (class, message, shown) in [
        (Class::Overloaded, "down for maintenance", "down for maintenance"),
        (Class::RateLimit, "slow down", "the provider asked to wait"),
        (Class::ServerError, "a restart", "a restart"),
    ] {
        let _receiver = enqueue_call(&state, false, None);
        let ready = send_ready(&state).pop_front().unwrap();
        let failure = Failure { retry_after: Some(900 * SECOND), ..Failure::new(class, message) };
        ready.permit.finish(&CallOutcome { result: &Err(failure), took: SECOND, first_token: None });
        assert_eq!((outage(&state).class, &*outage(&state).message), (class, shown));
        sleep(1_000 * SECOND).await;
    }
}
