//! A child in place keeps its address and what is queued behind its panic.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::prelude::*;

use super::super::{ChildSpec, ChildState, Drain, Drained, Exit, RestartChild, Slot, Stop, StopChild};
use super::{
    Fault, Hang, Journal, PanicInHandler, PanicInSpawned, Ping, Probe, children, policy, quiet, start,
    supervisor, until,
};

fn kept(slot: &Slot<Probe>, journal: &Journal) -> ChildSpec {
    let journal = journal.clone();
    let make = move |_: &mut Context<Probe>| Probe::new("a", Fault::None, &journal);
    ChildSpec::in_place("a", slot.clone(), make).policy(policy(3)).grace(Duration::from_secs(1))
}

#[actix_web::test]
async fn messages_queued_behind_a_panic_are_answered_by_the_next_life() {
    quiet();
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let (slot, journal) = (Slot::default(), Journal::default());
    start(&supervisor, kept(&slot, &journal)).await;
    let addr = slot.get().unwrap();
    assert_eq!(addr.send(Ping).await, Ok(1));
    let (boom, one, two) = (addr.send(PanicInHandler), addr.send(Ping), addr.send(Ping));
    assert_eq!(boom.await, Err(MailboxError::Closed));
    until(&supervisor, "a", |child| child.state == ChildState::Restarting).await;
    let while_down = addr.send(Ping);
    assert_eq!((one.await, two.await, while_down.await), (Ok(1), Ok(2), Ok(3)), "a fresh state");
    assert_eq!(slot.get().unwrap(), addr, "the same address");
    let status = &children(&supervisor).await[0];
    assert_eq!((status.life, status.restarts, status.state), (2, 1, ChildState::Up));
    assert_eq!(journal.read(), ["a started", "a restarting", "a started"]);
}

#[actix_web::test]
async fn a_storm_in_place_ends_the_actor_and_is_escalated_once() {
    quiet();
    tokio::time::pause();
    let (supervisor, mut given_up) = supervisor();
    let (slot, journal) = (Slot::default(), Journal::default());
    start(&supervisor, kept(&slot, &journal)).await;
    let addr = slot.get().unwrap();
    for _ in 0..4 {
        addr.do_send(PanicInHandler);
    }
    let behind = addr.send(Ping);
    assert_eq!(&*given_up.recv().await.unwrap().child, "a");
    assert_eq!(behind.await, Err(MailboxError::Closed));
    assert!(!addr.connected() && slot.get().is_none());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(given_up.try_recv().is_err(), "told twice");
    let status = &children(&supervisor).await[0];
    assert_eq!((status.life, status.restarts, status.state), (4, 3, ChildState::Down));
    assert_eq!(journal.read().last().unwrap(), "a dropped");

    supervisor.send(RestartChild { name: "a".into() }).await.unwrap().unwrap();
    assert_eq!(slot.get().unwrap().send(Ping).await, Ok(1));
}

#[actix_web::test]
async fn a_panic_in_a_spawned_future_cancels_the_others_and_restarts() {
    quiet();
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let slot = Slot::default();
    start(&supervisor, kept(&slot, &Journal::default())).await;
    let addr = slot.get().unwrap();
    addr.do_send(PanicInSpawned);
    assert_eq!(addr.send(Ping).await, Ok(1), "the panic comes later");
    until(&supervisor, "a", |child| child.life == 2).await;
    assert_eq!(addr.send(Ping).await, Ok(1));
}

#[actix_web::test]
async fn a_permanent_child_that_stops_goes_on_in_its_mailbox() {
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let slot = Slot::default();
    start(&supervisor, kept(&slot, &Journal::default())).await;
    let addr = slot.get().unwrap();
    addr.do_send(Stop { by: tokio::time::Instant::now() });
    assert_eq!(addr.send(Ping).await, Ok(1), "queued behind the stop");
    assert_eq!(children(&supervisor).await[0].last_exit, Some(Exit::Normal));
}

