use super::*;
use crate::guard::BudgetScope;
use crate::provider::admission::decision::NextCall;
use crate::provider::admission::grant::SendTime;
use crate::provider::admission::queued_call::IncomingCall;
use crate::provider::{Call, CallReceiver, Model, Rejection};
use crate::supervisor::Responder as ReplyTo;
use crate::types::{Class, NanoUsd, Priority, Prompt, RequestContext, RunId, Spend};

/// A provider whose calls are queued by hand and never sent.
pub(in crate::provider) fn state() -> Arc<State> {
    state_with(Settings::default())
}

/// The same with these settings.
fn state_with(mut settings: Settings) -> Arc<State> {
    settings.models.insert("m".into(), Model::default());
    let base_url = "http://127.0.0.1:9".to_owned();
    let account = Account {
        name: "a".into(),
        settings,
        base_url,
        keys: Vec::new(),
        headers: HeaderMap::new(),
        budgets: Vec::new(),
    };
    State::new(account, Handle::current()).unwrap()
}

/// Queues a call of a run that spends from `budget`.
fn enqueue_for(state: &State, run: RunId, budget: Option<&Arc<SharedBudget>>) -> CallReceiver {
    let (responder, receiver) = ReplyTo::channel();
    let context = RequestContext { run, ..RequestContext::default() };
    let call = Call { context, budget: budget.cloned(), ..call(Duration::from_secs(600)) };
    let requested_at = Instant::now();
    state.enqueue(IncomingCall { call, responder, requested_at }, requested_at);
    receiver
}

/// Queues a call of a scope, with the budget of the scope.
fn enqueue_scoped(
    state: &State,
    scope: &str,
    prompt: Prompt,
    scope_budget: Option<&Arc<SharedBudget>>,
) -> CallReceiver {
    let (responder, receiver) = ReplyTo::channel();
    let context = RequestContext { scope: scope.into(), ..RequestContext::default() };
    let prompt = Arc::new(prompt);
    let scope_budget = scope_budget.cloned();
    let call = Call { prompt, context, scope_budget, ..call(Duration::from_secs(600)) };
    let requested_at = Instant::now();
    state.enqueue(IncomingCall { call, responder, requested_at }, requested_at);
    receiver
}

/// A provider whose calls have an expected cost of a quarter of a cent before the first answer.
fn priced() -> Arc<State> {
    priced_with(Vec::new())
}

/// The same with these budgets.
fn priced_with(budgets: Vec<Arc<SharedBudget>>) -> Arc<State> {
    let settings = "base_url = 'http://127.0.0.1:9'\nmodels.m = { price = { input = 1, output = 5 } }";
    let settings: Settings = toml::from_str(settings).unwrap();
    let base_url = settings.base_url.clone().unwrap();
    let headers = HeaderMap::new();
    let name = "a".into();
    let keys = Vec::new();
    State::new(Account { name, settings, base_url, keys, headers, budgets }, Handle::current()).unwrap()
}

#[actix_web::test]
async fn a_run_that_waits_for_budget_blocks_no_other_run_and_its_reservation_returns_with_its_call() {
    tokio::time::pause();
    let state = priced();
    let budget = SharedBudget::for_run(Some(NanoUsd(4_000_000)), Spend::default(), false);
    let capped = RunId::next();
    let other = RunId::next();
    let _first = enqueue_for(&state, capped, Some(&budget));
    let second = enqueue_for(&state, capped, Some(&budget));
    let NextCall::Ready(first) = state.next(Instant::now()) else { panic!("there is budget for one call") };
    assert!(matches!(state.next(Instant::now()), NextCall::WaitUntil(until) if until > Instant::now()));
    let _others = enqueue_for(&state, other, None);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let NextCall::Ready(others) = state.next(Instant::now()) else { panic!("another run is blocked") };
    assert_eq!(others.queued.call.context.run, other);
    assert!(matches!(second.await.unwrap(), Err(Rejection::Busy { .. })));

    let third = enqueue_for(&state, capped, Some(&budget));
    assert!(matches!(state.next(Instant::now()), NextCall::WaitUntil(_)));
    // The call was sent and its cost is unknown: its reservation counts, and the next call does not fit.
    let mut permit = first.permit;
    permit.mark_sent(SendTime { at: Instant::now(), queue_time: Duration::ZERO });
    drop(permit);
    assert_eq!((budget.status().reserved, budget.status().spent.cost), (NanoUsd(0), NanoUsd(0)));
    assert!(matches!(state.next(Instant::now()), NextCall::Idle));
    let Err(Rejection::Budget { failure, for_all_targets: true }) = third.await.unwrap() else {
        panic!("the call was sent")
    };
    assert_eq!(failure.class, Class::Budget);
    // Once the cap is reached, no call waits for it.
    assert!(matches!(
        enqueue_for(&state, capped, Some(&budget)).await.unwrap(),
        Err(Rejection::Budget { .. })
    ));
}

