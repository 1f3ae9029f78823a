//! Actors whose thread dies under them.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use pointsman::provider::{self, Account, Call, Provider};
use pointsman::simulator::{Simulator, Vendor};
use pointsman::supervisor::{ChildSpec, Children, Exit, GaveUp, Start, Supervisor};
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
        departure: None,
        purse: None,
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
