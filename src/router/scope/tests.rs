use std::num::{NonZeroU32, NonZeroU64};
use std::pin::pin;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{advance, timeout};

use super::*;
use crate::guard::BudgetScope;
use crate::provider::{DispatchSignal, Dispatched, UnreportedUsage};
use crate::types::{AttemptLog, Completion, NanoUsd, Spend, TargetName, Tokens};

const HOUR: Duration = Duration::from_hours(1);

fn new_scope(settings: &ScopeSettings) -> Arc<Scope> {
    Arc::new(Scope::new("team-a".into(), settings, None))
}

fn per_minute(requests: u64) -> ScopeSettings {
    ScopeSettings::new().with_requests_per_minute(NonZeroU64::new(requests).unwrap())
}

fn at_once(requests: u32) -> ScopeSettings {
    ScopeSettings::new().with_concurrency(NonZeroU32::new(requests).unwrap())
}

fn request(priority: Priority) -> AdmissionRequest {
    AdmissionRequest { priority, deadline: Some(Instant::now() + HOUR), ..AdmissionRequest::default() }
}

async fn admit(scope: &Arc<Scope>) -> ScopePermit {
    scope.admit(request(Priority::Batch)).await.unwrap()
}

fn response(input: u64, output: u64) -> Response {
    let usage = Usage::new(Tokens(input), Tokens(output));
    Response {
        completion: Completion { usage: Some(usage), ..Completion::new("yes") },
        target: TargetName::new("a", "m"),
        simulated: false,
        cost: None,
        attempts: Default::default(),
        resends: 0,
    }
}