#[actix_web::test]
async fn a_scope_that_waits_for_a_budget_blocks_no_other_scope() {
    tokio::time::pause();
    let cap = NanoUsd(4_000_000);
    for scope in [BudgetScope::Day, BudgetScope::Provider("a".into()), BudgetScope::Scope("waiting".into())] {
        let budget = SharedBudget::for_day(scope.clone(), cap);
        let (shared, of_scope) = match &scope {
            BudgetScope::Scope(_) => (Vec::new(), Some(&budget)),
            BudgetScope::Run | BudgetScope::Day | BudgetScope::Provider(_) => (vec![budget.clone()], None),
        };
        let state = priced_with(shared);
        let large = || Prompt::text("Anybody?");
        let _first = enqueue_scoped(&state, "waiting", large(), of_scope);
        let NextCall::Ready(first) = state.next(Instant::now()) else { panic!("there is budget for one") };
        let second = enqueue_scoped(&state, "waiting", large(), of_scope);
        // It is submitted again later. Until then it is not queued.
        assert!(matches!(state.next(Instant::now()), NextCall::Idle), "{scope:?}");
        assert!(matches!(second.await.unwrap(), Err(Rejection::Busy { .. })), "{scope:?}");
        let _other = enqueue_scoped(&state, "other", large().with_max_tokens(10), None);
        let NextCall::Ready(other) = state.next(Instant::now()) else {
            panic!("another scope is blocked: {scope:?}")
        };
        assert_eq!(other.queued.call.context.scope.as_str(), "other");
        assert!(budget.status().reserved > NanoUsd(2_500_000), "the first call is in flight");
        drop(first);
    }
}

#[actix_web::test]
async fn a_call_without_a_scope_waits_for_the_budget_of_the_day_but_does_not_block_scopes() {
    tokio::time::pause();
    let state = priced_with(vec![SharedBudget::for_day(BudgetScope::Day, NanoUsd(4_000_000))]);
    let _first = enqueue_for(&state, RunId::next(), None);
    let NextCall::Ready(first) = state.next(Instant::now()) else { panic!("there is budget for one") };
    let _second = enqueue_for(&state, RunId::next(), None);
    assert!(matches!(state.next(Instant::now()), NextCall::WaitUntil(until) if until > Instant::now()));
    assert_eq!(state.lock().queue.len(), 1);
    let _other = enqueue_scoped(&state, "other", Prompt::text("Anybody?").with_max_tokens(10), None);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let NextCall::Ready(other) = state.next(Instant::now()) else { panic!("a scope is blocked") };
    assert_eq!(other.queued.call.context.scope.as_str(), "other");
    drop(first);
}

#[actix_web::test]
async fn queued_calls_are_rejected_within_a_second_when_the_budget_is_exhausted() {
    let state = priced();
    let budget = SharedBudget::for_run(Some(NanoUsd(4_000_000)), Spend::default(), false);
    let receiver = enqueue_for(&state, RunId::next(), Some(&budget));
    budget.reserve(NanoUsd(5_000_000)).unwrap_err();
    state.sweep(Instant::now());
    assert!(matches!(receiver.await.unwrap(), Err(Rejection::Budget { for_all_targets: true, .. })));
}

