use super::*;
use crate::provider::{Awaited, Model};
use crate::types::{Asker, Booked, Class, NanoUsd, Priority, Prompt, RunId};

/// A provider whose actor takes calls into the queue by hand, and lets none leave.
pub(in crate::provider) fn state() -> Arc<State> {
    let mut settings = Settings::default();
    settings.models.insert("m".into(), Model::default());
    let base_url = "http://127.0.0.1:9".to_owned();
    let account = Account {
        name: "a".into(),
        settings,
        base_url,
        keys: Vec::new(),
        headers: HeaderMap::new(),
        purses: Vec::new(),
    };
    State::new(account, Handle::current()).unwrap()
}

/// Lays a call of a run into the queue, which pays from `purse`.
fn ask(state: &State, run: RunId, purse: Option<&Arc<Purse>>) -> Awaited {
    let (reply, awaited) = ReplyTo::awaited();
    let asker = Asker { run, ..Asker::default() };
    let call = Call { asker, purse: purse.cloned(), ..call(Duration::from_secs(600)) };
    let asked = Instant::now();
    state.enqueue(Arrival { call, reply, asked }, asked);
    awaited
}

/// A provider whose calls are likely to cost a quarter of a cent, before one was answered.
fn priced() -> Arc<State> {
    let settings = "base_url = 'http://127.0.0.1:9'\nmodels.m = { price = { input = 1, output = 5 } }";
    let settings: Settings = toml::from_str(settings).unwrap();
    let (base_url, headers) = (settings.base_url.clone().unwrap(), HeaderMap::new());
    let (name, keys, purses) = ("a".into(), Vec::new(), Vec::new());
    State::new(Account { name, settings, base_url, keys, headers, purses }, Handle::current()).unwrap()
}

#[actix_web::test]
async fn money_that_one_run_waits_for_holds_up_no_other_run_and_comes_back_with_its_call() {
    tokio::time::pause();
    let (state, purse) = (priced(), Purse::of_run(Some(NanoUsd(4_000_000)), Booked::default(), false));
    let (capped, other) = (RunId::next(), RunId::next());
    let _first = ask(&state, capped, Some(&purse));
    let second = ask(&state, capped, Some(&purse));
    let Next::Leave(first) = state.next(Instant::now()) else { panic!("there is money for one") };
    assert!(matches!(state.next(Instant::now()), Next::Wait(until) if until > Instant::now()));
    let _others = ask(&state, other, None);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let Next::Leave(others) = state.next(Instant::now()) else { panic!("another run is held up") };
    assert_eq!(others.waiting.call.asker.run, other);
    assert!(matches!(second.await.unwrap(), Err(Refused::Busy { .. })));

    let third = ask(&state, capped, Some(&purse));
    assert!(matches!(state.next(Instant::now()), Next::Wait(_)));
    // The call has left and its cost is unknown: it counts with what was reserved, and the next does not fit.
    let mut permit = first.permit;
    permit.leaves();
    drop(permit);
    assert_eq!((purse.state().reserved, purse.state().spent.cost), (NanoUsd(0), NanoUsd(0)));
    assert!(matches!(state.next(Instant::now()), Next::Nothing));
    let Err(Refused::Budget { failure, all: true }) = third.await.unwrap() else { panic!("it left") };
    assert_eq!(failure.class, Class::Budget);
    // Once it is met nobody waits for it.
    assert!(matches!(ask(&state, capped, Some(&purse)).await.unwrap(), Err(Refused::Budget { .. })));
}

#[actix_web::test]
async fn calls_that_wait_for_a_limit_hear_within_a_second_that_there_is_no_money_left() {
    let (state, purse) = (priced(), Purse::of_run(Some(NanoUsd(4_000_000)), Booked::default(), false));
    let waiting = ask(&state, RunId::next(), Some(&purse));
    purse.reserve(NanoUsd(5_000_000)).unwrap_err();
    state.sweep(Instant::now());
    assert!(matches!(waiting.await.unwrap(), Err(Refused::Budget { all: true, .. })));
}

