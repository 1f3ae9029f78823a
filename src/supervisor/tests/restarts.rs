//! Children that end are restarted, with back-off, up to the limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use actix::prelude::*;
use tokio::time::Instant;

use super::super::{
    ChildExited, ChildId, ChildSpec, ChildState, Error, Exit, Intensity, Restart, RestartChild,
    RestartCounts, RestartPolicy, RestartsExhausted, Slot, Start, StopChild, Supervisor, WhenExhausted,
};
use super::{
    Fault, Forwarder, Hang, Journal, PanicInHandler, Ping, Probe, children, policy, probe,
    silence_planned_panics, start, supervisor, until,
};
use crate::telemetry::{Samples, text_of};

#[actix_web::test]
async fn a_child_that_panicked_restarts_after_its_backoff_and_its_sibling_is_unaffected() {
    silence_planned_panics();
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let slot = Slot::default();
    let sibling = Slot::default();
    let journal = Journal::default();
    start(&supervisor, probe("a", &slot, &journal)).await;
    start(&supervisor, probe("b", &sibling, &journal)).await;
    let first = slot.get().unwrap();
    let other = sibling.get().unwrap();
    assert_eq!(first.send(Ping).await, Ok(1));

    let crash = Instant::now();
    assert_eq!(first.send(PanicInHandler).await, Err(MailboxError::Closed));
    let restarting = until(&supervisor, "a", |child| child.state == ChildState::Restarting).await;
    assert_eq!(restarting.last_exit, Some(Exit::Panicked("planned in a handler".into())));
    assert!(slot.get().is_none(), "an address of an incarnation that has ended");

    let back = until(&supervisor, "a", |child| child.state == ChildState::Up).await;
    let backoff = crash.elapsed();
    assert!(backoff >= Duration::from_millis(75) && backoff <= Duration::from_millis(130), "{backoff:?}");
    assert_eq!((back.incarnation, back.restarts), (2, 1));
    assert_eq!(slot.get().unwrap().send(Ping).await, Ok(1), "a fresh actor");
    assert_eq!(sibling.get().unwrap(), other);
    assert_eq!(children(&supervisor).await[1].incarnation, 1);
}

#[actix_web::test]
async fn restarts_after_panics_are_counted_by_kind_also_when_the_child_is_gone() {
    silence_planned_panics();
    tokio::time::pause();
    let (sender, _exhausted) = tokio::sync::mpsc::unbounded_channel();
    let counts = Arc::new(RestartCounts::default());
    let supervisor = Supervisor::new(Forwarder::<RestartsExhausted>(sender).start().recipient());
    let supervisor = supervisor.with_restart_counts(counts.clone()).start();
    let reported = |kind: &str, count: u64| {
        let mut samples = Samples::default();
        counts.report_metrics(&mut samples);
        let text = text_of(&samples);
        let line = format!("pointsman_actor_restarts_total{{actor=\"{kind}\"}} {count}");
        assert!(text.lines().any(|other| other == line), "{line} is not in {text}");
    };
    let slot = Slot::default();
    let journal = Journal::default();
    start(&supervisor, probe("run 1", &slot, &journal)).await;
    start(&supervisor, probe("router", &Slot::default(), &journal)).await;
    reported("run", 0);
    assert_eq!(slot.get().unwrap().send(PanicInHandler).await, Err(MailboxError::Closed));
    until(&supervisor, "run 1", |child| child.incarnation == 2 && child.state == ChildState::Up).await;
    reported("run", 1);
    supervisor.send(RestartChild { name: "run 1".into() }).await.unwrap().unwrap();
    until(&supervisor, "run 1", |child| child.incarnation == 3 && child.state == ChildState::Up).await;
    supervisor.send(StopChild { name: "run 1".into() }).await.unwrap().unwrap();
    assert_eq!(children(&supervisor).await.len(), 1);
    reported("run", 1);
    reported("router", 0);
}