pub(in crate::provider) fn call(wait: Duration) -> Call {
    let prompt = Arc::new(Prompt::text("Anybody?"));
    let deadline = Instant::now() + wait;
    Call {
        prompt,
        model: "m".into(),
        priority: Priority::Batch,
        context: RequestContext::default(),
        is_retry: false,
        only_option_now: false,
        only_option: false,
        excluded_keys: Vec::new(),
        dispatch_signal: None,
        stream: None,
        budget: None,
        scope_budget: None,
        memory: crate::guard::HeldMemory::default(),
        trace: crate::telemetry::CallTrace::default(),
        deadline,
    }
}

pub(in crate::provider) fn enqueue(state: &State, wait: Duration) -> CallReceiver {
    let (responder, receiver) = ReplyTo::channel();
    let requested_at = Instant::now();
    state.enqueue(IncomingCall { call: call(wait), responder, requested_at }, requested_at);
    receiver
}

#[actix_web::test]
async fn runs_share_the_capacity_of_a_provider_while_they_have_work() {
    let state = state();
    let now = Instant::now();
    let capacity = || state.capacity(Duration::MAX, now);
    let whole = capacity();
    let one = state.share_capacity();
    assert_eq!(capacity(), whole);
    let another = state.share_capacity();
    assert_eq!(capacity(), whole.div_ceil(2));
    drop((one, another));
    assert_eq!(capacity(), whole);
}

#[actix_web::test]
async fn the_calls_of_a_runs_older_items_are_sent_first_whichever_arrived_first() {
    let state = state();
    let run = RunId::next();
    let enqueue_for = |rank: u64| {
        let (responder, receiver) = ReplyTo::channel();
        let context = RequestContext { run, rank, ..RequestContext::default() };
        let call = Call { context, ..call(Duration::from_secs(600)) };
        let requested_at = Instant::now();
        state.enqueue(IncomingCall { call, responder, requested_at }, requested_at);
        receiver
    };
    let _receivers: Vec<CallReceiver> = [7, 8, 9, 3, 8, 1].into_iter().map(enqueue_for).collect();
    let mut sent_ranks = Vec::new();
    while let NextCall::Ready(ready) = state.next(Instant::now()) {
        sent_ranks.push(ready.queued.call.context.rank);
    }
    assert_eq!(sent_ranks, [1, 3, 7, 8, 8, 9]);
}

