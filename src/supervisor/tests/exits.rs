//! Every exit is reported once and affects no other actor.

use actix::prelude::*;
use tokio::sync::mpsc;

use super::super::{ChildExited, ChildId, Exit, Monitored, spawn_monitored, spawn_monitored_here};
use super::{
    Fault, Forwarder, Hang, Journal, PanicInActFuture, PanicInCall, PanicInHandler, PanicInSpawned, Ping,
    Probe, Stop, planned, silence_planned_panics,
};

const ID: ChildId = ChildId(7);
const INCARNATION: u64 = 3;

/// Records the exit of one child.
struct ExitRecorder {
    addr: Addr<Forwarder<ChildExited>>,
    reports: mpsc::UnboundedReceiver<ChildExited>,
}

impl ExitRecorder {
    fn new() -> Self {
        silence_planned_panics();
        let (sender, reports) = mpsc::unbounded_channel();
        Self { addr: Forwarder(sender).start(), reports }
    }

    fn here(&self, make: impl FnOnce(&mut Context<Probe>) -> Probe) -> Monitored<Probe> {
        spawn_monitored_here(ID, INCARNATION, self.addr.clone().recipient(), make)
    }

    fn on(
        &self,
        arbiter: &ArbiterHandle,
        make: impl FnOnce(&mut Context<Probe>) -> Probe + Send + 'static,
    ) -> Monitored<Probe> {
        spawn_monitored(arbiter, ID, INCARNATION, self.addr.clone().recipient(), make)
    }