#[actix_web::test]
async fn the_death_of_its_arbiter_gives_it_a_new_mailbox_on_another() {
    let (supervisor, _) = supervisor();
    let (one, two) = (Arbiter::new(), Arbiter::new());
    let slot = Slot::default();
    start(&supervisor, kept(&slot, &Journal::default()).on([one.handle(), two.handle()])).await;
    let first = slot.get().unwrap();
    assert_eq!(first.send(Ping).await, Ok(1));
    one.stop();
    until(&supervisor, "a", |child| child.life == 2 && child.state == ChildState::Up).await;
    assert_eq!(slot.get().unwrap().send(Ping).await, Ok(1));
    assert!(!first.connected());
}

#[actix_web::test]
async fn the_death_of_its_arbiter_during_its_pause_is_noticed() {
    quiet();
    let (supervisor, _) = supervisor();
    let (one, two) = (Arbiter::new(), Arbiter::new());
    let slot = Slot::default();
    start(&supervisor, kept(&slot, &Journal::default()).on([one.handle(), two.handle()])).await;
    let first = slot.get().unwrap();
    assert_eq!(first.send(PanicInHandler).await, Err(MailboxError::Closed));
    until(&supervisor, "a", |child| child.state == ChildState::Restarting).await;
    one.stop();
    one.join().unwrap();
    until(&supervisor, "a", |child| child.state == ChildState::Up && slot.get().is_some()).await;
    assert_eq!(slot.get().unwrap().send(Ping).await, Ok(1));
}

#[actix_web::test]
async fn a_hung_one_is_replaced_with_a_new_mailbox() {
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let (slot, journal) = (Slot::default(), Journal::default());
    start(&supervisor, kept(&slot, &journal)).await;
    let first = slot.get().unwrap();
    first.send(Hang).await.unwrap();
    supervisor.send(RestartChild { name: "a".into() }).await.unwrap().unwrap();
    assert!(!first.connected());
    assert_eq!(slot.get().unwrap().send(Ping).await, Ok(1));
    assert_eq!(journal.read(), ["a started", "a stopped", "a dropped", "a started"]);
}

#[actix_web::test]
async fn a_factory_that_panics_is_tried_again() {
    quiet();
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let (slot, broken) = (Slot::default(), AtomicBool::new(true));
    let make = move |_: &mut Context<Probe>| {
        let fault = if broken.swap(false, Ordering::Relaxed) { Fault::Factory } else { Fault::None };
        Probe::new("a", fault, &Journal::default())
    };
    start(&supervisor, ChildSpec::in_place("a", slot.clone(), make).policy(policy(3))).await;
    let up = until(&supervisor, "a", |child| child.life == 2).await;
    assert_eq!(up.last_exit, Some(Exit::Panicked("in its factory: planned in its factory".into())));
    assert_eq!(slot.get().unwrap().send(Ping).await, Ok(1));
}

#[actix_web::test]
async fn a_panic_while_restarting_is_one_more_end_and_is_tried_again() {
    quiet();
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
    assert_eq!((status.life, status.restarts), (3, 2));
}

#[actix_web::test]
async fn stopping_it_by_name_lets_go_of_its_mailbox() {
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let (slot, journal) = (Slot::default(), Journal::default());
    start(&supervisor, kept(&slot, &journal)).await;
    let addr = slot.get().unwrap();
    supervisor.send(StopChild { name: "a".into() }).await.unwrap().unwrap();
    assert!(children(&supervisor).await.is_empty());
    assert_eq!(addr.send(Ping).await, Err(MailboxError::Closed));
    assert_eq!(journal.read(), ["a started", "a asked to stop", "a stopped", "a dropped"]);
}

#[actix_web::test]
async fn a_drain_in_its_pause_leaves_nothing() {
    quiet();
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let (slot, journal) = (Slot::default(), Journal::default());
    start(&supervisor, kept(&slot, &journal)).await;
    let addr = slot.get().unwrap();
    addr.do_send(PanicInHandler);
    until(&supervisor, "a", |child| child.state == ChildState::Restarting).await;
    let drained = supervisor.send(Drain { by: tokio::time::Instant::now() + Duration::from_secs(9) }).await;
    assert_eq!(drained.unwrap(), Drained { killed: 0 });
    assert_eq!(addr.send(Ping).await, Err(MailboxError::Closed));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(Arc::strong_count(&journal.0), 1, "something still holds the factory");
}
