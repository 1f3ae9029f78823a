//! Builds the providers' accounts and the specs of the supervised actors. Starts nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use actix::prelude::*;
use indexmap::IndexMap;

use crate::config::{Config, ResolvedConfig, ResolvedProvider, SupervisorSettings};
use crate::provider::{self, Account, HealthSink, Provider};
use crate::router::{EmbeddingBatcher, Route, RouteHandle, Router, TargetHandle};
use crate::supervisor::{ChildSpec, Slot, WhenExhausted};
use crate::types::{ProviderName, RouteName};

use super::budgets::DayBudgets;
use super::error::Error;
use super::simulated_provider::SimulatedProviders;
use super::threads::Arbiters;

/// The state of each provider that has an account.
pub(super) type Providers = IndexMap<ProviderName, Arc<provider::State>>;

pub(super) fn account(
    name: &ProviderName,
    ready: &ResolvedProvider,
    simulated: &SimulatedProviders,
    budgets: &DayBudgets,
) -> Result<Account, Error> {
    let settings = ready.settings.clone();
    let base_url = match &settings.base_url {
        _ if settings.is_simulated() => {
            simulated.base_url(settings.format).ok_or_else(|| Error::NoSimulator(name.clone()))?
        }
        Some(base_url) => base_url.clone(),
        None => settings.format.default_base_url().to_owned(),
    };
    let keys = ready.keys.clone();
    let headers = ready.headers.clone();
    Ok(Account { name: name.clone(), settings, base_url, keys, headers, budgets: budgets.of_provider(name) })
}

pub(super) fn router_spec(
    config: &Config,
    usable: &ResolvedConfig,
    providers: &Providers,
    (slot, draining): (&Slot<Router>, &Arc<AtomicBool>),
    arbiters: &Arbiters,
) -> ChildSpec {
    let target = |target: &crate::router::Target| {
        let provider = providers.get(&target.name.provider)?.clone();
        Some(TargetHandle { name: target.name.clone(), weight: target.weight.get(), provider })
    };
    let routes: HashMap<RouteName, RouteHandle> = usable
        .routes
        .iter()
        .map(|(name, route)| {
            let targets = route.targets.iter().filter_map(target).collect();
            let Route { policy, hedge_after, failover_refusals, .. } = *route;
            (name.clone(), RouteHandle { policy, targets, hedge_after, failover_refusals })
        })
        .collect();
    let retry = config.retry;
    let disabled = config.routes.keys().filter_map(|name| {
        let diagnostic = usable.route(name).err()?;
        Some((name.clone(), diagnostic.to_string()))
    });
    let first = Router::new(routes, retry, draining.clone()).with_disabled_routes(disabled.collect());
    let make = move |_: &mut Context<Router>| first.next_incarnation();
    ChildSpec::in_place("router", slot.clone(), make)
        .on([arbiters.core.clone()])
        .policy(config.supervisor.policy(config.supervisor.router_restarts))
        .when_exhausted(WhenExhausted::Escalate)
}

/// Joins the requests for embeddings of callers outside of runs.
pub(super) fn embedding_batcher(usable: &ResolvedConfig, providers: &Providers) -> Arc<EmbeddingBatcher> {
    let routes = usable.routes.iter().map(|(name, route)| {
        let targets = route.targets.iter().filter_map(|target| providers.get(&target.name.provider));
        (name.clone(), targets.collect())
    });
    EmbeddingBatcher::new(routes)
}

pub(super) fn provider_spec(
    settings: &SupervisorSettings,
    state: &Arc<provider::State>,
    router: &Slot<Router>,
    arbiters: &Arbiters,
) -> ChildSpec {
    let name = format!("provider {}", state.name());
    let slot = state.slot().clone();
    let state = state.clone();
    let router = router.clone();
    let health_sink: HealthSink = Arc::new(move |health| {
        // A router that has not started gets the next report within a second.
        if let Some(router) = router.shared() {
            router.do_send(health);
        }
    });
    let make = move |_: &mut Context<Provider>| Provider::new(state.clone(), health_sink.clone());
    ChildSpec::new(name, slot, make)
        .on([arbiters.core.clone()])
        .policy(settings.policy(settings.provider_restarts))
        .when_exhausted(WhenExhausted::MarkDown)
}
