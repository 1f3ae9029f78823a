use super::*;
use crate::provider::TargetHealth;

fn scheduler(limits: &str) -> Scheduler {
    let text = format!("base_url = 'http://127.0.0.1:9'\nmodels.any = {{}}\nlimits = {{ {limits} }}");
    let settings: Settings = toml::from_str(&text).unwrap();
    let now = Instant::now();
    let keys = Keys::new(settings.format, &[], settings.rotate_every, now).unwrap();
    Scheduler::new(&settings, keys, now)
}

fn pending(breaker_token: BreakerToken, sent_at: Instant) -> PendingAttempt {
    PendingAttempt { sent_at, breaker_token, step: None, signal: None }
}

#[test]
fn capacity_is_small_when_a_minute_admits_few_calls() {
    let now = Instant::now();
    let mut few = scheduler("tokens_per_minute = 30_000");
    // Already before the first call: otherwise a whole window of items would wait beyond its deadline.
    assert!(few.capacity(Duration::MAX, now) <= 5, "{}", few.capacity(Duration::MAX, now));
    for target in few.targets.values_mut() {
        target.set_mean_input(20_000.0);
    }
    assert!(few.capacity(Duration::MAX, now) <= 3, "{}", few.capacity(Duration::MAX, now));
    assert_eq!(scheduler("concurrency = 64").capacity(Duration::MAX, now), 66);
    assert_eq!(scheduler("requests_per_minute = 600").capacity(Duration::MAX, now), 51);
}

#[test]
fn a_target_without_responses_is_degraded_until_it_responds_and_one_slow_call_is_not_enough() {
    let mut scheduler = scheduler("concurrency = 64");
    let start = Instant::now();
    let model = ModelName::from("any");
    let second = Duration::from_secs(1);
    let target = scheduler.targets.get_mut(&model).unwrap();
    let token = target.breaker.admit(start, false).unwrap();
    target.add_pending(1, pending(token, start));
    assert_eq!(scheduler.detect_unresponsive(fastrand::f64, start + 9 * second), []);
    assert_eq!(
        scheduler.detect_unresponsive(fastrand::f64, start + 10 * second),
        std::slice::from_ref(&model)
    );
    assert_eq!(scheduler.health_of(&model, start + 10 * second), TargetHealth::Degraded);
    let target = scheduler.targets.get_mut(&model).unwrap();
    target.record_response(1, start + 11 * second);
    assert_eq!(scheduler.health_of(&model, start + 11 * second), TargetHealth::Healthy);
    // One of two calls gets a response: the other is slow, and the target is healthy.
    let target = scheduler.targets.get_mut(&model).unwrap();
    for number in [2, 3] {
        let token = target.breaker.admit(start + 12 * second, false).unwrap();
        target.add_pending(number, pending(token, start + 12 * second));
    }
    target.record_response(2, start + 13 * second);
    assert_eq!(scheduler.detect_unresponsive(fastrand::f64, start + 40 * second), []);
}

#[test]
fn a_target_is_unresponsive_after_three_late_cancelled_calls_without_a_response() {
    let mut scheduler = scheduler("concurrency = 64");
    let start = Instant::now();
    let model = ModelName::from("any");
    let second = Duration::from_secs(1);
    let cancel = |scheduler: &mut Scheduler, number: u64, sent_at: Instant, after: Duration| {
        let target = scheduler.targets.get_mut(&model).unwrap();
        let token = target.breaker.admit(sent_at, true).unwrap();
        target.add_pending(number, pending(token, sent_at));
        target.record_cancelled(number, fastrand::f64, sent_at + after);
        target.breaker.trip_reason()
    };
    // Until latencies are known, cancelled calls prove nothing.
    assert_eq!((0..9).filter_map(|number| cancel(&mut scheduler, number, start + second, second)).count(), 0);
    (0..20).for_each(|_| scheduler.latencies(&model).unwrap().record(second));
    // Neither does a call that was cancelled early, nor a series with a response in between.
    assert_eq!(
        (0..9).filter_map(|number| cancel(&mut scheduler, number, start + second, second / 2)).count(),
        0
    );
    assert_eq!([1, 2].map(|number| cancel(&mut scheduler, number, start + second, second)), [None; 2]);
    scheduler.targets.get_mut(&model).unwrap().record_response(3, start + 2 * second);
    let later = start + 3 * second;
    assert_eq!([4, 5].map(|number| cancel(&mut scheduler, number, later, second)), [None; 2]);
    assert_eq!(cancel(&mut scheduler, 6, later, second), Some(TripReason::Unresponsive));
    // A cancelled probe is further evidence, and one response ends the state.
    let probed = later + 60 * second;
    cancel(&mut scheduler, 7, probed, second);
    assert_eq!(scheduler.health_of(&model, probed + second), TargetHealth::Degraded);
    let recovers_at = scheduler.recovers_at(probed + second).unwrap();
    assert_eq!(scheduler.health_of(&model, recovers_at - Duration::from_nanos(1)), TargetHealth::Degraded);
    assert_eq!(scheduler.health_of(&model, recovers_at), TargetHealth::Healthy);
    scheduler.targets.get_mut(&model).unwrap().record_response(7, probed + 2 * second);
    assert_eq!(scheduler.health_of(&model, probed + 2 * second), TargetHealth::Healthy);
    assert_eq!(scheduler.recovers_at(probed + 2 * second), None);
}

