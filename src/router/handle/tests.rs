//! The handle counts every request once, however it ends.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::join_all;
use http::HeaderMap;
use tokio::time::timeout;

use super::super::client::send_request;
use super::super::shared_routes::RouteTable;
use super::*;
use crate::provider::{self, Account};
use crate::router::settings::{Policy, RetrySettings};
use crate::router::target::{RouteHandle, TargetHandle};
use crate::supervisor::RestartsExhausted;
use crate::telemetry::{Samples, text_of};
use crate::types::{Cause, Priority, RequestContext};

struct IgnoreExhausted;

impl Actor for IgnoreExhausted {
    type Context = Context<Self>;
}

impl Handler<RestartsExhausted> for IgnoreExhausted {
    type Result = ();

    fn handle(&mut self, _: RestartsExhausted, _: &mut Self::Context) {}
}

/// A provider without an actor: every request waits.
fn absent_provider() -> Arc<provider::State> {
    let account = Account {
        name: "absent".into(),
        settings: provider::Settings::simulated(),
        base_url: "http://127.0.0.1:9/v1".to_owned(),
        keys: Vec::new(),
        headers: HeaderMap::new(),
        budgets: Vec::new(),
    };
    provider::State::new(account, Runtime::current()).unwrap()
}

/// A router with the route `waiting`, along which every request waits.
fn router() -> Slot<Router> {
    let target = TargetHandle { name: "absent/any".parse().unwrap(), weight: 1, provider: absent_provider() };
    let route = RouteHandle { policy: Policy::Priority, targets: vec![target], ..RouteHandle::default() };
    let routes = HashMap::from([("waiting".into(), route)]);
    Router::new(routes, RetrySettings::default(), Arc::default()).start().into()
}

fn handle(metrics: &Arc<RequestMetrics>, draining: &Arc<AtomicBool>) -> RouterHandle {
    let supervisor = Supervisor::new(IgnoreExhausted.start().recipient()).start();
    let arbiter = Arbiter::current();
    let handle = RouterHandle::new(router(), supervisor, draining.clone(), Runtime::current(), arbiter);
    handle.with_metrics(metrics.clone())
}

/// Returns the value of a series in the text of the metrics.
fn value(metrics: &RequestMetrics, series: &str) -> f64 {
    let mut samples = Samples::default();
    metrics.report_metrics(&mut samples);
    let text = text_of(&samples).replace("{}", "");
    let mut values = text.lines().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    values.next().unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
}

/// Returns the number of requests that ended with this class, and of all that ended or are pending.
fn counts(metrics: &RequestMetrics, class: Class) -> (f64, f64) {
    let of = |outcome: &str| value(metrics, &format!("pointsman_requests_total{{outcome=\"{outcome}\"}}"));
    let failed: f64 = Class::ALL.into_iter().map(|class| of(class.as_str())).sum();
    (of(class.as_str()), failed + of("answered") + value(metrics, "pointsman_requests_pending"))
}

fn overheads(metrics: &RequestMetrics) -> f64 {
    value(metrics, "pointsman_request_overhead_seconds_count")
}

fn unroutable() -> Request {
    Request::new("unknown", "Hello?")
}

fn waiting() -> Request {
    Request::new("waiting", "Hello?").with_priority(Priority::Batch)
}

#[actix::test]
async fn a_request_is_counted_once_by_its_class_in_whatever_way_it_is_sent() {
    let metrics = Arc::new(RequestMetrics::default());
    let handle = handle(&metrics, &Arc::default());
    handle.send(unroutable()).await.unwrap_err();
    assert_eq!(counts(&metrics, Class::ApiError), (1.0, 1.0));
    handle.try_send(unroutable()).await.unwrap_err();
    handle.stream(unroutable()).response().await.unwrap_err();
    handle.recipient().send(unroutable()).await.unwrap().unwrap_err();
    assert_eq!(counts(&metrics, Class::ApiError), (4.0, 4.0));
    assert_eq!(overheads(&metrics), 4.0);
}

