//! Actors whose thread dies under them.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use pointsman::provider::{self, Account, Call, Provider};
use pointsman::router::{LaneHandle, Policy, RetrySettings, RouteHandle, Router};
use pointsman::simulator::{Simulator, Vendor};
use pointsman::supervisor::{ChildSpec, Children, Exit, GaveUp, Slot, Start, Supervisor};
use pointsman::types::{Asker, Priority, Prompt};
use tokio::time::Instant;

use super::stage::*;

struct Nobody;

impl Actor for Nobody {
    type Context = Context<Self>;
}

impl Handler<GaveUp> for Nobody {
    type Result = ();

    fn handle(&mut self, _: GaveUp, _: &mut Self::Context) {}
}

fn call(number: usize) -> Call {
    Call {
        prompt: Arc::new(Prompt::text(format!("Question {number}?"))),
        model: "m".into(),
        priority: Priority::Batch,
        asker: Asker::default(),
        retry: false,
        alone: false,
        stay: true,
        not_with: Vec::new(),
        departure: None,
        purse: None,
        held: pointsman::guard::HeldMemory::default(),
        deadline: Instant::now() + Duration::from_secs(20),
    }
}

#[test]
fn a_provider_that_is_killed_under_its_calls_loses_and_forgets_nothing() {
    System::new().block_on(async {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let anywhere = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let settings = toml::from_str("latency = \"50ms\"").unwrap();
        let simulator = Simulator::start(settings, anywhere, runtime.handle()).unwrap();
        let base_url = simulator.base_url(Vendor::OpenAi);
        let settings = toml::from_str(&format!(
            "base_url = \"{base_url}\"\nmodels.m = {{ name = \"m\" }}\nlimits.concurrency = 4{PATIENT}"
        ));
        let (settings, headers) = (settings.unwrap(), http::HeaderMap::new());
        let account =
            Account { name: "a".into(), settings, base_url, keys: Vec::new(), headers, purses: Vec::new() };
        let state = provider::State::new(account, runtime.handle().clone()).unwrap();
        let supervisor = Supervisor::new(Nobody.start().recipient()).start();
        let (first, second) = (Arbiter::new(), Arbiter::new());
        let life = state.clone();
        let make = move |_: &mut Context<Provider>| Provider::new(life.clone(), Arc::new(|_| {}));
        let spec = ChildSpec::new("a", state.slot().clone(), make).on([first.handle(), second.handle()]);
        supervisor.send(Start(spec)).await.unwrap().unwrap();
        until("it lives", || state.is_up()).await;
        let sent: Vec<_> = (0..12).map(|number| state.call(call(number)).unwrap()).collect();
        let answers = actix_web::rt::spawn(futures_util::future::join_all(sent));
        until("four are out, others wait", || state.snapshot(Instant::now()).waiting == 8).await;
        // Its thread dies under it: nothing is asked to stop.
        first.stop();
        first.join().unwrap();
        let answers = answers.await.unwrap();
        assert!(answers.into_iter().all(|answer| answer.unwrap().unwrap().result.is_ok()));
        let (after, counts) = (state.snapshot(Instant::now()), simulator.counts());
        assert_eq!((after.calls, after.in_flight, after.waiting), (12, 0, 0));
        assert_eq!((counts.answered, counts.abandoned, counts.peak_in_flight), (12, 0, 4));
        let child = supervisor.send(Children).await.unwrap().remove(0);
        assert_eq!((child.life, child.last_exit), (2, Some(Exit::Killed)));
        drop(simulator);
        runtime.shutdown_background();
    });
}

#[test]
fn asks_that_are_on_their_way_outlive_a_router_that_is_killed() {
    System::new().block_on(async {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let anywhere = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let play = |settings: &str| {
            Simulator::start(toml::from_str(settings).unwrap(), anywhere, runtime.handle()).unwrap()
        };
        let simulators =
            [("a", play("faults = [{ kind = \"server_error\" }]")), ("b", play("latency = \"300ms\""))];
        let supervisor = Supervisor::new(Nobody.start().recipient()).start();
        let (first, second, third) = (Arbiter::new(), Arbiter::new(), Arbiter::new());
        let mut lanes = Vec::new();
        for (name, simulator) in &simulators {
            let base_url = simulator.base_url(Vendor::OpenAi);
            let settings = format!("base_url = \"{base_url}\"\nmodels.m = {{ name = \"m\" }}{PATIENT}");
            let (settings, headers) = (toml::from_str(&settings).unwrap(), http::HeaderMap::new());
            let (name, keys, purses) = ((*name).into(), Vec::new(), Vec::new());
            let account = Account { name, settings, base_url, keys, headers, purses };
            let state = provider::State::new(account, runtime.handle().clone()).unwrap();
            let life = state.clone();
            let make = move |_: &mut Context<Provider>| Provider::new(life.clone(), Arc::new(|_| {}));
            let spec =
                ChildSpec::new(state.name().to_string(), state.slot().clone(), make).on([third.handle()]);
            supervisor.send(Start(spec)).await.unwrap().unwrap();
            let name = format!("{}/m", state.name()).parse().unwrap();
            lanes.push(LaneHandle { name, weight: 1, provider: state });
        }
        let b = lanes[1].provider.clone();
        let route = RouteHandle { policy: Policy::Priority, lanes, ..RouteHandle::default() };
        let routes = [("default".into(), route)].into();
        let router = Router::new(routes, RetrySettings::default(), runtime.handle().clone(), Arc::default());
        let (slot, make) = (Slot::default(), move |_: &mut Context<Router>| router.next_life());
        let spec = ChildSpec::in_place("router", slot.clone(), make).on([first.handle(), second.handle()]);
        supervisor.send(Start(spec)).await.unwrap().unwrap();
        let ask = question("default", "Who is there?", Duration::from_secs(20));
        let answer = runtime.spawn(pointsman::router::question(&slot, ask));
        until("the first lane has failed, the second is asked", || b.snapshot(Instant::now()).in_flight == 1)
            .await;
        first.stop();
        first.join().unwrap();
        let answer = answer.await.unwrap().unwrap();
        assert_eq!((answer.lane.to_string().as_str(), answer.lost), ("b/m", 0));
        let counts = simulators.each_ref().map(|(_, simulator)| simulator.counts());
        assert_eq!((counts[1].requests, counts[1].abandoned), (1, 0), "{:?}", counts[0]);
        drop(simulators);
        runtime.shutdown_background();
    });
}
