//! A child in place keeps its address and the messages queued behind its panic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::prelude::*;

use super::super::{ChildSpec, ChildState, Drain, Drained, Exit, RestartChild, Slot, Stop, StopChild};
use super::{
    Fault, Hang, Journal, PanicInHandler, PanicInSpawned, Ping, Probe, children, policy,
    silence_planned_panics, start, supervisor, until,
};

fn in_place(slot: &Slot<Probe>, journal: &Journal) -> ChildSpec {
    let journal = journal.clone();
    let make = move |_: &mut Context<Probe>| Probe::new("a", Fault::None, &journal);
    ChildSpec::in_place("a", slot.clone(), make).policy(policy(3)).grace(Duration::from_secs(1))
}

#[actix_web::test]
async fn messages_queued_behind_a_panic_are_answered_by_the_next_incarnation() {
    silence_planned_panics();
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let slot = Slot::default();
    let journal = Journal::default();
    start(&supervisor, in_place(&slot, &journal)).await;
    let addr = slot.get().unwrap();
    assert_eq!(addr.send(Ping).await, Ok(1));
    let panicking = addr.send(PanicInHandler);
    let one = addr.send(Ping);
    let two = addr.send(Ping);
    assert_eq!(panicking.await, Err(MailboxError::Closed));
    until(&supervisor, "a", |child| child.state == ChildState::Restarting).await;
    let while_down = addr.send(Ping);
    assert_eq!((one.await, two.await, while_down.await), (Ok(1), Ok(2), Ok(3)), "a fresh state");
    assert_eq!(slot.get().unwrap(), addr, "the same address");
    let status = &children(&supervisor).await[0];
    assert_eq!((status.incarnation, status.restarts, status.state), (2, 1, ChildState::Up));
    assert_eq!(journal.read(), ["a started", "a restarting", "a started"]);
}

#[actix_web::test]
async fn exhausted_restarts_in_place_end_the_actor_and_are_escalated_once() {
    silence_planned_panics();
    tokio::time::pause();
    let (supervisor, mut exhausted) = supervisor();
    let slot = Slot::default();
    let journal = Journal::default();
    start(&supervisor, in_place(&slot, &journal)).await;
    let addr = slot.get().unwrap();
    for _ in 0..4 {
        addr.do_send(PanicInHandler);
    }
    let behind = addr.send(Ping);
    assert_eq!(&*exhausted.recv().await.unwrap().child, "a");
    assert_eq!(behind.await, Err(MailboxError::Closed));
    assert!(!addr.connected() && slot.get().is_none());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(exhausted.try_recv().is_err(), "escalated twice");
    let status = &children(&supervisor).await[0];
    assert_eq!((status.incarnation, status.restarts, status.state), (4, 3, ChildState::Down));
    assert_eq!(journal.read().last().unwrap(), "a dropped");

    supervisor.send(RestartChild { name: "a".into() }).await.unwrap().unwrap();
    assert_eq!(slot.get().unwrap().send(Ping).await, Ok(1));
}

#[actix_web::test]
async fn a_panic_in_a_spawned_future_cancels_the_others_and_restarts() {
    silence_planned_panics();
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let slot = Slot::default();
    start(&supervisor, in_place(&slot, &Journal::default())).await;
    let addr = slot.get().unwrap();
    addr.do_send(PanicInSpawned);
    assert_eq!(addr.send(Ping).await, Ok(1), "the panic comes later");
    until(&supervisor, "a", |child| child.incarnation == 2).await;
    assert_eq!(addr.send(Ping).await, Ok(1));
}

#[actix_web::test]
async fn a_permanent_child_that_stops_restarts_in_its_mailbox() {
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let slot = Slot::default();
    start(&supervisor, in_place(&slot, &Journal::default())).await;
    let addr = slot.get().unwrap();
    addr.do_send(Stop { by: tokio::time::Instant::now() });
    assert_eq!(addr.send(Ping).await, Ok(1), "queued behind the stop");
    assert_eq!(children(&supervisor).await[0].last_exit, Some(Exit::Normal));
}

#[actix_web::test]
async fn after_the_death_of_its_arbiter_it_gets_a_new_mailbox_on_another() {
    let (supervisor, _) = supervisor();
    let one = Arbiter::new();
    let two = Arbiter::new();
    let slot = Slot::default();
    start(&supervisor, in_place(&slot, &Journal::default()).on([one.handle(), two.handle()])).await;
    let first = slot.get().unwrap();
    assert_eq!(first.send(Ping).await, Ok(1));
    one.stop();
    until(&supervisor, "a", |child| child.incarnation == 2 && child.state == ChildState::Up).await;
    assert_eq!(slot.get().unwrap().send(Ping).await, Ok(1));
    assert!(!first.connected());
}