#[actix::test]
async fn a_request_whose_caller_is_gone_is_counted_as_cancelled_without_an_overhead() {
    let metrics = Arc::new(RequestMetrics::default());
    let handle = handle(&metrics, &Arc::default());
    let moment = Duration::from_millis(20);
    timeout(moment, handle.send(waiting())).await.unwrap_err();
    assert_eq!(counts(&metrics, Class::Cancelled), (1.0, 1.0));
    let stream = handle.stream(waiting());
    timeout(moment, handle.recipient().send(waiting())).await.unwrap_err();
    assert!(value(&metrics, "pointsman_requests_pending") >= 1.0, "the stream");
    drop(stream);
    let all_ended = async {
        while counts(&metrics, Class::Cancelled) != (3.0, 3.0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(30), all_ended).await.unwrap();
    assert_eq!(overheads(&metrics), 0.0);
}

#[actix::test]
async fn the_wait_for_a_provider_is_not_an_overhead() {
    let metrics = Arc::new(RequestMetrics::default());
    let handle = handle(&metrics, &Arc::default());
    let time = Duration::from_millis(700);
    handle.send(waiting().with_deadline(time)).await.unwrap_err();
    assert_eq!(overheads(&metrics), 1.0);
    let overhead = value(&metrics, "pointsman_request_overhead_seconds_sum");
    assert!(overhead < time.as_secs_f64() / 2.0, "{overhead}");
}

#[actix::test]
async fn a_request_after_the_stop_is_counted_as_cancelled() {
    let metrics = Arc::new(RequestMetrics::default());
    let draining = Arc::new(AtomicBool::new(true));
    let handle = handle(&metrics, &draining);
    handle.send(unroutable()).await.unwrap_err();
    handle.stream(unroutable()).response().await.unwrap_err();
    handle.recipient().send(unroutable()).await.unwrap().unwrap_err();
    assert_eq!(counts(&metrics, Class::Cancelled), (3.0, 3.0));
}

#[actix::test]
async fn each_request_of_a_joined_call_is_counted_once() {
    let metrics = Arc::new(RequestMetrics::default());
    let target = TargetHandle { name: "absent/any".parse().unwrap(), weight: 1, provider: absent_provider() };
    let route = RouteHandle { targets: vec![target], ..RouteHandle::default() };
    let routes = HashMap::from([("joined".into(), route)]);
    // The router does not have the route, so the joined request fails without a call.
    let routes = SharedRoutes::new(RouteTable::new(routes, RetrySettings::default()));
    let batcher = || EmbeddingBatcher::new(routes.clone());
    assert!(batcher().max_inputs([&"joined".into()]) > 1);
    let handle = handle(&metrics, &Arc::default()).with_embedding_batcher(batcher());
    let requests = ["low tide", "ebb tide"].map(|input| EmbeddingRequest::new("joined", [input]));
    let results = join_all(requests.clone().map(|request| handle.embed(request))).await;
    assert!(results.iter().all(Result::is_err));
    assert_eq!(counts(&metrics, Class::ApiError), (2.0, 2.0));
    assert_eq!(overheads(&metrics), 2.0);

    // A run sends to the batcher itself.
    let of_run = Arc::new(RequestMetrics::default());
    let batcher = batcher().with_metrics(of_run.clone());
    let router = router();
    let results = join_all(requests.map(|request| batcher.send(&router, request.into()))).await;
    assert!(results.iter().all(Result::is_err));
    assert_eq!(
        (counts(&of_run, Class::ApiError), counts(&metrics, Class::ApiError)),
        ((2.0, 2.0), (2.0, 2.0))
    );
}

#[actix::test]
async fn a_request_uses_the_routes_that_are_in_use_when_it_begins() {
    let routes = SharedRoutes::default();
    let router: Slot<Router> = Router::with_shared_routes(routes.clone(), Arc::default()).start().into();
    let send = |step: Option<&str>| {
        let context = RequestContext { step: step.map(Into::into), ..RequestContext::default() };
        let request = Request::new("waiting", "?").with_deadline(Duration::from_millis(200));
        send_request(&router, request.with_context(context))
    };
    let unknown = send(None).await.unwrap_err();
    assert_eq!((unknown.failure.class, unknown.failure.cause), (Class::ApiError, None));
    // A run begins only with usable routes, so its item has not failed by itself.
    let removed = send(Some("s")).await.unwrap_err();
    let expected = (Class::NetworkError, Some(Cause::OutOfService));
    assert_eq!((removed.failure.class, removed.failure.cause), expected);

    let target = TargetHandle { name: "absent/any".parse().unwrap(), weight: 1, provider: absent_provider() };
    let route = RouteHandle { targets: vec![target.clone()], ..RouteHandle::default() };
    let table = HashMap::from([("waiting".into(), route)]);
    routes.replace(RouteTable::new(table, RetrySettings::default()));
    let waiting = send(None).await.unwrap_err();
    assert!(!waiting.attempts.0.is_empty(), "{waiting:?}");
    assert_ne!(waiting.failure.class, Class::ApiError);

    // All its targets are out of service: it gets a new plan, and fails when the routes have no other target.
    target.provider.retire(None);
    let refused = send(Some("s")).await.unwrap_err();
    assert_eq!((refused.failure.class, refused.failure.cause), expected);
}