    /// Returns the only report.
    async fn exit(mut self) -> Exit {
        let ChildExited { id, incarnation, exit } = self.reports.recv().await.unwrap();
        assert_eq!((id, incarnation), (ID, INCARNATION));
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
    let recorder = ExitRecorder::new();
    let Monitored { addr, .. } = recorder.here(|_| Probe::plain());
    assert_eq!(addr.send(PanicInHandler).await, Err(MailboxError::Closed));
    assert_eq!(recorder.exit().await, panicked("a handler"));
    assert!(!addr.connected());
}

#[actix_web::test]
async fn a_panic_in_a_spawned_future_is_reported() {
    let recorder = ExitRecorder::new();
    let Monitored { addr, .. } = recorder.here(|_| Probe::plain());
    assert_eq!(addr.send(PanicInSpawned).await, Ok(()));
    assert_eq!(recorder.exit().await, panicked("a future"));
}

#[actix_web::test]
async fn a_panic_in_an_actor_future_is_reported() {
    let recorder = ExitRecorder::new();
    let Monitored { addr, .. } = recorder.here(|_| Probe::plain());
    assert_eq!(addr.send(PanicInActFuture).await, Err(MailboxError::Closed));
    assert_eq!(recorder.exit().await, panicked("an actor future"));
}

#[actix_web::test]
async fn a_panic_in_a_response_future_fails_only_that_request() {
    let recorder = ExitRecorder::new();
    let Monitored { addr, .. } = recorder.here(|_| Probe::plain());
    assert_eq!(addr.send(PanicInCall).await, Err(MailboxError::Closed));
    assert_eq!(addr.send(Ping).await, Ok(1));
    drop(addr);
    assert_eq!(recorder.exit().await, Exit::Normal);
}

#[actix_web::test]
async fn a_panic_in_the_factory_is_reported_and_closes_the_address() {
    let recorder = ExitRecorder::new();
    let Monitored { addr, abort } = recorder.here(|_| planned("the factory"));
    assert_eq!(recorder.exit().await, Exit::Panicked("in its factory: planned in the factory".into()));
    assert_eq!(addr.send(Ping).await, Err(MailboxError::Closed));
    abort.abort();

    let recorder = ExitRecorder::new();
    let arbiter = Arbiter::new();
    let Monitored { addr, .. } = recorder.on(&arbiter.handle(), |_| planned("the factory"));
    assert_eq!(recorder.exit().await, Exit::Panicked("in its factory: planned in the factory".into()));
    assert_eq!(addr.send(Ping).await, Err(MailboxError::Closed));
}

#[actix_web::test]
async fn a_panic_in_started_is_reported() {
    let recorder = ExitRecorder::new();
    let Monitored { addr, .. } = recorder.here(|_| Probe::new("p", Fault::Started, &Journal::default()));
    assert_eq!(addr.send(Ping).await, Err(MailboxError::Closed));
    assert_eq!(recorder.exit().await, panicked("started"));
}

#[actix_web::test]
async fn a_panic_in_stopped_is_reported() {
    let recorder = ExitRecorder::new();
    let Monitored { addr, .. } = recorder.here(|_| Probe::new("p", Fault::Stopped, &Journal::default()));
    drop(addr);
    assert_eq!(recorder.exit().await, panicked("stopped"));
}

#[actix_web::test]
async fn panics_in_handler_stopped_and_drop_together_do_not_abort_the_process() {
    let recorder = ExitRecorder::new();
    let journal = Journal::default();
    let made = journal.clone();
    let Monitored { addr, .. } = recorder.here(move |_| Probe::new("p", Fault::StoppedAndDropped, &made));
    assert_eq!(addr.send(PanicInHandler).await, Err(MailboxError::Closed));
    assert_eq!(recorder.exit().await, panicked("a handler"));
    assert_eq!(journal.read(), ["p started", "p stopped", "p dropped"]);
}

#[actix_web::test]
async fn panics_while_an_aborted_actor_stops_do_not_abort_the_process() {
    let recorder = ExitRecorder::new();
    let arbiter = Arbiter::new();
    let make = |_: &mut Context<Probe>| Probe::new("p", Fault::StoppedAndDropped, &Journal::default());
    let Monitored { addr, abort } = recorder.on(&arbiter.handle(), make);
    assert_eq!(addr.send(Ping).await, Ok(1));
    abort.abort();
    assert_eq!(recorder.exit().await, Exit::Killed);
}

#[actix_web::test]
async fn an_actor_that_stops_ends_normally() {
    let recorder = ExitRecorder::new();
    let Monitored { addr, .. } = recorder.here(|_| Probe::plain());
    addr.do_send(Stop { by: tokio::time::Instant::now() });
    assert_eq!(recorder.exit().await, Exit::Normal);
}

#[actix_web::test]
async fn a_panic_without_any_address_alive_is_reported_and_the_actor_still_stops() {
    let recorder = ExitRecorder::new();
    let journal = Journal::default();
    let made = journal.clone();
    let Monitored { addr, .. } = recorder.here(move |_| Probe::new("p", Fault::None, &made));
    addr.do_send(PanicInHandler);
    drop(addr);
    assert_eq!(recorder.exit().await, panicked("a handler"));
    assert_eq!(journal.read(), ["p started", "p stopped", "p dropped"]);
}

#[actix_web::test]
async fn a_hung_actor_can_be_killed_on_this_and_on_another_thread() {
    let arbiter = Arbiter::new();
    for elsewhere in [false, true] {
        let recorder = ExitRecorder::new();
        let journal = Journal::default();
        let made = journal.clone();
        let make = move |_: &mut Context<Probe>| Probe::new("p", Fault::None, &made);
        let Monitored { addr, abort } = match elsewhere {
            true => recorder.on(&arbiter.handle(), make),
            false => recorder.here(make),
        };
        addr.send(Hang).await.unwrap();
        let request = addr.send(Ping);
        abort.abort();
        assert_eq!(recorder.exit().await, Exit::Killed);
        assert_eq!(request.await, Err(MailboxError::Closed));
        assert_eq!(journal.read(), ["p started", "p stopped", "p dropped"]);
    }
}

#[actix_web::test]
async fn an_actor_that_is_aborted_before_its_first_poll_never_starts() {
    let recorder = ExitRecorder::new();
    let journal = Journal::default();
    let made = journal.clone();
    let Monitored { addr, abort } = recorder.here(move |_| Probe::new("p", Fault::None, &made));
    abort.abort();
    assert_eq!(recorder.exit().await, Exit::Killed);
    assert!(!addr.connected());
    assert_eq!(journal.read(), ["p dropped"]);
}

#[actix_web::test]
async fn an_actor_that_is_aborted_before_it_reaches_its_arbiter_is_not_made() {
    let recorder = ExitRecorder::new();
    let arbiter = Arbiter::new();
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    arbiter.spawn_fn(move || {
        // An error is the release: the sender is dropped.
        let _ = blocked.recv();
    });
    let Monitored { addr, abort } = recorder.on(&arbiter.handle(), |_| planned("an unused factory"));
    abort.abort();
    drop(release);
    assert_eq!(recorder.exit().await, Exit::Killed);
    assert!(!addr.connected());
}

#[actix_web::test]
async fn the_end_of_an_arbiter_kills_its_actors() {
    let recorder = ExitRecorder::new();
    let arbiter = Arbiter::new();
    let Monitored { addr, .. } = recorder.on(&arbiter.handle(), |_| Probe::plain());
    assert_eq!(addr.send(Ping).await, Ok(1));
    arbiter.stop();
    assert_eq!(recorder.exit().await, Exit::Killed);
    assert!(!addr.connected());
}

#[actix_web::test]
async fn an_actor_for_a_dead_arbiter_is_killed_at_once() {
    let recorder = ExitRecorder::new();
    let arbiter = Arbiter::new();
    let handle = arbiter.handle();
    arbiter.stop();
    arbiter.join().unwrap();
    let Monitored { addr, abort } = recorder.on(&handle, |_| Probe::plain());
    assert_eq!(recorder.exit().await, Exit::Killed);
    assert!(!addr.connected());
    abort.abort();
}

#[actix_web::test]
async fn messages_reach_an_actor_that_has_not_started_yet() {
    let recorder = ExitRecorder::new();
    let Monitored { addr, .. } = recorder.here(|_| Probe::plain());
    let first = addr.send(Ping);
    let second = addr.send(Ping);
    assert_eq!((first.await, second.await), (Ok(1), Ok(2)));
}
