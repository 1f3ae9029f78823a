use actix::prelude::*;

use super::*;
use crate::provider::Model;
use crate::supervisor::Later;
use crate::types::{Asker, Priority, Prompt};

/// Takes calls into the queue and lets none leave, as if its actor were gone.
struct Desk(Arc<State>);

impl Actor for Desk {
    type Context = Context<Self>;
}

impl Handler<Call> for Desk {
    type Result = Later<Result<Replied, Refused>>;

    fn handle(&mut self, call: Call, _: &mut Self::Context) -> Self::Result {
        let (reply, later) = Later::promise();
        self.0.enqueue(call, reply, Instant::now());
        later
    }
}

fn desk() -> (Arc<State>, Addr<Desk>) {
    let mut settings = Settings::default();
    settings.models.insert("m".into(), Model::default());
    let base_url = "http://127.0.0.1:9".to_owned();
    let account =
        Account { name: "a".into(), settings, base_url, keys: Vec::new(), headers: HeaderMap::new() };
    let state = State::new(account, Handle::current()).unwrap();
    (state.clone(), Desk(state).start())
}

fn call(wait: Duration) -> Call {
    let prompt = Arc::new(Prompt::text("Anybody?"));
    let deadline = Instant::now() + wait;
    let asker = Asker::default();
    let (priority, retry, alone, stay) = (Priority::Batch, false, false, false);
    let model = "m".into();
    Call { prompt, model, priority, asker, retry, alone, stay, departure: None, deadline }
}

async fn waits(state: &State) {
    while state.lock().queue.is_empty() {
        tokio::task::yield_now().await;
    }
}

#[actix_web::test]
async fn calls_that_wait_for_an_actor_that_never_comes_back_are_sent_elsewhere() {
    let (state, desk) = desk();
    tokio::time::pause();
    state.life_began();
    let waiting = actix_rt::spawn(desk.send(call(Duration::from_secs(600))));
    waits(&state).await;
    state.life_ended();
    let began = Instant::now();
    assert_eq!(waiting.await.unwrap().unwrap(), Err(Refused::Down));
    assert_eq!(began.elapsed().as_secs(), ORPHANED.as_secs());
}

#[actix_web::test]
async fn calls_wait_out_a_restart_and_are_sent_away_when_their_time_is_up() {
    let (state, desk) = desk();
    tokio::time::pause();
    state.life_began();
    let waiting = actix_rt::spawn(desk.send(call(Duration::from_secs(600))));
    waits(&state).await;
    state.life_ended();
    state.life_began();
    sleep(ORPHANED * 2).await;
    state.sweep(Instant::now());
    assert_eq!(state.lock().queue.len(), 1);
    sleep(Duration::from_secs(600)).await;
    state.sweep(Instant::now());
    assert!(matches!(waiting.await.unwrap().unwrap(), Err(Refused::Busy { .. })));
}

#[actix_web::test]
async fn a_call_whose_asker_has_gone_is_swept_out() {
    let (state, desk) = desk();
    let waiting = actix_rt::spawn(desk.send(call(Duration::from_secs(600))));
    waits(&state).await;
    state.sweep(Instant::now());
    assert_eq!(state.lock().queue.len(), 1);
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    state.sweep(Instant::now());
    assert!(state.lock().queue.is_empty());
}

#[actix_web::test]
async fn a_call_whose_asker_was_lost_by_a_panic_or_whose_time_is_up_never_leaves() {
    let (state, desk) = desk();
    tokio::time::pause();
    let (reply, handler) = Later::promise();
    state.enqueue(call(Duration::from_secs(600)), reply, Instant::now());
    drop(handler);
    let late = actix_rt::spawn(desk.send(call(Duration::from_secs(5))));
    while state.lock().queue.len() < 2 {
        tokio::task::yield_now().await;
    }
    sleep(Duration::from_secs(5)).await;
    assert!(matches!(state.next(Instant::now()), Next::Nothing));
    assert!(matches!(late.await.unwrap().unwrap(), Err(Refused::Busy { .. })));
    let snapshot = state.snapshot(Instant::now());
    assert_eq!((snapshot.calls, snapshot.waiting, snapshot.lanes[0].waiting), (0, 0, 0));
}