#[test]
fn a_long_whole_response_is_no_sign_of_an_unresponsive_target() {
    let text = "base_url = 'http://127.0.0.1:9'\nmodels.any = {}\nstream = 'never'";
    let settings: Settings = toml::from_str(text).unwrap();
    let start = Instant::now();
    let keys = Keys::new(settings.format, &[], settings.rotate_every, start).unwrap();
    let mut scheduler = Scheduler::new(&settings, keys, start);
    let model = ModelName::from("any");
    let second = Duration::from_secs(1);
    let send = |scheduler: &mut Scheduler, number: u64, sent_at: Instant| {
        let target = scheduler.targets.get_mut(&model).unwrap();
        let token = target.breaker.admit(sent_at, true).unwrap();
        target.add_pending(number, pending(token, sent_at));
    };
    // Before enough answers are known, no time without headers is long.
    send(&mut scheduler, 1, start);
    assert_eq!(scheduler.detect_unresponsive(fastrand::f64, start + 599 * second), []);
    for number in 2..6 {
        send(&mut scheduler, number, start);
        let target = scheduler.targets.get_mut(&model).unwrap();
        target.record_cancelled(number, fastrand::f64, start + 300 * second);
    }
    let target = scheduler.targets.get_mut(&model).unwrap();
    assert_eq!((target.breaker.trip_reason(), target.min_silence(None, second)), (None, None));
    // Then a call may take twice as long as the longest answer, even if most are short.
    (0..20).for_each(|_| scheduler.latencies(&model).unwrap().record(second));
    let target = scheduler.targets.get_mut(&model).unwrap();
    target.record_response(1, start + 600 * second);
    target.step_latencies.record(None, 30 * second);
    (0..30).for_each(|_| target.step_latencies.record(None, second));
    assert_eq!(target.min_silence(None, second), Some(60 * second));
    let later = start + 700 * second;
    send(&mut scheduler, 9, later);
    for number in 10..14 {
        send(&mut scheduler, number, later);
        let target = scheduler.targets.get_mut(&model).unwrap();
        target.record_cancelled(number, fastrand::f64, later + 59 * second);
    }
    assert_eq!(scheduler.detect_unresponsive(fastrand::f64, later + 59 * second), []);
    let found = scheduler.detect_unresponsive(fastrand::f64, later + 60 * second);
    assert_eq!(found, std::slice::from_ref(&model));
}

#[test]
fn a_requested_wait_determines_when_the_target_is_healthy_again() {
    let mut scheduler = scheduler("requests_per_minute = 600");
    let now = Instant::now();
    let model = ModelName::from("any");
    scheduler.limits.hold(now + Duration::from_secs(9));
    assert_eq!(scheduler.health_of(&model, now), TargetHealth::Degraded);
    let recovers_at = scheduler.recovers_at(now).unwrap();
    assert_eq!(recovers_at, now + Duration::from_secs(7));
    assert_eq!(scheduler.health_of(&model, recovers_at), TargetHealth::Healthy);
}

#[test]
fn a_forced_call_waits_for_the_concurrency_limit_and_a_probe_does_not() {
    let text = "base_url = 'http://127.0.0.1:9'\nmodels.any = {}\nmodels.other = {}\nmax_concurrency = 1";
    let settings: Settings = toml::from_str(text).unwrap();
    let now = Instant::now();
    let keys = Keys::new(settings.format, &[], settings.rotate_every, now).unwrap();
    let mut scheduler = Scheduler::new(&settings, keys, now);
    let target = scheduler.targets.get_mut("any").unwrap();
    let token = target.breaker.admit(now, false).unwrap();
    target.breaker.record_unresponsive(token, now, now, 0.5);
    let due = target.breaker.open_until(now).unwrap();
    scheduler.in_flight = 1;
    let call = |only_option_now| Call {
        prompt: Arc::new(crate::types::Prompt::text("Hello")),
        model: "any".into(),
        priority: crate::types::Priority::Batch,
        context: crate::types::RequestContext::default(),
        is_retry: false,
        only_option_now,
        only_option: true,
        excluded_keys: Vec::new(),
        dispatch_signal: None,
        stream: None,
        budget: None,
        scope_budget: None,
        memory: crate::guard::HeldMemory::default(),
        trace: crate::telemetry::CallTrace::default(),
        deadline: now + Duration::from_secs(60),
    };
    // A call with another option is rejected by the breaker at once and does not wait.
    assert_eq!(
        [true, false].map(|only_option_now| scheduler.must_wait_for_slot(&call(only_option_now), now)),
        [true, false]
    );
    assert!(!scheduler.must_wait_for_slot(&call(true), due));
}

