//! Priority, deadlines and cancellation of queued requests; restarts of actors; drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use pointsman::simulator::{Fault, FaultKind, Settings, Simulator};
use pointsman::types::{Charged, Class, Priority};
use tokio::time::Instant;

use super::support::*;

fn start_slow_simulator(latency: &str) -> Simulator {
    start_simulator(toml::from_str::<Settings>(&format!("latency = \"{latency}\"")).unwrap())
}

/// Returns the configuration of a provider with one call at a time.
fn one_at_a_time(simulator: &Simulator) -> String {
    provider_config("a", simulator, &format!("limits.concurrency = 1{LONG_TIMEOUTS}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interactive_request_is_sent_before_queued_batch_requests() {
    let simulator = start_slow_simulator("60ms");
    let pointsman = start_pointsman(&one_at_a_time(&simulator));
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let send = |name: &'static str, priority| {
        let mut request = new_request("default", name, Duration::from_secs(20));
        request.priority = priority;
        let pointsman = pointsman.clone();
        let order = order.clone();
        spawn(async move {
            pointsman.send(request).await.unwrap();
            order.lock().unwrap().push(name);
        })
    };
    let mut tasks = vec![send("in flight", Priority::Batch)];
    wait_until("the first is in flight", || provider_snapshot(&pointsman, "a").in_flight == 1).await;
    for (number, name) in ["batch 1", "batch 2", "batch 3"].into_iter().enumerate() {
        tasks.push(send(name, Priority::Batch));
        wait_until("it is queued", || provider_snapshot(&pointsman, "a").queued == number + 1).await;
    }
    tasks.push(send("interactive", Priority::Interactive));
    futures_util::future::join_all(tasks).await;
    assert_eq!(*order.lock().unwrap(), ["in flight", "interactive", "batch 1", "batch 2", "batch 3"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_would_miss_its_deadline_in_the_queue_is_refused_at_once() {
    let slow = start_slow_simulator("400ms");
    let other = start_simulator(Settings::default());
    let config = format!(
        "[route.alone]\ntargets = [\"a/m\"]\n[route.both]\ntargets = [\"a/m\", \"b/m\"]\n{}{}",
        one_at_a_time(&slow),
        provider_config("b", &other, LONG_TIMEOUTS)
    );
    let pointsman = start_pointsman(&config);
    send_request(&pointsman, "alone", "How long does it take?").await.unwrap();
    let first = spawn({
        let pointsman = pointsman.clone();
        async move { send_request(&pointsman, "alone", "A long one.").await }
    });
    wait_until("it is in flight", || provider_snapshot(&pointsman, "a").in_flight == 1).await;
    let start = Instant::now();
    let alone = pointsman.send(new_request("alone", "Quick!", Duration::from_millis(150))).await;
    assert_eq!(
        (attempt_summary(&alone), failure_class(&alone)),
        ("a:refused".to_owned(), Some(Class::Deadline))
    );
    let both = pointsman.send(new_request("both", "Quick!", Duration::from_millis(150))).await;
    assert_eq!(attempt_summary(&both), "a:refused b:ok");
    assert!(start.elapsed() < Duration::from_millis(100), "{:?}", start.elapsed());
    assert_eq!(attempt_summary(&first.await.unwrap()), "a:ok");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_whose_deadline_passes_in_the_queue_fails_then_and_costs_nothing() {
    let simulator = start_simulator(Settings::default());
    let pointsman = start_pointsman(&one_at_a_time(&simulator).replace("2s", "3s"));
    send_request(&pointsman, "default", "How long does it take?").await.unwrap();
    simulator.set(Settings { faults: vec![Fault::new(FaultKind::Silent)], ..Settings::default() });
    let hanging = pointsman.send(new_request("default", "Hm.", Duration::from_secs(2)));
    let queued = async {
        wait_until("one is in flight", || provider_snapshot(&pointsman, "a").in_flight == 1).await;
        let start = Instant::now();
        let result = pointsman.send(new_request("default", "Well?", Duration::from_millis(200))).await;
        (result, start.elapsed())
    };
    let (hanging, (queued, elapsed)) = tokio::join!(hanging, queued);
    assert_eq!(
        (attempt_summary(&queued), failure_class(&queued)),
        ("a:refused".to_owned(), Some(Class::Deadline))
    );
    assert_eq!(queued.unwrap_err().failure.charged, Charged::No);
    assert!(elapsed >= Duration::from_millis(195) && elapsed < Duration::from_millis(700), "{elapsed:?}");
    // The request in flight may have been charged.
    assert_eq!(
        (attempt_summary(&hanging), failure_class(&hanging)),
        ("a:deadline".to_owned(), Some(Class::Deadline))
    );
    assert_eq!(hanging.unwrap_err().failure.charged, Charged::Maybe);
    assert_eq!(simulator.counts().requests, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_request_is_removed_from_the_queue_or_its_call_is_aborted() {
    let simulator = start_slow_simulator("10s");
    let pointsman = start_pointsman(
        &one_at_a_time(&simulator).replace("2s", "20s").replace("total = \"5s\"", "total = \"1m\""),
    );
    let send = |text: &'static str| {
        let pointsman = pointsman.clone();
        spawn(async move { send_request(&pointsman, "default", text).await })
    };
    let in_flight = send("In flight.");
    wait_until("the first arrives", || simulator.counts().in_flight == 1).await;
    let queued = send("Queued.");
    wait_until("the second is queued", || provider_snapshot(&pointsman, "a").queued == 1).await;
    queued.abort();
    wait_until("the second has left the queue", || provider_snapshot(&pointsman, "a").queued == 0).await;
    simulator.set(Settings::default());
    in_flight.abort();
    wait_until("the first is aborted", || simulator.counts().abandoned == 1).await;
    // Its slot is free again.
    assert!(send_request(&pointsman, "default", "Next?").await.is_ok());
    assert_eq!(simulator.counts().requests, 2);
    assert_eq!(provider_snapshot(&pointsman, "a").in_flight, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_restarted_during_calls_loses_none() {
    let simulator = start_slow_simulator("50ms");
    let config = format!(
        "{QUICK_RETRY}{}",
        provider_config("a", &simulator, &format!("limits.concurrency = 4{LONG_TIMEOUTS}"))
    );
    let pointsman = start_pointsman(&config);
    let sending = spawn({
        let pointsman = pointsman.clone();
        async move { send_requests(&pointsman, "default", 60).await }
    });
    for calls in [4, 16, 32, 48] {
        wait_until("some calls are sent", || provider_snapshot(&pointsman, "a").calls >= calls).await;
        pointsman.restart("provider a").await.unwrap();
        // When a call ends its slot goes to the next call, so a snapshot may show one call fewer for an instant.
        // If the restart lost calls in flight, the peak at the simulator would be higher.
        wait_until("calls in flight continue", || provider_snapshot(&pointsman, "a").in_flight == 4).await;
    }
    let results = sending.await.unwrap();
    assert!(results.iter().all(|result| attempt_log(result).calls() == 1 && result.is_ok()));
    let snapshot = provider_snapshot(&pointsman, "a");
    assert_eq!((snapshot.calls, snapshot.in_flight, snapshot.queued), (60, 0, 0));
    let counts = simulator.counts();
    assert_eq!((counts.answered, counts.abandoned, counts.peak_in_flight), (60, 0, 4));
    let children = pointsman.children().await;
    let incarnation =
        children.iter().find(|child| &*child.name == "provider a").map(|child| child.incarnation);
    assert_eq!(incarnation, Some(5));
    assert!(pointsman.restart("provider b").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_restarted_during_requests_loses_and_refuses_none() {
    let simulator = start_slow_simulator("50ms");
    let config = provider_config("a", &simulator, &format!("limits.concurrency = 4{LONG_TIMEOUTS}"));
    let pointsman = start_pointsman(&config);
    let mut sending = Vec::new();
    for calls in [4, 12, 20] {
        let pointsman = pointsman.clone();
        sending.push(spawn({
            let pointsman = pointsman.clone();
            async move { send_requests(&pointsman, "default", 10).await }
        }));
        wait_until("some calls are sent", || provider_snapshot(&pointsman, "a").calls >= calls).await;
        pointsman.restart("router").await.unwrap();
    }
    for results in sending {
        assert!(results.await.unwrap().iter().all(Result::is_ok));
    }
    assert_eq!((simulator.counts().answered, simulator.counts().abandoned), (30, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_completes_current_requests_and_refuses_new_ones() {
    let simulator = start_slow_simulator("100ms");
    let pointsman = start_pointsman(&one_at_a_time(&simulator));
    let sending = spawn({
        let pointsman = pointsman.clone();
        async move { send_requests(&pointsman, "default", 4).await }
    });
    wait_until("three are queued", || provider_snapshot(&pointsman, "a").queued == 3).await;
    let drained = spawn({
        let pointsman = pointsman.clone();
        async move { pointsman.drain(Duration::from_secs(5)).await }
    });
    // A request may still be accepted until the router has received the drain.
    let error = loop {
        let result = pointsman.send(new_request("default", "Too late?", Duration::from_secs(5))).await;
        if let Err(error) = result {
            break error;
        }
    };
    assert_eq!(
        (error.failure.class, error.failure.charged, error.attempts.0.len()),
        (Class::Cancelled, Charged::No, 0)
    );
    assert!(sending.await.unwrap().iter().all(Result::is_ok));
    assert_eq!(drained.await.unwrap().killed, 0);
    let late = send_request(&pointsman, "default", "Hello?").await.unwrap_err();
    assert_eq!(late.to_string(), "cancelled: pointsman has stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_outlast_a_drain_are_cancelled() {
    let simulator = start_slow_simulator("10s");
    let pointsman = start_pointsman(
        &one_at_a_time(&simulator).replace("2s", "20s").replace("total = \"5s\"", "total = \"1m\""),
    );
    let sending = spawn({
        let pointsman = pointsman.clone();
        async move { send_requests(&pointsman, "default", 3).await }
    });
    wait_until("one is in flight, the others are queued", || provider_snapshot(&pointsman, "a").queued == 2)
        .await;
    let start = Instant::now();
    let drained = pointsman.drain(Duration::from_millis(300)).await;
    assert_eq!(drained.killed, 1, "the router, which waited for its requests");
    for result in sending.await.unwrap() {
        assert_eq!(failure_class(&result), Some(Class::Cancelled));
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    wait_until("the call in flight is aborted", || simulator.counts().in_flight == 0).await;
}

/// Decrements the counter when it is dropped.
struct DropCounter(Arc<AtomicUsize>);

impl Drop for DropCounter {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Spawns a task that never ends. Only the end of the runtime drops it.
fn spawn_endless_task(pointsman: &pointsman::runtime::Pointsman, tasks: &Arc<AtomicUsize>) {
    tasks.fetch_add(1, SeqCst);
    let counter = DropCounter(tasks.clone());
    drop(pointsman.runtime().spawn(async move {
        let _counter = counter;
        std::future::pending::<()>().await;
    }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_are_independent_and_end_with_their_last_handle() {
    let simulator = start_simulator(Settings::default());
    let first = start_pointsman(&one_at_a_time(&simulator));
    let second = start_pointsman(&one_at_a_time(&simulator));
    let tasks = Arc::new(AtomicUsize::new(0));
    spawn_endless_task(&first, &tasks);
    let clone = first.clone();
    assert!(
        send_request(&first, "default", "First?").await.is_ok()
            && send_request(&second, "default", "Second?").await.is_ok()
    );
    drop(first);
    assert!(send_request(&clone, "default", "Still there?").await.is_ok());
    assert_eq!(tasks.load(SeqCst), 1);
    drop(clone);
    wait_until("the threads of the first instance end", || tasks.load(SeqCst) == 0).await;
    assert!(send_request(&second, "default", "And the other?").await.is_ok());
}

#[test]
fn an_instance_works_in_an_actix_system_and_without_a_runtime() {
    let config = "[provider.simulated]\nbase_url = \"simulator\"";
    actix_web::rt::System::new().block_on(async {
        let pointsman = start_pointsman(config);
        assert!(send_request(&pointsman, "default", "In actix?").await.unwrap().simulated);
        actix_web::rt::spawn(async move {
            assert!(send_request(&pointsman, "default", "In a task?").await.is_ok())
        })
        .await
        .unwrap();
    });
    let pointsman = start_pointsman(config);
    let result = pointsman.runtime().block_on(send_request(&pointsman, "default", "Without a runtime?"));
    assert!(result.unwrap().simulated);
}