#[actix_web::test]
async fn exhausted_restarts_mark_the_child_down_and_a_manual_restart_starts_it_again() {
    silence_planned_panics();
    tokio::time::pause();
    let (supervisor, mut exhausted) = supervisor();
    let slot = Slot::default();
    let broken = Arc::new(AtomicU32::new(3));
    let counter = Arc::clone(&broken);
    let make = move |_: &mut Context<Probe>| {
        let fault = match counter.fetch_sub(1, Ordering::Relaxed) {
            0 => Fault::None,
            _ => Fault::Started,
        };
        Probe::new("a", fault, &Journal::default())
    };
    let spec =
        ChildSpec::new("a", slot.clone(), make).policy(policy(2)).when_exhausted(WhenExhausted::MarkDown);
    start(&supervisor, spec).await;
    let down = until(&supervisor, "a", |child| child.state == ChildState::Down).await;
    assert_eq!((down.incarnation, down.restarts), (3, 2));
    assert_eq!(down.last_exit, Some(Exit::Panicked("planned in started".into())));
    assert!(slot.get().is_none());
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(children(&supervisor).await, [down]);
    assert!(exhausted.try_recv().is_err(), "only an escalation notifies the owner");

    supervisor.send(RestartChild { name: "a".into() }).await.unwrap().unwrap();
    let up = until(&supervisor, "a", |child| child.state == ChildState::Up).await;
    assert_eq!(up.incarnation, 4);
    assert_eq!(slot.get().unwrap().send(Ping).await, Ok(1));
}

#[actix_web::test]
async fn exhausted_restarts_are_escalated_once_and_the_others_continue() {
    silence_planned_panics();
    tokio::time::pause();
    let (supervisor, mut exhausted) = supervisor();
    let slot = Slot::<Probe>::default();
    let sibling = Slot::default();
    let journal = Journal::default();
    start(&supervisor, probe("b", &sibling, &journal)).await;
    let make = |_: &mut Context<Probe>| Probe::new("a", Fault::Factory, &Journal::default());
    start(&supervisor, ChildSpec::new("a", slot.clone(), make).policy(policy(3))).await;
    let report = exhausted.recv().await.unwrap();
    assert_eq!(&*report.child, "a");
    assert!(report.reason.contains("planned in its factory"), "{}", report.reason);
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(exhausted.try_recv().is_err(), "escalated twice");
    let states: Vec<_> = children(&supervisor).await.iter().map(|child| child.state).collect();
    assert_eq!(states, [ChildState::Up, ChildState::Down]);
}

#[actix_web::test]
async fn a_child_that_stops_in_started_does_not_starve_its_arbiter() {
    // Real time: the neighbour below never idles, and a paused clock advances only when all are idle.
    let (supervisor, mut exhausted) = supervisor();
    let journal = Journal::default();
    let made = journal.clone();
    let slot = Slot::default();
    let make = move |_: &mut Context<Probe>| Probe::new("a", Fault::StopInStarted, &made);
    // Even without back-off the other tasks must be polled.
    let mut eager = policy(200);
    eager.backoff.min = Duration::ZERO;
    eager.backoff.max = Duration::ZERO;
    start(&supervisor, ChildSpec::new("a", slot, make).policy(eager)).await;
    let mut turns = 0_u32;
    while exhausted.try_recv().is_err() {
        tokio::task::yield_now().await;
        turns += 1;
    }
    let starts = journal.read().iter().filter(|event| *event == "a started").count();
    assert_eq!(starts, 201);
    assert!(turns > 201, "{turns} turns for the neighbour of {starts} starts");
}

#[actix_web::test]
async fn a_child_whose_arbiter_died_restarts_on_another() {
    let (supervisor, _) = supervisor();
    let one = Arbiter::new();
    let two = Arbiter::new();
    let slot = Slot::default();
    let journal = Journal::default();
    start(&supervisor, probe("a", &slot, &journal).on([one.handle(), two.handle()])).await;
    assert_eq!(slot.get().unwrap().send(Ping).await, Ok(1));
    one.stop();
    let back = until(&supervisor, "a", |child| child.incarnation == 2 && child.state == ChildState::Up).await;
    assert_eq!(back.last_exit, Some(Exit::Killed));
    assert_eq!(slot.get().unwrap().send(Ping).await, Ok(1));
}