#[tokio::test(start_paused = true)]
async fn requests_are_admitted_at_the_rate_of_the_scope() {
    let scope = new_scope(&per_minute(60));
    let began = Instant::now();
    let admitted = join_all((0..31).map(|_| async {
        drop(admit(&scope).await);
        began.elapsed().as_secs()
    }));
    let seconds = admitted.await;
    assert_eq!(seconds, (0..31).collect::<Vec<_>>());
    assert_eq!(scope.load(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_is_dropped_admits_the_next_request_and_batch_goes_after_interactive() {
    let scope = new_scope(&at_once(1));
    let permit = admit(&scope).await;
    let mut batch = pin!(scope.admit(request(Priority::Batch)));
    assert!((&mut batch).now_or_never().is_none());
    let mut interactive = pin!(scope.admit(request(Priority::Interactive)));
    assert!((&mut interactive).now_or_never().is_none());
    assert_eq!(scope.load(), (2, 1));
    drop(permit);
    assert!((&mut batch).now_or_never().is_none());
    let permit = (&mut interactive).now_or_never().unwrap().unwrap();
    assert!((&mut batch).now_or_never().is_none());
    drop(permit);
    drop(batch.now_or_never().unwrap().unwrap());
    assert_eq!(scope.load(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_and_a_wait_beyond_the_deadline_are_refused_at_once_with_the_expected_wait() {
    let scope = new_scope(&per_minute(60).with_queue(NonZeroU32::new(2).unwrap()));
    drop(admit(&scope).await);
    let began = Instant::now();
    let impatient = AdmissionRequest {
        deadline: Some(began + Duration::from_millis(500)),
        ..AdmissionRequest::default()
    };
    let refused = scope.admit(impatient).await.unwrap_err();
    let message = "scope team-a is at its limits, and the deadline is sooner than the expected wait of 1 s";
    assert_eq!((&*refused.message, refused.retry_after), (message, Some(Duration::from_secs(1))));
    let mut first = pin!(scope.admit(request(Priority::Batch)));
    let mut second = pin!(scope.admit(request(Priority::Batch)));
    assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
    let refused = scope.admit(request(Priority::Batch)).await.unwrap_err();
    assert_eq!(&*refused.message, "scope team-a has 2 requests waiting (queue = 2): expected wait 3 s");
    let limit = (Class::RateLimit, Some(Cause::ConfiguredLimit), Some(Duration::from_secs(3)));
    assert_eq!((refused.class, refused.cause, refused.retry_after), limit);
    assert_eq!(began.elapsed(), Duration::ZERO);
    // Those of runs have no deadline, and the queue of each priority has a bound of its own.
    let of_run = AdmissionRequest::default();
    assert!(scope.admit(of_run).now_or_never().is_none());
    assert!(scope.admit(request(Priority::Interactive)).now_or_never().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_waiting_request_that_is_dropped_leaves_no_trace_and_the_next_one_is_woken() {
    let scope = new_scope(&at_once(1));
    let permit = admit(&scope).await;
    let mut waiting: Vec<_> = (0..3).map(|_| Box::pin(scope.admit(request(Priority::Batch)))).collect();
    for request in &mut waiting {
        assert!(request.now_or_never().is_none());
    }
    drop(permit);
    // It was woken, and has not been polled since.
    drop(waiting.remove(0));
    assert_eq!(scope.load(), (2, 0));
    let second = waiting.remove(0).now_or_never().unwrap().unwrap();
    drop(waiting);
    assert_eq!(scope.load(), (0, 1));
    drop(second);
    assert_eq!(scope.load(), (0, 0));
    assert!(scope.admit(request(Priority::Batch)).now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn the_wait_ends_when_the_caller_stops_or_the_deadline_passes() {
    let scope = new_scope(&at_once(1));
    let permit = admit(&scope).await;
    let stop = watch::Sender::new(false);
    let stopping = AdmissionRequest { stop: Some(StopSignal::new(&stop)), ..request(Priority::Batch) };
    let mut stopping = pin!(scope.admit(stopping));
    let soon = Instant::now() + Duration::from_secs(5);
    let mut impatient = pin!(scope.admit(AdmissionRequest { deadline: Some(soon), ..Default::default() }));
    assert!((&mut stopping).now_or_never().is_none() && (&mut impatient).now_or_never().is_none());
    stop.send_replace(true);
    assert_eq!(stopping.await.unwrap_err().class, Class::Cancelled);
    assert_eq!(impatient.await.unwrap_err().class, Class::Deadline);
    assert!(Instant::now() >= soon && soon.elapsed() < Duration::from_millis(5));
    assert_eq!(scope.load(), (0, 1));
    drop(permit);
}

#[tokio::test(start_paused = true)]
async fn reserved_tokens_are_replaced_by_the_used_ones_and_returned_if_nothing_was_sent() {
    let settings = ScopeSettings::new().with_tokens_per_minute(NonZeroU64::new(60_000).unwrap());
    let scope = new_scope(&settings);
    let reserve = |tokens| scope.admit(AdmissionRequest { tokens, ..request(Priority::Batch) });
    let failed = |failure: Failure| Err(Box::new(RequestError::from(failure)));
    let none_free = || reserve(900).now_or_never().is_none();
    // The burst is 900 tokens.
    let permit = reserve(900).await.unwrap();
    assert!(none_free());
    permit.settle(&failed(Failure::new(Class::ApiError, "no")));
    let permit = reserve(900).now_or_never().unwrap().unwrap();
    permit.settle(&Ok(response(100, 20)));
    assert!(none_free());
    advance(Duration::from_millis(121)).await;
    let permit = reserve(900).now_or_never().unwrap().unwrap();
    permit.settle(&failed(Failure::new(Class::Timeout, "no").maybe_charged()));
    assert!(none_free());
    // The mean of the answers is reserved, and at most the limit of the request.
    let prompt = Prompt::text("How late is it?");
    let input = prompt_tokens(&prompt);
    assert_eq!(scope.tokens_of(&prompt), input + 20);
    assert_eq!(scope.tokens_of(&prompt.with_max_tokens(5)), input + 5);
    assert_eq!(new_scope(&at_once(1)).tokens_of(&Prompt::text("How late is it?")), 0);
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_is_dropped_in_a_panic_returns_its_slot() {
    let scope = new_scope(&at_once(1));
    let permit = admit(&scope).await;
    let task = tokio::runtime::Handle::current().spawn(async move {
        let _held = permit;
        panic!("the request panics");
    });
    assert!(task.await.is_err());
    assert_eq!(scope.load(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn waiting_requests_fail_when_the_cap_of_the_scope_or_of_their_run_is_reached() {
    let of_scope = SharedBudget::for_day(BudgetScope::Scope("team-a".into()), NanoUsd(100));
    let scope = Arc::new(Scope::new("team-a".into(), &at_once(1), Some(of_scope.clone())));
    let permit = admit(&scope).await;
    let of_run = SharedBudget::for_run(Some(NanoUsd(100)), Spend::default(), false);
    let capped = AdmissionRequest { budget: Some(of_run.clone()), ..request(Priority::Batch) };
    let mut capped = pin!(scope.admit(capped));
    let mut other = pin!(scope.admit(request(Priority::Batch)));
    assert!((&mut capped).now_or_never().is_none() && (&mut other).now_or_never().is_none());
    of_run.reserve(NanoUsd(200)).unwrap_err();
    assert!(capped.await.unwrap_err().message.starts_with("the run's cap"));
    // More than is left reaches the cap.
    of_scope.settle(NanoUsd(0), &"a".into(), Spend { cost: NanoUsd(101), ..Spend::default() }, false);
    drop(permit);
    assert_eq!(other.now_or_never().unwrap().unwrap_err().class, Class::Budget);
    assert_eq!(scope.admit(request(Priority::Batch)).await.unwrap_err().class, Class::Budget);
    assert_eq!(scope.load(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_request_with_a_huge_limit_blocks_its_scope_for_at_most_a_minute() {
    let settings = ScopeSettings::new().with_tokens_per_minute(NonZeroU64::new(10_000).unwrap());
    let began = Instant::now();
    let scope = new_scope(&settings);
    let prompt = Prompt::text("How late is it?").with_max_tokens(4_000_000_000);
    assert_eq!(scope.tokens_of(&prompt), prompt_tokens(&prompt) + 500);
    drop(scope.admit(AdmissionRequest { tokens: 4_000_000_000, ..request(Priority::Batch) }).await.unwrap());
    drop(scope.admit(AdmissionRequest { tokens: 500, ..request(Priority::Batch) }).await.unwrap());
    // Timers have a resolution of a millisecond.
    assert!(began.elapsed() <= Duration::from_millis(60_002), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn embeddings_do_not_lower_the_expected_output() {
    let settings = ScopeSettings::new().with_tokens_per_minute(NonZeroU64::new(60_000).unwrap());
    let scope = new_scope(&settings);
    let prompt = Prompt::text("How late is it?");
    admit(&scope).await.settle(&Ok(response(10, 40)));
    let expected = prompt_tokens(&prompt) + 40;
    assert_eq!(scope.tokens_of(&prompt), expected);
    let mut vectors = response(10, 0);
    vectors.completion.embeddings = vec![[0.5].into()];
    admit(&scope).await.settle(&Ok(vectors));
    assert_eq!(scope.tokens_of(&prompt), expected);
}

/// The log of a request with one call, of which 3,000 tokens have been received.
fn log_with_received_call() -> Arc<LiveLog> {
    let usage = UnreportedUsage::default();
    usage.record_output(9_000);
    let signal = Arc::new(DispatchSignal::new());
    let dispatched = Dispatched { at: Instant::now(), number: 1, key: "k".into(), usage: Arc::new(usage) };
    assert!(signal.try_dispatch(dispatched));
    let live_log = LiveLog::default();
    live_log.add_call(&TargetName::new("a", "m"), false, &signal);
    Arc::new(live_log)
}

#[tokio::test(start_paused = true)]
async fn a_request_of_unknown_use_counts_with_what_was_received_of_its_calls() {
    let settings = ScopeSettings::new().with_tokens_per_minute(NonZeroU64::new(60_000).unwrap());
    // The seconds until a burst of 900 tokens is admitted: what was used, at 1,000 tokens a second.
    let used = async |end: &dyn Fn(ScopePermit)| {
        let scope = new_scope(&settings);
        let tokens = AdmissionRequest { tokens: 100, ..request(Priority::Batch) };
        let mut permit = scope.admit(tokens).await.unwrap();
        assert!(permit.has_tokens());
        permit.observe(log_with_received_call());
        end(permit);
        let now = Instant::now();
        let ready = scope.lock().limiter.expected_at(Default::default(), 900, now);
        (ready - now).as_secs_f64().round() as u64
    };
    assert_eq!(used(&drop::<ScopePermit>).await, 3);
    let aborted = |usage: Option<Usage>| {
        let failure = Failure::new(Class::Timeout, "no").maybe_charged().with_usage(usage);
        let attempt = new_attempt(usage, Outcome::Failed(Box::new(failure.clone())));
        Err(Box::new(RequestError { attempts: AttemptLog(vec![attempt]), ..failure.into() }))
    };
    assert_eq!(used(&|permit| permit.settle(&aborted(None))).await, 3);
    // Known usage counts alone.
    let known = Some(Usage::new(Tokens(900), Tokens(100)));
    assert_eq!(used(&|permit| permit.settle(&aborted(known))).await, 1);
    assert_eq!(used(&|permit| permit.settle(&Ok(response(1_900, 100)))).await, 2);
}

fn new_attempt(usage: Option<Usage>, outcome: Outcome) -> Attempt {
    Attempt {
        target: TargetName::new("a", "m"),
        key: None,
        queue_time: Duration::ZERO,
        duration: Duration::ZERO,
        first_token: None,
        usage,
        cost: None,
        cache_savings: None,
        uncertain_cost: NanoUsd(0),
        forced: false,
        hedged: false,
        counted_elsewhere: false,
        reasoning: None,
        outcome,
    }
}

#[test]
fn attempts_of_unknown_usage_count_with_what_was_reserved_next_to_known_ones() {
    let attempt = |usage: Option<u64>, outcome: Outcome| {
        new_attempt(usage.map(|tokens| Usage::new(Tokens(tokens), Tokens(0))), outcome)
    };
    let timeout = || Outcome::Failed(Box::new(Failure::new(Class::Timeout, "no").maybe_charged()));
    let free = || Outcome::Failed(Box::new(Failure::new(Class::RateLimit, "no")));
    let tokens = |attempts: &[Attempt]| tokens_of_attempts(attempts, 7, 100);
    let hedged = [attempt(Some(30), Outcome::Answered), attempt(None, Outcome::Superseded)];
    assert_eq!(tokens(&hedged), Some(130));
    let all = [attempt(None, timeout()), attempt(None, timeout()), attempt(None, free())];
    assert_eq!(tokens(&all), Some(200));
    assert_eq!(tokens(&[attempt(None, Outcome::Answered), attempt(Some(5), timeout())]), Some(12));
    assert_eq!((tokens(&[attempt(None, free())]), tokens(&[])), (None, None));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_must_not_wait_fails_at_once_with_the_expected_wait() {
    let scope = new_scope(&per_minute(60));
    let at_once = || AdmissionRequest { when_limited: WhenLimited::Fail, ..request(Priority::Batch) };
    drop(scope.admit(at_once()).now_or_never().unwrap().unwrap());
    let refused = scope.admit(at_once()).now_or_never().unwrap().unwrap_err();
    assert_eq!(&*refused.message, "scope team-a is at its limits: expected wait 1 s");
    let limit = (Class::RateLimit, Some(Cause::ConfiguredLimit), Some(Duration::from_secs(1)));
    assert_eq!((refused.class, refused.cause, refused.retry_after), limit);
    assert_eq!(scope.load(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_library_request_waits_one_turn_for_a_run_and_the_probe_of_a_run_goes_first() {
    let scope = new_scope(&at_once(1));
    let run = RunId::next();
    let of_run = || AdmissionRequest { run, ..AdmissionRequest::default() };
    let permit = admit(&scope).await;
    let mut waiting: Vec<_> = (0..100).map(|_| Box::pin(scope.admit(of_run()))).collect();
    assert!(waiting.iter_mut().all(|request| request.now_or_never().is_none()));
    let probe = AdmissionRequest { place: QueuePlace::Front, ..of_run() };
    let mut probe = pin!(scope.admit(probe));
    assert!((&mut probe).now_or_never().is_none());
    // It is expected after two turns, so its deadline of four seconds suffices.
    let soon = Instant::now() + Duration::from_secs(4);
    let of_library = AdmissionRequest { deadline: Some(soon), ..AdmissionRequest::default() };
    let mut of_library = pin!(scope.admit(of_library));
    assert!((&mut of_library).now_or_never().is_none());
    let shown = scope.wait_of(run).unwrap();
    assert_eq!((&*shown.limit, shown.requests, shown.requests_of_scope), ("1 request at once", 101, 102));
    assert_eq!(scope.wait_of(RunId::next()), None);
    drop(permit);
    let permit = (&mut probe).now_or_never().unwrap().unwrap();
    assert!(waiting.iter_mut().all(|request| request.now_or_never().is_none()));
    assert!((&mut of_library).now_or_never().is_none());
    drop(permit);
    let permit = (&mut of_library).now_or_never().unwrap().unwrap();
    drop(permit);
    drop(waiting.remove(0).now_or_never().unwrap().unwrap());
    drop(waiting);
    assert_eq!(scope.load(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn all_waiting_requests_of_a_run_fail_when_its_cap_is_reached_and_only_the_first_checks_it() {
    let scope = new_scope(&at_once(1));
    let permit = admit(&scope).await;
    let of_run = SharedBudget::for_run(Some(NanoUsd(100)), Spend::default(), false);
    let run = RunId::next();
    let capped = || AdmissionRequest { run, budget: Some(of_run.clone()), ..AdmissionRequest::default() };
    let mut waiting: Vec<_> = (0..50).map(|_| Box::pin(scope.admit(capped()))).collect();
    assert!(waiting.iter_mut().all(|request| request.now_or_never().is_none()));
    let mut second = waiting.remove(1);
    assert!(timeout(BUDGET_CHECK_INTERVAL * 2, futures_util::future::pending::<()>()).await.is_err());
    of_run.reserve(NanoUsd(200)).unwrap_err();
    let woken = futures_util::task::noop_waker();
    let mut context = std::task::Context::from_waker(&woken);
    assert!(second.as_mut().poll(&mut context).is_pending(), "it has no timer");
    let began = Instant::now();
    waiting.insert(1, second);
    let failed = join_all(waiting).await;
    assert!(began.elapsed() <= BUDGET_CHECK_INTERVAL, "{:?}", began.elapsed());
    assert!(failed.iter().all(|result| result.as_ref().unwrap_err().class == Class::Budget));
    drop(permit);
    assert_eq!(scope.load(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn only_scopes_with_limits_or_a_budget_are_known() {
    let of_scope = SharedBudget::for_day(BudgetScope::Scope("paid".into()), NanoUsd(100));
    let limited: ScopeName = "limited".into();
    let budgets = BTreeMap::from([("paid".into(), of_scope)]);
    let scopes = Scopes::new([(&limited, &at_once(1))], &budgets);
    let known = |name: &str| {
        let scope = scopes.get(&name.into())?;
        Some((scope.is_limited(), scope.budget().is_some()))
    };
    assert_eq!(known("limited"), Some((true, false)));
    assert_eq!(known("paid"), Some((false, true)));
    assert_eq!([known("other"), known("")], [None, None]);
}
