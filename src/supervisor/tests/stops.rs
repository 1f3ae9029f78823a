//! Stopping: graceful first, then forced, and always within the deadline.

use std::time::Duration;

use actix::prelude::*;
use tokio::time::Instant;

use super::super::{ChildState, Drain, Drained, Error, RestartChild, Slot, Start, StopChild};
use super::{
    Hang, Journal, PanicInHandler, Ping, Probe, block, children, probe, silence_planned_panics, start,
    supervisor, until,
};

const SECOND: Duration = Duration::from_secs(1);

#[actix_web::test]
async fn the_new_incarnation_of_a_child_starts_when_the_old_one_is_gone() {
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let slot = Slot::default();
    let journal = Journal::default();
    start(&supervisor, probe("a", &slot, &journal)).await;
    slot.get().unwrap().send(Ping).await.unwrap();
    let requested = Instant::now();
    supervisor.send(RestartChild { name: "a".into() }).await.unwrap().unwrap();
    assert_eq!(slot.get().unwrap().send(Ping).await, Ok(1));
    assert_eq!(requested.elapsed(), Duration::ZERO, "a requested restart has no back-off");
    assert_eq!(journal.read(), ["a started", "a requested to stop", "a stopped", "a dropped", "a started"]);
    let status = &children(&supervisor).await[0];
    assert_eq!((status.incarnation, status.restarts), (2, 0));
}

#[actix_web::test]
async fn a_hung_child_is_replaced_after_its_grace_and_not_before_it_is_gone() {
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let slot = Slot::default();
    let journal = Journal::default();
    start(&supervisor, probe("a", &slot, &journal).grace(SECOND)).await;
    slot.get().unwrap().send(Hang).await.unwrap();
    let request = slot.get().unwrap().send(Ping);
    let requested = Instant::now();
    supervisor.send(RestartChild { name: "a".into() }).await.unwrap().unwrap();
    assert!(requested.elapsed() >= SECOND && requested.elapsed() < SECOND * 2, "{:?}", requested.elapsed());
    assert_eq!(request.await, Err(MailboxError::Closed));
    assert_eq!(slot.get().unwrap().send(Ping).await, Ok(1));
    assert_eq!(journal.read(), ["a started", "a stopped", "a dropped", "a started"]);
}

#[actix_web::test]
async fn a_child_in_its_backoff_restarts_at_once_on_request() {
    silence_planned_panics();
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let slot = Slot::default();
    start(&supervisor, probe("a", &slot, &Journal::default())).await;
    slot.get().unwrap().do_send(PanicInHandler);
    until(&supervisor, "a", |child| child.state == ChildState::Restarting).await;
    supervisor.send(RestartChild { name: "a".into() }).await.unwrap().unwrap();
    assert_eq!(slot.get().unwrap().send(Ping).await, Ok(1));
    tokio::time::sleep(SECOND).await;
    assert_eq!(
        children(&supervisor).await[0].incarnation,
        2,
        "the tick of the back-off started a third incarnation"
    );
}

#[actix_web::test]
async fn a_stopped_child_is_removed() {
    silence_planned_panics();
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let slot = Slot::default();
    let journal = Journal::default();
    for pausing in [false, true] {
        start(&supervisor, probe("a", &slot, &journal)).await;
        if pausing {
            slot.get().unwrap().do_send(PanicInHandler);
            until(&supervisor, "a", |child| child.state == ChildState::Restarting).await;
        }
        supervisor.send(StopChild { name: "a".into() }).await.unwrap().unwrap();
        assert!(slot.get().is_none() && children(&supervisor).await.is_empty());
        assert_eq!(journal.read().last().unwrap(), "a dropped");
    }
    let unknown = Err(Error::Unknown { name: "a".into() });
    assert_eq!(supervisor.send(StopChild { name: "a".into() }).await.unwrap(), unknown);
    assert_eq!(supervisor.send(RestartChild { name: "a".into() }).await.unwrap(), unknown);
}

#[actix_web::test]
async fn of_two_orders_the_later_one_applies() {
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let slot = Slot::default();
    start(&supervisor, probe("a", &slot, &Journal::default())).await;
    slot.get().unwrap().send(Hang).await.unwrap();
    let restart = supervisor.send(RestartChild { name: "a".into() });
    let stop = supervisor.send(StopChild { name: "a".into() });
    let again = supervisor.send(StopChild { name: "a".into() });
    assert_eq!(restart.await.unwrap(), Err(Error::Superseded { name: "a".into() }));
    assert_eq!((stop.await.unwrap(), again.await.unwrap()), (Ok(()), Ok(())));
    assert!(children(&supervisor).await.is_empty());
}

#[actix_web::test]
async fn a_drain_stops_children_one_by_one_in_reverse_order() {
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let slots = [(); 3].map(|()| Slot::default());
    let journal = Journal::default();
    for (name, slot) in ["a", "b", "c"].iter().zip(&slots) {
        start(&supervisor, probe(name, slot, &journal)).await;
        slot.get().unwrap().send(Ping).await.unwrap();
    }
    let requested = Instant::now();
    assert_eq!(supervisor.send(Drain { by: requested + SECOND }).await.unwrap(), Drained { killed: 0 });
    assert_eq!(requested.elapsed(), Duration::ZERO, "no child needed the time");
    let ends = ["c", "b", "a"]
        .map(|name| ["requested to stop", "stopped", "dropped"].map(|what| format!("{name} {what}")));
    assert_eq!(journal.read()[3..], ends.concat());
    let rejected = supervisor.send(Start(probe("d", &Slot::default(), &journal))).await.unwrap();
    assert_eq!(rejected, Err(Error::Draining));
    assert_eq!(supervisor.send(RestartChild { name: "a".into() }).await.unwrap(), Err(Error::Draining));
    assert_eq!(supervisor.send(Drain { by: requested + SECOND }).await.unwrap(), Drained { killed: 0 });
}