#[actix_web::test]
async fn a_thousand_children_that_crash_at_once_all_restart() {
    silence_planned_panics();
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let slots: Vec<Slot<Probe>> = (0..1000).map(|_| Slot::default()).collect();
    for (i, slot) in slots.iter().enumerate() {
        start(&supervisor, probe(&format!("child {i}"), slot, &Journal::default())).await;
    }
    for slot in &slots {
        slot.get().unwrap().do_send(PanicInHandler);
    }
    tokio::time::sleep(Duration::from_millis(130)).await;
    for slot in &slots {
        assert_eq!(slot.get().unwrap().send(Ping).await, Ok(1));
    }
    let all = children(&supervisor).await;
    assert_eq!(all.len(), 1000);
    assert!(
        all.iter().all(|child| (child.incarnation, child.restarts, child.state) == (2, 1, ChildState::Up))
    );
}

#[actix_web::test]
async fn a_late_report_of_an_earlier_incarnation_is_ignored() {
    silence_planned_panics();
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let slot = Slot::default();
    start(&supervisor, probe("a", &slot, &Journal::default())).await;
    slot.get().unwrap().do_send(PanicInHandler);
    let before = until(&supervisor, "a", |child| child.incarnation == 2).await;
    for incarnation in [0, 1, 3] {
        supervisor.send(ChildExited { id: ChildId(0), incarnation, exit: Exit::Killed }).await.unwrap();
    }
    supervisor.send(ChildExited { id: ChildId(9), incarnation: 1, exit: Exit::Killed }).await.unwrap();
    assert_eq!(children(&supervisor).await, [before]);
}

#[actix_web::test]
async fn a_child_that_is_not_restarted_is_removed_and_its_name_is_free() {
    silence_planned_panics();
    tokio::time::pause();
    let (supervisor, mut exhausted) = supervisor();
    let slot = Slot::default();
    let journal = Journal::default();
    for restart in [Restart::Temporary, Restart::Transient] {
        start(&supervisor, probe("a", &slot, &journal).restart(restart)).await;
        match restart {
            Restart::Temporary => slot.get().unwrap().do_send(PanicInHandler),
            _ => slot.get().unwrap().do_send(super::Stop { by: Instant::now() }),
        }
        while !children(&supervisor).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(slot.get().is_none());
    }
    assert!(exhausted.try_recv().is_err());
}

#[actix_web::test]
async fn a_second_child_with_the_same_name_is_rejected() {
    let (supervisor, _) = supervisor();
    let slot = Slot::default();
    let journal = Journal::default();
    start(&supervisor, probe("a", &slot, &journal)).await;
    let rejected = supervisor.send(Start(probe("a", &Slot::default(), &journal))).await.unwrap();
    assert_eq!(rejected, Err(Error::NameTaken { name: "a".into() }));
    assert_eq!(slot.get().unwrap().send(Ping).await, Ok(1));
}

#[actix_web::test]
async fn extreme_settings_do_not_panic_the_supervisor() {
    silence_planned_panics();
    tokio::time::pause();
    let (supervisor, _) = supervisor();
    let slot = Slot::default();
    let intensity = Intensity { max: u32::MAX, period: Duration::MAX };
    let mut extreme = RestartPolicy { intensity, ..RestartPolicy::default() };
    extreme.backoff.min = Duration::MAX;
    extreme.backoff.max = Duration::MAX;
    start(&supervisor, probe("a", &slot, &Journal::default()).policy(extreme).grace(Duration::MAX)).await;
    slot.get().unwrap().do_send(PanicInHandler);
    until(&supervisor, "a", |child| child.state == ChildState::Restarting).await;
    supervisor.send(RestartChild { name: "a".into() }).await.unwrap().unwrap();
    supervisor.send(RestartChild { name: "a".into() }).await.unwrap().unwrap();
    assert_eq!(children(&supervisor).await[0].incarnation, 3);
}

#[actix_web::test]
async fn children_do_not_outlive_their_supervisor() {
    let arbiter = Arbiter::new();
    let here = Arbiter::current();
    let (sender, _exhausted) = tokio::sync::mpsc::unbounded_channel();
    let owner = Forwarder(sender).start().recipient();
    let supervisor = Supervisor::start_in_arbiter(&arbiter.handle(), |_| Supervisor::new(owner));
    let slot = Slot::default();
    start(&supervisor, probe("a", &slot, &Journal::default()).on([here])).await;
    let addr = slot.get().unwrap();
    addr.send(Hang).await.unwrap();
    let request = addr.send(Ping);
    arbiter.stop();
    assert_eq!(request.await, Err(MailboxError::Closed));
    assert!(!addr.connected() && slot.get().is_none());
}
