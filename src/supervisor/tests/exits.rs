//! Every end of a life is reported, once, and harms nobody else.

use actix::prelude::*;
use tokio::sync::mpsc;

use super::super::{ChildExited, ChildId, Exit, Monitored, spawn_monitored, spawn_monitored_here};
use super::{
    Fault, Hang, Journal, Listener, PanicInActFuture, PanicInCall, PanicInHandler, PanicInSpawned, Ping,
    Probe, Stop, planned, quiet,
};

const ID: ChildId = ChildId(7);
const LIFE: u64 = 3;

/// Hears of one child.
struct Ear {
    addr: Addr<Listener<ChildExited>>,
    reports: mpsc::UnboundedReceiver<ChildExited>,
}

impl Ear {
    fn new() -> Self {
        quiet();
        let (sender, reports) = mpsc::unbounded_channel();
        Self { addr: Listener(sender).start(), reports }
    }

    fn here(&self, make: impl FnOnce(&mut Context<Probe>) -> Probe) -> Monitored<Probe> {
        spawn_monitored_here(ID, LIFE, self.addr.clone().recipient(), make)
    }

    fn on(
        &self,
        arbiter: &ArbiterHandle,
        make: impl FnOnce(&mut Context<Probe>) -> Probe + Send + 'static,
    ) -> Monitored<Probe> {
        spawn_monitored(arbiter, ID, LIFE, self.addr.clone().recipient(), make)
    }

    /// Returns the one and only report.
    async fn exit(mut self) -> Exit {
        let ChildExited { id, life, exit } = self.reports.recv().await.unwrap();
        assert_eq!((id, life), (ID, LIFE));
        drop(self.addr);
        assert_eq!(self.reports.recv().await, None, "a second report");
        exit
    }
}

fn panicked(place: &str) -> Exit {
    Exit::Panicked(format!("planned in {place}"))
}

#[actix_web::test]
async fn a_panic_in_a_handler_is_reported() {
    let ear = Ear::new();
    let Monitored { addr, .. } = ear.here(|_| Probe::plain());
    assert_eq!(addr.send(PanicInHandler).await, Err(MailboxError::Closed));
    assert_eq!(ear.exit().await, panicked("a handler"));
    assert!(!addr.connected());
}

#[actix_web::test]
async fn a_panic_in_a_spawned_future_is_reported() {
    let ear = Ear::new();
    let Monitored { addr, .. } = ear.here(|_| Probe::plain());
    assert_eq!(addr.send(PanicInSpawned).await, Ok(()));
    assert_eq!(ear.exit().await, panicked("a future"));
}

#[actix_web::test]
async fn a_panic_in_an_actor_future_is_reported() {
    let ear = Ear::new();
    let Monitored { addr, .. } = ear.here(|_| Probe::plain());
    assert_eq!(addr.send(PanicInActFuture).await, Err(MailboxError::Closed));
    assert_eq!(ear.exit().await, panicked("an actor future"));
}

#[actix_web::test]
async fn a_panic_in_a_call_costs_that_call_only() {
    let ear = Ear::new();
    let Monitored { addr, .. } = ear.here(|_| Probe::plain());
    assert_eq!(addr.send(PanicInCall).await, Err(MailboxError::Closed));
    assert_eq!(addr.send(Ping).await, Ok(1));
    drop(addr);
    assert_eq!(ear.exit().await, Exit::Normal);
}

#[actix_web::test]
async fn a_panic_in_the_factory_is_reported_and_closes_the_address() {
    let ear = Ear::new();
    let Monitored { addr, abort } = ear.here(|_| planned("the dark"));
    assert_eq!(ear.exit().await, Exit::Panicked("in its factory: planned in the dark".into()));
    assert_eq!(addr.send(Ping).await, Err(MailboxError::Closed));
    abort.abort();

    let (ear, arbiter) = (Ear::new(), Arbiter::new());
    let Monitored { addr, .. } = ear.on(&arbiter.handle(), |_| planned("the dark"));
    assert_eq!(ear.exit().await, Exit::Panicked("in its factory: planned in the dark".into()));
    assert_eq!(addr.send(Ping).await, Err(MailboxError::Closed));
}

#[actix_web::test]
async fn a_panic_in_started_is_reported() {
    let ear = Ear::new();
    let Monitored { addr, .. } = ear.here(|_| Probe::new("p", Fault::Started, &Journal::default()));
    assert_eq!(addr.send(Ping).await, Err(MailboxError::Closed));
    assert_eq!(ear.exit().await, panicked("started"));
}

#[actix_web::test]
async fn a_panic_in_stopped_is_reported() {
    let ear = Ear::new();
    let Monitored { addr, .. } = ear.here(|_| Probe::new("p", Fault::Stopped, &Journal::default()));
    drop(addr);
    assert_eq!(ear.exit().await, panicked("stopped"));
}

