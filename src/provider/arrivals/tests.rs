use actix::prelude::*;

use super::*;
use crate::provider::state::tests::{call, enqueue, state};
use crate::supervisor::{Backoff, ChildSpec, GaveUp, Intensity, Policy, Start, Supervisor, WhenExhausted};

const LONG: Duration = Duration::from_secs(600);

/// The address of an actor that looks at nothing: its life is played by the test.
fn nobody() -> Arc<Addr<Provider>> {
    Arc::new(Context::<Provider>::new().address())
}

fn refused(awaited: Result<Awaited, Refused>) -> Refused {
    awaited.map(drop).unwrap_err()
}

#[actix_web::test]
async fn without_an_actor_a_call_is_refused_at_once() {
    let state = state();
    assert!(!state.is_up());
    assert_eq!(refused(state.call(call(LONG))), Refused::Down);
    state.life_began(nobody());
    assert!(state.is_up() && state.call(call(LONG)).is_ok());
    state.life_ended();
    assert!(!state.is_up());
    assert_eq!(refused(state.call(call(LONG))), Refused::Down);
}

#[actix_web::test]
async fn the_next_life_finds_all_that_came_in_an_earlier_one_in_their_order() {
    let state = state();
    tokio::time::pause();
    state.life_began(nobody());
    let seconds = [50, 40, 60].map(Duration::from_secs);
    let awaited = seconds.map(|wait| state.call(call(wait)).unwrap());
    assert_eq!(state.snapshot(Instant::now()).waiting, 3);
    state.life_ended();
    state.life_began(nobody());
    sleep(ORPHANED * 2).await;
    let found: Vec<_> = std::iter::from_fn(|| state.arrivals.next()).collect();
    let waits = found.iter().map(|arrival| arrival.call.deadline - arrival.asked);
    assert!(waits.eq(seconds), "{found:?}");
    drop(found);
    for awaited in awaited {
        assert!(awaited.await.is_err(), "nobody else would answer it");
    }
}

#[actix_web::test]
async fn one_that_looks_already_is_told_once_and_one_that_has_found_nothing_again() {
    let (arrivals, state) = (Arrivals::default(), state());
    let arrival = || Arrival { call: call(LONG), reply: ReplyTo::awaited().0, asked: Instant::now() };
    let is_told = || arrivals.lay(arrival()).unwrap().is_some();
    assert!(arrivals.lay(arrival()).is_err());
    arrivals.life_began(nobody());
    assert!(!is_told(), "it looks by itself when it begins");
    assert!(arrivals.next().is_some() && !is_told());
    assert!(arrivals.next().is_some() && arrivals.next().is_none());
    assert_eq!([is_told(), is_told(), is_told()], [true, false, false]);
    arrivals.life_began(nobody());
    assert!(!is_told(), "what the earlier one was told has died with it");
    assert_eq!(arrivals.len(), 4);
    drop(state);
}

#[actix_web::test]
async fn calls_that_wait_for_an_actor_that_does_not_come_back_soon_are_sent_elsewhere() {
    let state = state();
    tokio::time::pause();
    state.life_began(nobody());
    let (arrived, queued) = (state.call(call(LONG)).unwrap(), enqueue(&state, LONG));
    state.life_ended();
    let began = Instant::now();
    assert_eq!((arrived.await.unwrap(), queued.await.unwrap()), (Err(Refused::Down), Err(Refused::Down)));
    assert_eq!(began.elapsed().as_secs(), ORPHANED.as_secs());
    assert_eq!(state.snapshot(Instant::now()).waiting, 0);
}

#[actix_web::test]
async fn an_actor_that_is_down_for_long_is_gone_until_it_lives_again() {
    let state = state();
    tokio::time::pause();
    state.life_began(nobody());
    state.life_ended();
    sleep(MISSED / 2).await;
    // One that never came as far as to look at a call is none.
    state.life_ended();
    sleep(MISSED / 2 - Duration::from_secs(1)).await;
    assert_eq!(refused(state.call(call(LONG))), Refused::Down);
    sleep(Duration::from_secs(1)).await;
    let gone = refused(state.call(call(LONG)));
    assert_eq!(gone.to_string(), "internal: the actor of a has been down for 10 s");
    state.life_began(nobody());
    state.life_ended();
    assert_eq!(refused(state.call(call(LONG))), Refused::Down);
}

struct Owner;

impl Actor for Owner {
    type Context = Context<Self>;
}

impl Handler<GaveUp> for Owner {
    type Result = ();
    fn handle(&mut self, _: GaveUp, _: &mut Self::Context) {}
}

#[actix_web::test]
async fn what_waits_for_an_actor_that_used_up_its_restarts_is_sent_elsewhere_at_once() {
    let state = state();
    tokio::time::pause();
    let supervisor = Supervisor::new(Owner.start().recipient()).start();
    let life = state.clone();
    let make = move |_: &mut Context<Provider>| Provider::new(life.clone(), Arc::new(|_| {}));
    let intensity = Intensity { max: 0, ..Intensity::default() };
    let spec = ChildSpec::new("a", state.slot().clone(), make)
        .policy(Policy { intensity, backoff: Backoff::default() })
        .when_exhausted(WhenExhausted::MarkDown);
    supervisor.send(Start(spec)).await.unwrap().unwrap();
    while !state.is_up() {
        tokio::task::yield_now().await;
    }
    let queued = enqueue(&state, LONG);
    let began = Instant::now();
    // An end that nobody asked the supervisor for.
    state.slot().get().unwrap().do_send(crate::supervisor::Stop { by: began });
    let Err(Refused::Gone(failure)) = queued.await.unwrap() else { panic!("it is waited for") };
    assert_eq!(failure.to_string(), "internal: the actor of a is down: it used up its restarts");
    assert!(matches!(refused(state.call(call(LONG))), Refused::Gone(_)));
    assert!(began.elapsed() < ORPHANED, "{:?}", began.elapsed());
    let restart = crate::supervisor::RestartChild { name: "a".into() };
    supervisor.send(restart).await.unwrap().unwrap();
    while !state.is_up() {
        tokio::task::yield_now().await;
    }
    assert!(state.call(call(LONG)).is_ok());
}
