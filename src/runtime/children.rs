//! What the supervised actors are made from: the providers' accounts, and a spec for each child.
//!
//! Starts nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use actix::prelude::*;

use crate::config::{Config, ReadyProvider, SupervisorSettings, Usable};
use crate::provider::{self, Account, Provider, TellHealth};
use crate::router::{LaneHandle, Route, RouteHandle, Router};
use crate::supervisor::{ChildSpec, Slot, WhenExhausted};
use crate::types::{ProviderName, RouteName};

use super::error::Error;
use super::played::Played;
use super::pointsman::Providers;
use super::purses::Purses;
use super::threads::Arbiters;

pub(super) fn account(
    name: &ProviderName,
    ready: &ReadyProvider,
    played: &Played,
    purses: &Purses,
) -> Result<Account, Error> {
    let settings = ready.settings.clone();
    let base_url = match &settings.base_url {
        _ if settings.is_practice() => {
            played.base_url(settings.format).ok_or_else(|| Error::NoSimulator(name.clone()))?
        }
        Some(base_url) => base_url.clone(),
        None => settings.format.default_base_url().to_owned(),
    };
    let (keys, headers) = (ready.keys.clone(), ready.headers.clone());
    Ok(Account { name: name.clone(), settings, base_url, keys, headers, purses: purses.of(name) })
}

pub(super) fn router_spec(
    config: &Config,
    usable: &Usable,
    providers: &Providers,
    (slot, draining): (&Slot<Router>, &Arc<AtomicBool>),
    arbiters: &Arbiters,
) -> ChildSpec {
    let lane = |lane: &crate::router::Lane| {
        let provider = providers.get(&lane.name.provider)?.clone();
        Some(LaneHandle { name: lane.name.clone(), weight: lane.weight.get(), provider })
    };
    let routes: HashMap<RouteName, RouteHandle> = usable
        .routes
        .iter()
        .map(|(name, route)| {
            let lanes = route.lanes.iter().filter_map(lane).collect();
            let Route { policy, hedge_after, failover_refusals, .. } = *route;
            (name.clone(), RouteHandle { policy, lanes, hedge_after, failover_refusals })
        })
        .collect();
    let (retry, runtime, draining) = (config.retry, arbiters.runtime.clone(), draining.clone());
    let first = Router::new(routes, retry, runtime, draining);
    let make = move |_: &mut Context<Router>| first.next_life();
    ChildSpec::in_place("router", slot.clone(), make)
        .on([arbiters.core.clone()])
        .policy(config.supervisor.policy(config.supervisor.router_restarts))
        .when_exhausted(WhenExhausted::Escalate)
}

pub(super) fn provider_spec(
    settings: &SupervisorSettings,
    state: &Arc<provider::State>,
    router: &Slot<Router>,
    arbiters: &Arbiters,
) -> ChildSpec {
    let (name, slot) = (format!("provider {}", state.name()), state.slot().clone());
    let (state, router) = (state.clone(), router.clone());
    let tell: TellHealth = Arc::new(move |health| {
        // Who is not there yet is told again within a second.
        if let Some(router) = router.shared() {
            router.do_send(health);
        }
    });
    let make = move |_: &mut Context<Provider>| Provider::new(state.clone(), tell.clone());
    ChildSpec::new(name, slot, make)
        .on([arbiters.core.clone()])
        .policy(settings.policy(settings.provider_restarts))
        .when_exhausted(WhenExhausted::MarkDown)
}