#[actix_web::test]
async fn the_death_of_its_arbiter_during_the_backoff_is_detected() {
    silence_planned_panics();
    let (supervisor, _) = supervisor();
    let one = Arbiter::new();
    let two = Arbiter::new();
    let slot = Slot::default();
    start(&supervisor, in_place(&slot, &Journal::default()).on([one.handle(), two.handle()])).await;
    let first = slot.get().unwrap();
    assert_eq!(first.send(PanicInHandler).await, Err(MailboxError::Closed));
    until(&supervisor, "a", |child| child.state == ChildState::Restarting).await;
    one.stop();
    one.join().unwrap();
    until(&supervisor, "a", |child| child.state == ChildState::Up && slot.get().is_some()).await;
    assert_eq!(slot.get().unwrap().send(Ping).await, Ok(1));
}

#[actix_web::test]
async fn a_hung_child_is_replaced_with_a_new_mailbox() {
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let slot = Slot::default();
    let journal = Journal::default();
    start(&supervisor, in_place(&slot, &journal)).await;
    let first = slot.get().unwrap();
    first.send(Hang).await.unwrap();
    supervisor.send(RestartChild { name: "a".into() }).await.unwrap().unwrap();
    assert!(!first.connected());
    assert_eq!(slot.get().unwrap().send(Ping).await, Ok(1));
    assert_eq!(journal.read(), ["a started", "a stopped", "a dropped", "a started"]);
}

#[actix_web::test]
async fn a_factory_that_panics_is_retried() {
    silence_planned_panics();
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let slot = Slot::default();
    let broken = AtomicBool::new(true);
    let make = move |_: &mut Context<Probe>| {
        let fault = if broken.swap(false, Ordering::Relaxed) { Fault::Factory } else { Fault::None };
        Probe::new("a", fault, &Journal::default())
    };
    start(&supervisor, ChildSpec::in_place("a", slot.clone(), make).policy(policy(3))).await;
    let up = until(&supervisor, "a", |child| child.incarnation == 2).await;
    assert_eq!(up.last_exit, Some(Exit::Panicked("in its factory: planned in its factory".into())));
    assert_eq!(slot.get().unwrap().send(Ping).await, Ok(1));
}

#[actix_web::test]
async fn a_panic_while_restarting_is_another_exit_and_is_retried() {
    silence_planned_panics();
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let slot = Slot::default();
    let make = |_: &mut Context<Probe>| Probe::new("a", Fault::FirstRestart, &Journal::default());
    start(&supervisor, ChildSpec::in_place("a", slot.clone(), make).policy(policy(3))).await;
    let addr = slot.get().unwrap();
    addr.do_send(PanicInHandler);
    assert_eq!(addr.send(Ping).await, Ok(1));
    let status = &children(&supervisor).await[0];
    assert_eq!(status.last_exit, Some(Exit::Panicked("while restarting: planned in restarting".into())));
    assert_eq!((status.incarnation, status.restarts), (3, 2));
}

#[actix_web::test]
async fn stopping_it_by_name_drops_its_mailbox() {
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let slot = Slot::default();
    let journal = Journal::default();
    start(&supervisor, in_place(&slot, &journal)).await;
    let addr = slot.get().unwrap();
    supervisor.send(StopChild { name: "a".into() }).await.unwrap().unwrap();
    assert!(children(&supervisor).await.is_empty());
    assert_eq!(addr.send(Ping).await, Err(MailboxError::Closed));
    assert_eq!(journal.read(), ["a started", "a requested to stop", "a stopped", "a dropped"]);
}

#[actix_web::test]
async fn a_drain_during_the_backoff_leaves_nothing() {
    silence_planned_panics();
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let slot = Slot::default();
    let journal = Journal::default();
    start(&supervisor, in_place(&slot, &journal)).await;
    let addr = slot.get().unwrap();
    addr.do_send(PanicInHandler);
    until(&supervisor, "a", |child| child.state == ChildState::Restarting).await;
    let drained = supervisor.send(Drain { by: tokio::time::Instant::now() + Duration::from_secs(9) }).await;
    assert_eq!(drained.unwrap(), Drained { killed: 0 });
    assert_eq!(addr.send(Ping).await, Err(MailboxError::Closed));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(Arc::strong_count(&journal.0), 1, "something still holds the factory");
}
