//! Actors whose thread dies while they run.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use pointsman::provider::{self, Account, Call, Provider};
use pointsman::router::{Policy, RetrySettings, RouteHandle, Router, TargetHandle};
use pointsman::simulator::{Simulator, Vendor};
use pointsman::supervisor::{ChildSpec, Children, Exit, RestartsExhausted, Slot, Start, Supervisor};
use pointsman::types::{Priority, Prompt, RequestContext};
use tokio::time::Instant;

use super::support::*;

struct IgnoreExhausted;

impl Actor for IgnoreExhausted {
    type Context = Context<Self>;
}

impl Handler<RestartsExhausted> for IgnoreExhausted {
    type Result = ();

    fn handle(&mut self, _: RestartsExhausted, _: &mut Self::Context) {}
}

fn call(number: usize) -> Call {
    Call {
        prompt: Arc::new(Prompt::text(format!("Request {number}."))),
        model: "m".into(),
        priority: Priority::Batch,
        context: RequestContext::default(),
        is_retry: false,
        only_option_now: false,
        only_option: true,
        excluded_keys: Vec::new(),
        dispatch_signal: None,
        stream: None,
        budget: None,
        scope_budget: None,
        memory: pointsman::guard::HeldMemory::default(),
        trace: pointsman::telemetry::CallTrace::default(),
        deadline: Instant::now() + Duration::from_secs(20),
    }
}

#[test]
fn a_provider_whose_thread_dies_during_calls_loses_none() {
    System::new().block_on(async {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let any_port = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let settings = toml::from_str("latency = \"50ms\"").unwrap();
        let simulator = Simulator::start(settings, any_port, runtime.handle()).unwrap();
        let base_url = simulator.base_url(Vendor::OpenAi);
        let settings = toml::from_str(&format!(
            "base_url = \"{base_url}\"\nmodels.m = {{ name = \"m\" }}\nlimits.concurrency = 4{LONG_TIMEOUTS}"
        ));
        let account = Account {
            name: "a".into(),
            settings: settings.unwrap(),
            base_url,
            keys: Vec::new(),
            headers: http::HeaderMap::new(),
            budgets: Vec::new(),
        };
        let state = provider::State::new(account, runtime.handle().clone()).unwrap();
        let supervisor = Supervisor::new(IgnoreExhausted.start().recipient()).start();
        let first = Arbiter::new();
        let second = Arbiter::new();
        let actor_state = state.clone();
        let make = move |_: &mut Context<Provider>| Provider::new(actor_state.clone(), Arc::new(|_| {}));
        let spec = ChildSpec::new("a", state.slot().clone(), make).on([first.handle(), second.handle()]);
        supervisor.send(Start(spec)).await.unwrap().unwrap();
        wait_until("the provider has started", || state.is_up()).await;
        let calls: Vec<_> = (0..12).map(|number| state.submit(call(number)).unwrap()).collect();
        let results = actix_web::rt::spawn(futures_util::future::join_all(calls));
        wait_until("four calls are in flight, the others queued", || {
            state.snapshot(Instant::now()).queued == 8
        })
        .await;
        // The thread dies. The actor gets no request to stop.
        first.stop();
        first.join().unwrap();
        let results = results.await.unwrap();
        assert!(results.into_iter().all(|response| response.unwrap().unwrap().result.is_ok()));
        let after = state.snapshot(Instant::now());
        let counts = simulator.counts();
        assert_eq!((after.calls, after.in_flight, after.queued), (12, 0, 0));
        assert_eq!((counts.answered, counts.abandoned, counts.peak_in_flight), (12, 0, 4));
        let child = supervisor.send(Children).await.unwrap().remove(0);
        assert_eq!((child.incarnation, child.last_exit), (2, Some(Exit::Killed)));
        drop(simulator);
        runtime.shutdown_background();
    });
}

#[test]
fn requests_in_flight_survive_a_router_whose_thread_dies() {
    System::new().block_on(async {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let any_port = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let start_simulator = |settings: &str| {
            Simulator::start(toml::from_str(settings).unwrap(), any_port, runtime.handle()).unwrap()
        };
        let simulators = [
            ("a", start_simulator("faults = [{ kind = \"server_error\" }]")),
            ("b", start_simulator("latency = \"300ms\"")),
        ];
        let supervisor = Supervisor::new(IgnoreExhausted.start().recipient()).start();
        let first = Arbiter::new();
        let second = Arbiter::new();
        let third = Arbiter::new();
        let mut targets = Vec::new();
        for (name, simulator) in &simulators {
            let base_url = simulator.base_url(Vendor::OpenAi);
            let settings = format!("base_url = \"{base_url}\"\nmodels.m = {{ name = \"m\" }}{LONG_TIMEOUTS}");
            let account = Account {
                name: (*name).into(),
                settings: toml::from_str(&settings).unwrap(),
                base_url,
                keys: Vec::new(),
                headers: http::HeaderMap::new(),
                budgets: Vec::new(),
            };
            let state = provider::State::new(account, runtime.handle().clone()).unwrap();
            let actor_state = state.clone();
            let make = move |_: &mut Context<Provider>| Provider::new(actor_state.clone(), Arc::new(|_| {}));
            let spec =
                ChildSpec::new(state.name().to_string(), state.slot().clone(), make).on([third.handle()]);
            supervisor.send(Start(spec)).await.unwrap().unwrap();
            let name = format!("{}/m", state.name()).parse().unwrap();
            targets.push(TargetHandle { name, weight: 1, provider: state });
        }
        let b = targets[1].provider.clone();
        let route = RouteHandle { policy: Policy::Priority, targets, ..RouteHandle::default() };
        let routes = [("default".into(), route)].into();
        let router = Router::new(routes, RetrySettings::default(), Arc::default());
        let slot = Slot::default();
        let make = move |_: &mut Context<Router>| router.next_incarnation();
        let spec = ChildSpec::in_place("router", slot.clone(), make).on([first.handle(), second.handle()]);
        supervisor.send(Start(spec)).await.unwrap().unwrap();
        let request = new_request("default", "Hello?", Duration::from_secs(20));
        let response = runtime.spawn(pointsman::router::send_request(&slot, request));
        wait_until("the first target has failed, and the second has a call in flight", || {
            b.snapshot(Instant::now()).in_flight == 1
        })
        .await;
        first.stop();
        first.join().unwrap();
        let response = response.await.unwrap().unwrap();
        assert_eq!((response.target.to_string().as_str(), response.resends), ("b/m", 0));
        let counts = simulators.each_ref().map(|(_, simulator)| simulator.counts());
        assert_eq!((counts[1].requests, counts[1].abandoned), (1, 0), "{:?}", counts[0]);
        drop(simulators);
        runtime.shutdown_background();
    });
}
