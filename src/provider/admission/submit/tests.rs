use actix::prelude::*;

use super::*;
use crate::provider::Provider;
use crate::provider::admission::inbox::Inbox;
use crate::provider::state::tests::{call, enqueue, state};
use crate::supervisor::{
    ChildSpec, Intensity, RestartBackoff, RestartPolicy, RestartsExhausted, Start, Supervisor, WhenExhausted,
};

const WAIT: Duration = Duration::from_secs(600);

/// The address of an actor that handles nothing: the test starts and ends its incarnations.
fn idle_actor() -> Arc<Recipient<CallsArrived>> {
    Arc::new(Context::<Provider>::new().address().recipient())
}

fn rejection(submitted: Result<CallReceiver, Rejection>) -> Rejection {
    submitted.map(drop).unwrap_err()
}

#[actix_web::test]
async fn a_call_is_rejected_at_once_while_no_actor_runs() {
    let state = state();
    assert!(!state.is_up());
    assert_eq!(rejection(state.submit(call(WAIT))), Rejection::ActorRestarting);
    state.incarnation_started(idle_actor());
    assert!(state.is_up() && state.submit(call(WAIT)).is_ok());
    state.incarnation_ended();
    assert!(!state.is_up());
    assert_eq!(rejection(state.submit(call(WAIT))), Rejection::ActorRestarting);
}

#[actix_web::test]
async fn the_next_incarnation_gets_the_calls_of_the_previous_one_in_order() {
    let state = state();
    tokio::time::pause();
    state.incarnation_started(idle_actor());
    let seconds = [50, 40, 60].map(Duration::from_secs);
    let receivers = seconds.map(|wait| state.submit(call(wait)).unwrap());
    assert_eq!(state.snapshot(Instant::now()).queued, 3);
    state.incarnation_ended();
    state.incarnation_started(idle_actor());
    sleep(MAX_WAIT_FOR_RESTART * 2).await;
    let found: Vec<_> = std::iter::from_fn(|| state.inbox.next()).collect();
    let waits = found.iter().map(|incoming| incoming.call.deadline - incoming.requested_at);
    assert!(waits.eq(seconds), "{found:?}");
    drop(found);
    for receiver in receivers {
        assert!(receiver.await.is_err(), "a dropped call closes its receiver");
    }
}

#[actix_web::test]
async fn the_actor_is_notified_only_after_it_found_the_inbox_empty() {
    let inbox = Inbox::new(10_000);
    let state = state();
    let incoming =
        || IncomingCall { call: call(WAIT), responder: Responder::channel().0, requested_at: Instant::now() };
    let is_notified = || inbox.push(incoming()).unwrap().is_some();
    assert!(inbox.push(incoming()).is_err());
    inbox.incarnation_started(idle_actor());
    assert!(!is_notified(), "it reads the inbox when it starts");
    assert!(inbox.next().is_some() && !is_notified());
    assert!(inbox.next().is_some() && inbox.next().is_none());
    assert_eq!([is_notified(), is_notified(), is_notified()], [true, false, false]);
    inbox.incarnation_started(idle_actor());
    assert!(!is_notified(), "notifications to the earlier incarnation are lost");
    assert_eq!(inbox.len(), 4);
    drop(state);
}

#[actix_web::test]
async fn a_call_that_finds_the_inbox_full_is_rejected_at_once_and_comes_again_soon() {
    let state = state();
    tokio::time::pause();
    state.incarnation_started(idle_actor());
    let max_calls = state.settings().queue.get();
    let receivers: Vec<_> = (0..max_calls).map(|_| state.submit(call(WAIT)).unwrap()).collect();
    let until = Instant::now() + INBOX_RETRY_INTERVAL;
    assert_eq!(rejection(state.submit(call(WAIT))), Rejection::Busy { until });
    let (responder, receiver) = Responder::channel();
    state.submit_with(call(WAIT), responder);
    assert_eq!(receiver.await.unwrap(), Err(Rejection::Busy { until }));
    drop(state.inbox.next());
    assert!(state.submit(call(WAIT)).is_ok(), "there is room for one more");
    assert_eq!(state.inbox.len(), receivers.len());
}