#[actix_web::test]
async fn a_drain_kills_hung_children_in_time_and_leaves_time_to_the_others() {
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let slots = [(); 3].map(|()| Slot::default());
    let journal = Journal::default();
    for (name, slot) in ["a", "b", "c"].iter().zip(&slots) {
        start(&supervisor, probe(name, slot, &journal)).await;
        slot.get().unwrap().send(Ping).await.unwrap();
    }
    slots[1].get().unwrap().send(Hang).await.unwrap();
    slots[2].get().unwrap().send(Hang).await.unwrap();
    let requested = Instant::now();
    let by = requested + SECOND * 10;
    assert_eq!(supervisor.send(Drain { by }).await.unwrap(), Drained { killed: 2 });
    assert!(
        requested.elapsed() >= Duration::from_millis(9_900) && Instant::now() < by,
        "{:?}",
        requested.elapsed()
    );
    let rest =
        ["c stopped", "c dropped", "b stopped", "b dropped", "a requested to stop", "a stopped", "a dropped"];
    assert_eq!(journal.read()[3..], rest);
}

#[actix_web::test]
async fn a_second_drain_may_move_the_deadline_forward_but_not_back() {
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let slot = Slot::default();
    start(&supervisor, probe("a", &slot, &Journal::default())).await;
    slot.get().unwrap().send(Hang).await.unwrap();
    let requested = Instant::now();
    let slow = supervisor.send(Drain { by: requested + SECOND * 600 });
    let later = supervisor.send(Drain { by: requested + SECOND * 900 });
    let soon = supervisor.send(Drain { by: requested + SECOND });
    for drain in [slow, later, soon] {
        assert_eq!(drain.await.unwrap(), Drained { killed: 1 });
    }
    assert!(requested.elapsed() < SECOND * 2, "{:?}", requested.elapsed());
}

#[actix_web::test]
async fn a_drain_waits_for_no_backoff_and_restarts_no_child() {
    silence_planned_panics();
    tokio::time::pause();
    let (supervisor, mut exhausted) = supervisor();
    let slot = Slot::default();
    let other = Slot::default();
    let journal = Journal::default();
    start(&supervisor, probe("a", &slot, &journal)).await;
    start(&supervisor, probe("b", &other, &journal)).await;
    other.get().unwrap().send(Hang).await.unwrap();
    let drain = supervisor.send(Drain { by: Instant::now() + SECOND });
    assert_eq!(children(&supervisor).await[1].state, ChildState::Stopping);
    slot.get().unwrap().do_send(PanicInHandler);
    assert_eq!(drain.await.unwrap(), Drained { killed: 1 });
    tokio::time::sleep(SECOND * 60).await;
    assert_eq!(journal.read().iter().filter(|event| event.ends_with("started")).count(), 2);
    assert!(exhausted.try_recv().is_err());
}

#[actix_web::test]
async fn a_drain_without_children_ends_at_once() {
    let (supervisor, _) = supervisor();
    assert_eq!(supervisor.send(Drain { by: Instant::now() }).await.unwrap(), Drained { killed: 0 });
}

#[actix_web::test]
async fn a_child_that_blocks_its_thread_is_reported_as_stuck_and_replaced_when_it_unblocks() {
    let (supervisor, _) = supervisor();
    let arbiter = Arbiter::new();
    let slot = Slot::<Probe>::default();
    let journal = Journal::default();
    let spec = probe("a", &slot, &journal).on([arbiter.handle()]).grace(Duration::ZERO);
    start(&supervisor, spec).await;
    let release = block(&slot).await;
    let stuck = supervisor.send(RestartChild { name: "a".into() }).await.unwrap();
    assert_eq!(stuck, Err(Error::Stuck { name: "a".into() }));
    assert_eq!(journal.read().iter().filter(|event| *event == "a started").count(), 1);
    drop(release);
    until(&supervisor, "a", |child| child.incarnation == 2 && child.state == ChildState::Up).await;
    assert_eq!(slot.get().unwrap().send(Ping).await, Ok(1));
}

#[actix_web::test]
async fn a_drain_does_not_wait_for_a_thread_that_is_blocked() {
    let (supervisor, _) = supervisor();
    let arbiter = Arbiter::new();
    let slot = Slot::<Probe>::default();
    let below = Slot::default();
    let journal = Journal::default();
    start(&supervisor, probe("below", &below, &journal)).await;
    start(&supervisor, probe("a", &slot, &journal).on([arbiter.handle()])).await;
    let release = block(&slot).await;
    assert_eq!(supervisor.send(Drain { by: Instant::now() }).await.unwrap(), Drained { killed: 1 });
    assert!(journal.read().contains(&"below stopped".to_owned()));
    drop(release);
}