#[actix_web::test]
async fn panics_in_handler_stopped_and_drop_together_do_not_abort_the_process() {
    let (ear, journal) = (Ear::new(), Journal::default());
    let made = journal.clone();
    let Monitored { addr, .. } = ear.here(move |_| Probe::new("p", Fault::StoppedAndDropped, &made));
    assert_eq!(addr.send(PanicInHandler).await, Err(MailboxError::Closed));
    assert_eq!(ear.exit().await, panicked("a handler"));
    assert_eq!(journal.read(), ["p started", "p stopped", "p dropped"]);
}

#[actix_web::test]
async fn panics_while_an_aborted_actor_stops_do_not_abort_the_process() {
    let (ear, arbiter) = (Ear::new(), Arbiter::new());
    let make = |_: &mut Context<Probe>| Probe::new("p", Fault::StoppedAndDropped, &Journal::default());
    let Monitored { addr, abort } = ear.on(&arbiter.handle(), make);
    assert_eq!(addr.send(Ping).await, Ok(1));
    abort.abort();
    assert_eq!(ear.exit().await, Exit::Killed);
}

#[actix_web::test]
async fn an_actor_that_stops_ends_normally() {
    let ear = Ear::new();
    let Monitored { addr, .. } = ear.here(|_| Probe::plain());
    addr.do_send(Stop { by: tokio::time::Instant::now() });
    assert_eq!(ear.exit().await, Exit::Normal);
}

#[actix_web::test]
async fn a_panic_without_any_address_alive_is_reported_and_the_actor_still_stops() {
    let (ear, journal) = (Ear::new(), Journal::default());
    let made = journal.clone();
    let Monitored { addr, .. } = ear.here(move |_| Probe::new("p", Fault::None, &made));
    addr.do_send(PanicInHandler);
    drop(addr);
    assert_eq!(ear.exit().await, panicked("a handler"));
    assert_eq!(journal.read(), ["p started", "p stopped", "p dropped"]);
}

#[actix_web::test]
async fn a_hung_actor_can_be_killed_here_and_elsewhere() {
    let arbiter = Arbiter::new();
    for elsewhere in [false, true] {
        let (ear, journal) = (Ear::new(), Journal::default());
        let made = journal.clone();
        let make = move |_: &mut Context<Probe>| Probe::new("p", Fault::None, &made);
        let Monitored { addr, abort } = match elsewhere {
            true => ear.on(&arbiter.handle(), make),
            false => ear.here(make),
        };
        addr.send(Hang).await.unwrap();
        let question = addr.send(Ping);
        abort.abort();
        assert_eq!(ear.exit().await, Exit::Killed);
        assert_eq!(question.await, Err(MailboxError::Closed));
        assert_eq!(journal.read(), ["p started", "p stopped", "p dropped"]);
    }
}

#[actix_web::test]
async fn an_actor_that_is_aborted_before_its_first_turn_never_starts() {
    let (ear, journal) = (Ear::new(), Journal::default());
    let made = journal.clone();
    let Monitored { addr, abort } = ear.here(move |_| Probe::new("p", Fault::None, &made));
    abort.abort();
    assert_eq!(ear.exit().await, Exit::Killed);
    assert!(!addr.connected());
    assert_eq!(journal.read(), ["p dropped"]);
}

#[actix_web::test]
async fn an_actor_that_is_aborted_on_its_way_to_its_arbiter_is_not_even_made() {
    let (ear, arbiter) = (Ear::new(), Arbiter::new());
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    arbiter.spawn_fn(move || {
        let _ = blocked.recv();
    });
    let Monitored { addr, abort } = ear.on(&arbiter.handle(), |_| planned("a factory that nobody needs"));
    abort.abort();
    drop(release);
    assert_eq!(ear.exit().await, Exit::Killed);
    assert!(!addr.connected());
}

#[actix_web::test]
async fn the_end_of_an_arbiter_kills_its_actors() {
    let (ear, arbiter) = (Ear::new(), Arbiter::new());
    let Monitored { addr, .. } = ear.on(&arbiter.handle(), |_| Probe::plain());
    assert_eq!(addr.send(Ping).await, Ok(1));
    arbiter.stop();
    assert_eq!(ear.exit().await, Exit::Killed);
    assert!(!addr.connected());
}

#[actix_web::test]
async fn an_actor_for_a_dead_arbiter_is_killed_at_once() {
    let (ear, arbiter) = (Ear::new(), Arbiter::new());
    let handle = arbiter.handle();
    arbiter.stop();
    arbiter.join().unwrap();
    let Monitored { addr, abort } = ear.on(&handle, |_| Probe::plain());
    assert_eq!(ear.exit().await, Exit::Killed);
    assert!(!addr.connected());
    abort.abort();
}

#[actix_web::test]
async fn messages_reach_an_actor_that_has_not_started_yet() {
    let ear = Ear::new();
    let Monitored { addr, .. } = ear.here(|_| Probe::plain());
    let (first, second) = (addr.send(Ping), addr.send(Ping));
    assert_eq!((first.await, second.await), (Ok(1), Ok(2)));
}
