//! Builds the providers' accounts and the specs of the supervised actors. Starts nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use actix::prelude::*;
use indexmap::IndexMap;

use crate::config::{Config, ResolvedConfig, ResolvedProvider, SupervisorSettings};
use crate::provider::{self, Account, HealthSink, Provider};
use crate::router::{Route, RouteHandle, RouteTable, Router, SharedRoutes, TargetHandle};
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

/// Returns the routes of a configuration with the states of their providers.
pub(super) fn route_table(config: &Config, usable: &ResolvedConfig, providers: &Providers) -> RouteTable {
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
    let disabled = config.routes.keys().filter_map(|name| {
        let diagnostic = usable.route(name).err()?;
        Some((name.clone(), diagnostic.to_string()))
    });
    RouteTable::new(routes, config.retry).with_disabled_routes(disabled.collect())
}

pub(super) fn router_spec(
    config: &Config,
    routes: &SharedRoutes,
    (slot, draining): (&Slot<Router>, &Arc<AtomicBool>),
    arbiters: &Arbiters,
) -> ChildSpec {
    let first = Router::with_shared_routes(routes.clone(), draining.clone());
    let make = move |_: &mut Context<Router>| first.next_incarnation();
    ChildSpec::in_place("router", slot.clone(), make)
        .on([arbiters.core.clone()])
        .policy(config.supervisor.policy(config.supervisor.router_restarts))
        .when_exhausted(WhenExhausted::Escalate)
}

/// Returns the name of the actor of a provider. One that takes the place of another has a generation.
pub(super) fn provider_child(name: &ProviderName, generation: Option<u64>) -> String {
    match generation {
        None => format!("provider {name}"),
        Some(generation) => format!("provider {name} (reload {generation})"),
    }
}

pub(super) fn provider_spec(
    name: &str,
    settings: &SupervisorSettings,
    state: &Arc<provider::State>,
    router: &Slot<Router>,
    arbiters: &Arbiters,
) -> ChildSpec {
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
        // The router lets its requests end while the providers still run, also those that were added later.
        .drained_last()
}