#[actix_web::test]
async fn queued_calls_are_rejected_when_the_actor_does_not_restart_in_time() {
    let state = state();
    tokio::time::pause();
    state.incarnation_started(idle_actor());
    let incoming = state.submit(call(WAIT)).unwrap();
    let queued = enqueue(&state, WAIT);
    state.incarnation_ended();
    let began = Instant::now();
    assert_eq!(
        (incoming.await.unwrap(), queued.await.unwrap()),
        (Err(Rejection::ActorRestarting), Err(Rejection::ActorRestarting))
    );
    assert_eq!(began.elapsed().as_secs(), MAX_WAIT_FOR_RESTART.as_secs());
    assert_eq!(state.snapshot(Instant::now()).queued, 0);
}

#[actix_web::test]
async fn an_actor_that_is_down_for_ten_seconds_counts_as_down_until_it_starts_again() {
    let state = state();
    tokio::time::pause();
    state.incarnation_started(idle_actor());
    state.incarnation_ended();
    sleep(MAX_RESTART_DURATION / 2).await;
    // An incarnation that ends before it is registered does not reset the time.
    state.incarnation_ended();
    sleep(MAX_RESTART_DURATION / 2 - Duration::from_secs(1)).await;
    assert_eq!(rejection(state.submit(call(WAIT))), Rejection::ActorRestarting);
    sleep(Duration::from_secs(1)).await;
    let rejected = rejection(state.submit(call(WAIT)));
    assert_eq!(rejected.to_string(), "internal: the actor of a has been down for 10 s");
    state.incarnation_started(idle_actor());
    state.incarnation_ended();
    assert_eq!(rejection(state.submit(call(WAIT))), Rejection::ActorRestarting);
}

struct Owner;

impl Actor for Owner {
    type Context = Context<Self>;
}

impl Handler<RestartsExhausted> for Owner {
    type Result = ();
    fn handle(&mut self, _: RestartsExhausted, _: &mut Self::Context) {}
}

#[actix_web::test]
async fn queued_calls_are_rejected_at_once_when_restarts_are_exhausted() {
    let state = state();
    tokio::time::pause();
    let supervisor = Supervisor::new(Owner.start().recipient()).start();
    let shared = state.clone();
    let make = move |_: &mut Context<Provider>| Provider::new(shared.clone(), Arc::new(|_| {}));
    let intensity = Intensity { max: 0, ..Intensity::default() };
    let spec = ChildSpec::new("a", state.slot().clone(), make)
        .policy(RestartPolicy { intensity, backoff: RestartBackoff::default() })
        .when_exhausted(WhenExhausted::MarkDown);
    supervisor.send(Start(spec)).await.unwrap().unwrap();
    while !state.is_up() {
        tokio::task::yield_now().await;
    }
    let queued = enqueue(&state, WAIT);
    let began = Instant::now();
    // The supervisor did not request this stop.
    state.slot().get().unwrap().do_send(crate::supervisor::Stop { by: began });
    let Err(Rejection::ActorDown(failure)) = queued.await.unwrap() else {
        panic!("the call is not rejected")
    };
    assert_eq!(failure.to_string(), "internal: the actor of a is down: it used up its restarts");
    assert!(matches!(rejection(state.submit(call(WAIT))), Rejection::ActorDown(_)));
    assert!(began.elapsed() < MAX_WAIT_FOR_RESTART, "{:?}", began.elapsed());
    let restart = crate::supervisor::RestartChild { name: "a".into() };
    supervisor.send(restart).await.unwrap().unwrap();
    while !state.is_up() {
        tokio::task::yield_now().await;
    }
    assert!(state.submit(call(WAIT)).is_ok());
}
