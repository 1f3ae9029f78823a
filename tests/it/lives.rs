//! Who goes first, who leaves, and what happens when actors do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use pointsman::simulator::{Fault, FaultKind, Settings, Simulator};
use pointsman::types::{Charged, Class, Priority};
use tokio::time::Instant;

use super::stage::*;

fn slow(latency: &str) -> Simulator {
    play(toml::from_str::<Settings>(&format!("latency = \"{latency}\"")).unwrap())
}

/// One call at a time.
fn narrow(simulator: &Simulator) -> String {
    provider("a", simulator, &format!("limits.concurrency = 1{PATIENT}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_person_goes_before_the_batch_that_waits() {
    let simulator = slow("60ms");
    let pointsman = start(&narrow(&simulator));
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let send = |name: &'static str, priority| {
        let mut ask = question("default", name, Duration::from_secs(20));
        ask.priority = priority;
        let (pointsman, order) = (pointsman.clone(), order.clone());
        spawn(async move {
            pointsman.send(ask).await.unwrap();
            order.lock().unwrap().push(name);
        })
    };
    let mut tasks = vec![send("out", Priority::Batch)];
    until("the first is out", || snapshot(&pointsman, "a").in_flight == 1).await;
    for (number, name) in ["batch 1", "batch 2", "batch 3"].into_iter().enumerate() {
        tasks.push(send(name, Priority::Batch));
        until("it waits", || snapshot(&pointsman, "a").waiting == number + 1).await;
    }
    tasks.push(send("person", Priority::Interactive));
    futures_util::future::join_all(tasks).await;
    assert_eq!(*order.lock().unwrap(), ["out", "person", "batch 1", "batch 2", "batch 3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_that_cannot_fit_is_refused_at_once() {
    let (slow, other) = (slow("400ms"), play(Settings::default()));
    let config = format!(
        "[route.alone]\nlanes = [\"a/m\"]\n[route.both]\nlanes = [\"a/m\", \"b/m\"]\n{}{}",
        narrow(&slow),
        provider("b", &other, PATIENT)
    );
    let pointsman = start(&config);
    ask(&pointsman, "alone", "How long does it take?").await.unwrap();
    let first = spawn({
        let pointsman = pointsman.clone();
        async move { ask(&pointsman, "alone", "A long one.").await }
    });
    until("it is out", || snapshot(&pointsman, "a").in_flight == 1).await;
    let began = Instant::now();
    let alone = pointsman.send(question("alone", "Quick!", Duration::from_millis(150))).await;
    assert_eq!((story(&alone), class(&alone)), ("a:refused".to_owned(), Some(Class::Deadline)));
    let both = pointsman.send(question("both", "Quick!", Duration::from_millis(150))).await;
    assert_eq!(story(&both), "a:refused b:ok");
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    assert_eq!(story(&first.await.unwrap()), "a:ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ask_whose_time_runs_out_in_the_queue_ends_then_and_has_cost_nothing() {
    let simulator = play(Settings::default());
    let pointsman = start(&narrow(&simulator).replace("2s", "3s"));
    ask(&pointsman, "default", "How long does it take?").await.unwrap();
    simulator.set(Settings { faults: vec![Fault::new(FaultKind::Silent)], ..Settings::default() });
    let hung = pointsman.send(question("default", "Hm.", Duration::from_secs(2)));
    let queued = async {
        until("one is out", || snapshot(&pointsman, "a").in_flight == 1).await;
        let began = Instant::now();
        let answer = pointsman.send(question("default", "Well?", Duration::from_millis(200))).await;
        (answer, began.elapsed())
    };
    let (hung, (queued, took)) = tokio::join!(hung, queued);
    assert_eq!((story(&queued), class(&queued)), ("a:refused".to_owned(), Some(Class::Deadline)));
    assert_eq!(queued.unwrap_err().failure.charged, Charged::No);
    assert!(took >= Duration::from_millis(195) && took < Duration::from_millis(700), "{took:?}");
    // One that was out may have cost something.
    assert_eq!((story(&hung), class(&hung)), ("a:deadline".to_owned(), Some(Class::Deadline)));
    assert_eq!(hung.unwrap_err().failure.charged, Charged::Maybe);
    assert_eq!(simulator.counts().requests, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_whose_asker_has_gone_is_not_sent_and_one_that_is_out_is_broken_off() {
    let simulator = slow("10s");
    let pointsman =
        start(&narrow(&simulator).replace("2s", "20s").replace("total = \"5s\"", "total = \"1m\""));
    let send = |text: &'static str| {
        let pointsman = pointsman.clone();
        spawn(async move { ask(&pointsman, "default", text).await })
    };
    let out = send("I am out.");
    until("the first arrives", || simulator.counts().in_flight == 1).await;
    let queued = send("I wait.");
    until("the second waits", || snapshot(&pointsman, "a").waiting == 1).await;
    queued.abort();
    until("the second has gone", || snapshot(&pointsman, "a").waiting == 0).await;
    simulator.set(Settings::default());
    out.abort();
    until("the first is broken off", || simulator.counts().abandoned == 1).await;
    // Its place is free again.
    assert!(ask(&pointsman, "default", "And I?").await.is_ok());
    assert_eq!(simulator.counts().requests, 2);
    assert_eq!(snapshot(&pointsman, "a").in_flight, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_is_restarted_under_its_calls_loses_and_forgets_nothing() {
    let simulator = slow("50ms");
    let config =
        format!("{QUICK_RETRY}{}", provider("a", &simulator, &format!("limits.concurrency = 4{PATIENT}")));
    let pointsman = start(&config);
    let asks = spawn({
        let pointsman = pointsman.clone();
        async move { ask_many(&pointsman, "default", 60).await }
    });
    for calls in [4, 16, 32, 48] {
        until("some have left", || snapshot(&pointsman, "a").calls >= calls).await;
        pointsman.restart("provider a").await.unwrap();
        // A call that ends hands its place on, so a snapshot may see one fewer for an instant. Calls that the restart had
        // forgotten would show as a higher peak at the simulator below.
        until("calls that are out stay out", || snapshot(&pointsman, "a").in_flight == 4).await;
    }
    let answers = asks.await.unwrap();
    assert!(answers.iter().all(|answer| trail(answer).calls() == 1 && answer.is_ok()));
    let snapshot = snapshot(&pointsman, "a");
    assert_eq!((snapshot.calls, snapshot.in_flight, snapshot.waiting), (60, 0, 0));
    let counts = simulator.counts();
    assert_eq!((counts.answered, counts.abandoned, counts.peak_in_flight), (60, 0, 4));
    let children = pointsman.children().await;
    let life = children.iter().find(|child| &*child.name == "provider a").map(|child| child.life);
    assert_eq!(life, Some(5));
    assert!(pointsman.restart("provider b").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_is_restarted_under_its_asks_loses_none_and_refuses_none() {
    let simulator = slow("50ms");
    let config = provider("a", &simulator, &format!("limits.concurrency = 4{PATIENT}"));
    let pointsman = start(&config);
    let mut asks = Vec::new();
    for calls in [4, 12, 20] {
        let pointsman = pointsman.clone();
        asks.push(spawn({
            let pointsman = pointsman.clone();
            async move { ask_many(&pointsman, "default", 10).await }
        }));
        until("some have left", || snapshot(&pointsman, "a").calls >= calls).await;
        pointsman.restart("router").await.unwrap();
    }
    for answers in asks {
        assert!(answers.await.unwrap().iter().all(Result::is_ok));
    }
    assert_eq!((simulator.counts().answered, simulator.counts().abandoned), (30, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_lets_asks_end_and_takes_no_more() {
    let simulator = slow("100ms");
    let pointsman = start(&narrow(&simulator));
    let asks = spawn({
        let pointsman = pointsman.clone();
        async move { ask_many(&pointsman, "default", 4).await }
    });
    until("all are there", || snapshot(&pointsman, "a").waiting == 3).await;
    let drained = spawn({
        let pointsman = pointsman.clone();
        async move { pointsman.drain(Instant::now() + Duration::from_secs(5)).await }
    });
    // Until the router has heard of it an ask may still be taken.
    let late = loop {
        let answer = pointsman.send(question("default", "Too late?", Duration::from_secs(5))).await;
        if let Err(late) = answer {
            break late;
        }
    };
    assert_eq!(
        (late.failure.class, late.failure.charged, late.trail.0.len()),
        (Class::Cancelled, Charged::No, 0)
    );
    assert!(asks.await.unwrap().iter().all(Result::is_ok));
    assert_eq!(drained.await.unwrap().killed, 0);
    let after = ask(&pointsman, "default", "Anybody?").await.unwrap_err();
    assert_eq!(after.to_string(), "cancelled: pointsman has stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asks_that_outlast_a_drain_are_told_so() {
    let simulator = slow("10s");
    let pointsman =
        start(&narrow(&simulator).replace("2s", "20s").replace("total = \"5s\"", "total = \"1m\""));
    let asks = spawn({
        let pointsman = pointsman.clone();
        async move { ask_many(&pointsman, "default", 3).await }
    });
    until("one is out, others wait", || snapshot(&pointsman, "a").waiting == 2).await;
    let began = Instant::now();
    let drained = pointsman.drain(began + Duration::from_millis(300)).await;
    assert_eq!(drained.killed, 1, "the router, which waited for its asks");
    for answer in asks.await.unwrap() {
        assert_eq!(class(&answer), Some(Class::Cancelled));
    }
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    until("the call that was out is broken off", || simulator.counts().in_flight == 0).await;
}

/// Counts while it lives.
struct Living(Arc<AtomicUsize>);

impl Drop for Living {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Leaves something in the runtime that only the end of its threads takes away.
fn inhabit(pointsman: &pointsman::runtime::Pointsman, living: &Arc<AtomicUsize>) {
    living.fetch_add(1, SeqCst);
    let guest = Living(living.clone());
    drop(pointsman.runtime().spawn(async move {
        let _guest = guest;
        std::future::pending::<()>().await;
    }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_live_side_by_side_and_end_with_their_last_handle() {
    let simulator = play(Settings::default());
    let (first, second) = (start(&narrow(&simulator)), start(&narrow(&simulator)));
    let living = Arc::new(AtomicUsize::new(0));
    inhabit(&first, &living);
    let clone = first.clone();
    assert!(
        ask(&first, "default", "First?").await.is_ok() && ask(&second, "default", "Second?").await.is_ok()
    );
    drop(first);
    assert!(ask(&clone, "default", "Still there?").await.is_ok());
    assert_eq!(living.load(SeqCst), 1);
    drop(clone);
    until("its threads end", || living.load(SeqCst) == 0).await;
    assert!(ask(&second, "default", "And the other?").await.is_ok());
}

#[test]
fn it_lives_in_an_actix_system_and_without_any_runtime() {
    let config = "[provider.simulated]\nbase_url = \"simulator\"";
    actix_web::rt::System::new().block_on(async {
        let pointsman = start(config);
        assert!(ask(&pointsman, "default", "In actix?").await.unwrap().practice);
        actix_web::rt::spawn(async move { assert!(ask(&pointsman, "default", "In a task?").await.is_ok()) })
            .await
            .unwrap();
    });
    let pointsman = start(config);
    let asked = pointsman.runtime().block_on(ask(&pointsman, "default", "In nothing?"));
    assert!(asked.unwrap().practice);
}