pub(in crate::provider) fn call(wait: Duration) -> Call {
    let prompt = Arc::new(Prompt::text("Anybody?"));
    let deadline = Instant::now() + wait;
    let asker = Asker::default();
    let (priority, retry, alone, stay) = (Priority::Batch, false, false, false);
    let model = "m".into();
    let not_with = Vec::new();
    Call {
        prompt,
        model,
        priority,
        asker,
        retry,
        alone,
        stay,
        not_with,
        departure: None,
        purse: None,
        held: crate::guard::HeldMemory::default(),
        deadline,
    }
}

pub(in crate::provider) fn enqueue(state: &State, wait: Duration) -> Awaited {
    let (reply, awaited) = ReplyTo::awaited();
    let asked = Instant::now();
    state.enqueue(Arrival { call: call(wait), reply, asked }, asked);
    awaited
}

#[actix_web::test]
async fn runs_share_the_capacity_of_a_provider_while_they_have_work() {
    let (state, now) = (state(), Instant::now());
    let capacity = || state.capacity(Duration::MAX, now);
    let whole = capacity();
    let one = state.share();
    assert_eq!(capacity(), whole);
    let another = state.share();
    assert_eq!(capacity(), whole.div_ceil(2));
    drop((one, another));
    assert_eq!(capacity(), whole);
}

#[actix_web::test]
async fn the_calls_of_a_runs_older_items_leave_first_whichever_came_first() {
    let (state, run) = (state(), RunId::next());
    let ask = |rank: u64| {
        let (reply, awaited) = ReplyTo::awaited();
        let asker = Asker { run, rank, ..Asker::default() };
        let (call, asked) = (Call { asker, ..call(Duration::from_secs(600)) }, Instant::now());
        state.enqueue(Arrival { call, reply, asked }, asked);
        awaited
    };
    let _askers: Vec<Awaited> = [7, 8, 9, 3, 8, 1].into_iter().map(ask).collect();
    let mut left = Vec::new();
    while let Next::Leave(departure) = state.next(Instant::now()) {
        left.push(departure.waiting.call.asker.rank);
    }
    assert_eq!(left, [1, 3, 7, 8, 8, 9]);
}

#[actix_web::test]
async fn calls_are_sent_away_when_their_time_is_up() {
    let state = state();
    tokio::time::pause();
    let waiting = enqueue(&state, Duration::from_secs(600));
    tokio::time::sleep(Duration::from_secs(599)).await;
    state.sweep(Instant::now());
    assert_eq!(state.lock().queue.len(), 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    state.sweep(Instant::now());
    assert!(matches!(waiting.await.unwrap(), Err(Refused::Busy { .. })));
}

#[actix_web::test]
async fn a_call_whose_asker_has_gone_is_swept_out() {
    let state = state();
    let waiting = enqueue(&state, Duration::from_secs(600));
    state.sweep(Instant::now());
    assert_eq!(state.lock().queue.len(), 1);
    drop(waiting);
    state.sweep(Instant::now());
    assert!(state.lock().queue.is_empty());
}

#[actix_web::test]
async fn a_call_whose_asker_has_gone_or_whose_time_is_up_never_leaves() {
    let state = state();
    tokio::time::pause();
    drop(enqueue(&state, Duration::from_secs(600)));
    let late = enqueue(&state, Duration::from_secs(5));
    assert_eq!(state.lock().queue.len(), 2);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(matches!(state.next(Instant::now()), Next::Nothing));
    assert!(matches!(late.await.unwrap(), Err(Refused::Busy { .. })));
    let snapshot = state.snapshot(Instant::now());
    assert_eq!((snapshot.calls, snapshot.waiting, snapshot.lanes[0].waiting), (0, 0, 0));
}