#[test]
fn capacity_is_larger_when_calls_end_faster_than_the_queue_is_refilled() {
    let now = Instant::now();
    let capacity = |milliseconds: f64| {
        let mut scheduler = scheduler("concurrency = { min = 64, max = 64 }");
        scheduler.mean_latency.update(milliseconds / 1000.0);
        scheduler.capacity(Duration::MAX, now)
    };
    assert_eq!([1_000.0, 100.0, 10.0, 2.0, 0.0].map(capacity), [99, 105, 162, 258, 258]);
}

#[test]
fn capacity_is_limited_to_calls_that_can_be_sent_in_time() {
    let scheduler = scheduler("requests_per_minute = 600");
    let now = Instant::now();
    // A burst of nine, and ten per second for half of the five seconds that each call has.
    assert_eq!(scheduler.capacity(Duration::from_secs(5), now), 36);
}

#[test]
fn after_a_failure_no_call_is_sent_while_the_calls_in_flight_could_open_the_breaker() {
    let mut scheduler = scheduler("concurrency = 64");
    let now = Instant::now();
    let limits = RateLimiter::new(&crate::guard::RateLimits::default(), now);
    let target = scheduler.targets.get_mut("any").unwrap();
    let tokens: Vec<_> = (0..5).map(|_| target.breaker.admit(now, false).unwrap()).collect();
    assert!(target.can_dispatch(&limits, false, now), "nothing has failed");
    target.breaker.record_failure(tokens[0], now, 0.5);
    target.start_failure_hold(now, now);
    // One has failed and four are in flight: together as many as open the breaker.
    assert!(!target.can_dispatch(&limits, false, now));
    // The calls in flight may hang, so the hold ends after a second.
    assert!(target.can_dispatch(&limits, false, now + Duration::from_secs(1)));
    assert_eq!(target.next_check_at(), Some(now + Duration::from_secs(1)));
    target.breaker.record_success(tokens[1], now);
    target.breaker.record_failure(tokens[2], now, 0.5);
    target.start_failure_hold(now, now);
    assert!(
        target.can_dispatch(&limits, false, now),
        "two are in flight and one has failed since the answer"
    );
}

#[test]
fn after_all_calls_in_flight_have_failed_only_as_many_are_sent_as_open_the_breaker() {
    let mut scheduler = scheduler("concurrency = 4");
    let now = Instant::now();
    let limits = RateLimiter::new(&crate::guard::RateLimits::default(), now);
    let target = scheduler.targets.get_mut("any").unwrap();
    let tokens: Vec<_> = (0..4).map(|_| target.breaker.admit(now, false).unwrap()).collect();
    for token in tokens {
        target.breaker.record_failure(token, now, 0.5);
        target.start_failure_hold(now, now);
    }
    assert!(target.can_dispatch(&limits, false, now), "four failures do not open it");
    assert_eq!(target.next_check_at(), None, "nothing is held");
    target.breaker.admit(now, false).unwrap();
    assert!(!target.can_dispatch(&limits, false, now), "the fifth may be the last that is needed");
}

#[test]
fn a_failure_of_a_call_that_was_sent_before_an_accepted_one_causes_no_hold() {
    let mut scheduler = scheduler("concurrency = 64");
    let sent_at = Instant::now();
    let limits = RateLimiter::new(&crate::guard::RateLimits::default(), sent_at);
    let target = scheduler.targets.get_mut("any").unwrap();
    let tokens: Vec<_> = (0..5).map(|_| target.breaker.admit(sent_at, false).unwrap()).collect();
    let accepted = sent_at + Duration::from_secs(1);
    let failed = sent_at + Duration::from_secs(2);
    target.record_accepted(accepted, accepted + Duration::from_millis(100));
    target.breaker.record_failure(tokens[0], failed, 0.5);
    target.start_failure_hold(sent_at, failed);
    assert!(target.can_dispatch(&limits, false, failed));
    target.breaker.record_failure(tokens[1], failed, 0.5);
    target.start_failure_hold(accepted, failed);
    assert!(!target.can_dispatch(&limits, false, failed), "it was not sent before the accepted one");
}