#[actix_web::test]
async fn queued_calls_are_rejected_at_their_deadline() {
    let state = state();
    tokio::time::pause();
    let receiver = enqueue(&state, Duration::from_secs(600));
    tokio::time::sleep(Duration::from_secs(599)).await;
    state.sweep(Instant::now());
    assert_eq!(state.lock().queue.len(), 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    state.sweep(Instant::now());
    assert!(matches!(receiver.await.unwrap(), Err(Rejection::Busy { .. })));
}

#[actix_web::test]
async fn a_queued_call_whose_caller_is_gone_is_removed() {
    let state = state();
    let receiver = enqueue(&state, Duration::from_secs(600));
    state.sweep(Instant::now());
    assert_eq!(state.lock().queue.len(), 1);
    drop(receiver);
    state.sweep(Instant::now());
    assert!(state.lock().queue.is_empty());
}

#[actix_web::test]
async fn calls_whose_caller_is_gone_do_not_fill_the_queue() {
    let state = state_with(Settings { queue: 3.try_into().unwrap(), ..Settings::default() });
    let gone: Vec<_> = (0..3).map(|_| enqueue(&state, Duration::from_secs(600))).collect();
    drop(gone);
    let _waiting = enqueue(&state, Duration::from_secs(600));
    assert_eq!(state.lock().queue.len(), 1);
    let _others = [enqueue(&state, Duration::from_secs(600)), enqueue(&state, Duration::from_secs(600))];
    let rejected = enqueue(&state, Duration::from_secs(600)).await.unwrap();
    assert!(matches!(rejected, Err(Rejection::Busy { .. })));
}

#[actix_web::test]
async fn a_call_without_a_caller_or_past_its_deadline_is_never_sent() {
    let state = state();
    tokio::time::pause();
    drop(enqueue(&state, Duration::from_secs(600)));
    let late = enqueue(&state, Duration::from_secs(5));
    assert_eq!(state.lock().queue.len(), 2);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(matches!(state.next(Instant::now()), NextCall::Idle));
    assert!(matches!(late.await.unwrap(), Err(Rejection::Busy { .. })));
    let snapshot = state.snapshot(Instant::now());
    assert_eq!((snapshot.calls, snapshot.queued, snapshot.targets[0].queued), (0, 0, 0));
}

fn changed(state: &State, settings: &str) -> Account {
    let settings: Settings = toml::from_str(settings).unwrap();
    Account {
        name: state.name().clone(),
        settings,
        base_url: state.base_url().to_owned(),
        keys: Vec::new(),
        headers: HeaderMap::new(),
        budgets: Vec::new(),
    }
}

#[actix_web::test]
async fn a_removed_model_ends_its_queued_calls_and_takes_no_new_ones() {
    tokio::time::pause();
    let state = state();
    let queued = enqueue_for(&state, RunId::next(), None);
    let account = changed(&state, "base_url = 'http://127.0.0.1:9'\nmodels.n = {}\nqueue = 7");
    assert!(state.can_become(&account));
    state.apply_update(state.prepare_update(account).unwrap());
    let late = enqueue_for(&state, RunId::next(), None);
    let Err(Rejection::OutOfService(failure)) = late.await.unwrap() else { panic!("a new call is queued") };
    assert_eq!(&*failure.message, "the model is no longer configured");
    let NextCall::Ready(ready) = state.next(Instant::now()) else { panic!("the queued call is lost") };
    assert!(state.settings().models.contains_key("m"), "it ends with its settings");
    let names = |state: &State| -> Vec<(String, bool)> {
        let targets = state.snapshot(Instant::now()).targets.into_iter();
        targets.map(|target| (target.model.to_string(), target.retired)).collect()
    };
    assert_eq!(names(&state), [("m".to_owned(), true), ("n".to_owned(), false)]);
    drop((ready, queued));
    assert_eq!(names(&state), [("n".to_owned(), false)]);
    // Back again.
    let account = changed(&state, "base_url = 'http://127.0.0.1:9'\nmodels.m = {}");
    state.apply_update(state.prepare_update(account).unwrap());
    let _again = enqueue_for(&state, RunId::next(), None);
    assert!(matches!(state.next(Instant::now()), NextCall::Ready(_)));
}

#[actix_web::test]
async fn a_drained_provider_rejects_its_queued_calls_and_says_why() {
    tokio::time::pause();
    let state = state();
    let now = Instant::now();
    let queued = enqueue_for(&state, RunId::next(), None);
    state.drain();
    assert!(matches!(queued.await.unwrap(), Err(Rejection::OutOfService(_))));
    let outage = state.outage(&"m".into(), Duration::ZERO, now).unwrap();
    assert!(outage.can_recover && outage.failure.message.contains("is drained"), "{outage:?}");
    assert!(state.snapshot(now).draining && state.is_idle());
    state.resume();
    assert_eq!(state.outage(&"m".into(), Duration::ZERO, now), None);
    // One that was removed cannot be resumed.
    state.retire(None);
    state.resume();
    assert!(state.snapshot(now).draining);
}

#[actix_web::test]
async fn a_call_to_a_replaced_provider_goes_to_its_successor() {
    tokio::time::pause();
    let old = state();
    let new = state();
    old.lock().targets.get_mut("m").unwrap().unstored_calls = 3;
    new.inherit(&old);
    old.retire(Some(new.clone()));
    let _call = enqueue_for(&old, RunId::next(), None);
    // Its actor does not run, so the successor answers at once; nothing is queued at the old one.
    assert!(old.is_idle());
    assert_eq!(new.lock().targets["m"].unstored_calls, 3);
    assert_eq!(old.outage(&"m".into(), Duration::ZERO, Instant::now()), None);
}
