use super::*;
use crate::provider::{Awaited, Model};
use crate::types::{Asker, Priority, Prompt};

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

pub(in crate::provider) fn call(wait: Duration) -> Call {
    let prompt = Arc::new(Prompt::text("Anybody?"));
    let deadline = Instant::now() + wait;
    let asker = Asker::default();
    let (priority, retry, alone, stay) = (Priority::Batch, false, false, false);
    let model = "m".into();
    Call { prompt, model, priority, asker, retry, alone, stay, departure: None, purse: None, deadline }
}

pub(in crate::provider) fn enqueue(state: &State, wait: Duration) -> Awaited {
    let (reply, awaited) = ReplyTo::awaited();
    let asked = Instant::now();
    state.enqueue(Arrival { call: call(wait), reply, asked }, asked);
    awaited
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
