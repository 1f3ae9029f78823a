//! Which routes have a usable target now.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use crate::guard::BreakerState;
use crate::provider::{Snapshot, TargetSnapshot};
use crate::types::{RouteName, TargetName};

use super::pointsman::Pointsman;

impl Pointsman {
    /// Returns the configured routes. Each has `None` if a target can take requests now, and else the reason of each target.
    #[doc(hidden)]
    pub fn route_health(&self) -> BTreeMap<RouteName, Option<String>> {
        let current = self.current();
        let now = Instant::now();
        let snapshots: BTreeMap<_, Snapshot> =
            current.providers.iter().map(|(name, provider)| (name.clone(), provider.snapshot(now))).collect();
        let why_not = |target: &TargetName| match snapshots.get(&target.provider) {
            Some(provider) => why_unusable(provider, target),
            None => Some("its provider is not configured or has no key".to_owned()),
        };
        let of_route = |name: &RouteName| match current.usable.route(name) {
            Err(diagnostic) => Some(diagnostic.to_string()),
            Ok(route) => {
                let reasons: Option<Vec<String>> = route
                    .targets
                    .iter()
                    .map(|target| why_not(&target.name).map(|why| format!("{}: {why}", target.name)))
                    .collect();
                reasons.map(|reasons| reasons.join(", "))
            }
        };
        current.config.routes.keys().map(|name| (name.clone(), of_route(name))).collect()
    }

    /// Returns the routes of the stored runs that are in progress, also those that are not configured any more.
    #[doc(hidden)]
    pub fn routes_of_runs(&self) -> BTreeSet<RouteName> {
        self.sessions().routes()
    }
}

/// Returns why a target takes no requests; `None` if it takes them.
fn why_unusable(provider: &Snapshot, target: &TargetName) -> Option<String> {
    if !provider.up {
        return Some("its provider is down".to_owned());
    }
    if let Some(why) = provider.out_of_service {
        return Some(format!("its provider takes no calls ({why:?})"));
    }
    if !provider.keys.is_empty() && provider.keys.iter().all(|key| !key.usable) {
        let first = provider.keys.iter().find_map(|key| key.class);
        return Some(
            first
                .map_or_else(|| "no key is usable".to_owned(), |class| format!("no key is usable ({class})")),
        );
    }
    let found = provider.targets.iter().find(|found| found.model == target.model)?;
    let TargetSnapshot { breaker, forced_open, last_failure, .. } = found;
    match breaker {
        _ if *forced_open => Some("its breaker was opened by hand".to_owned()),
        BreakerState::Open => {
            let class = last_failure.as_ref().map_or_else(String::new, |(class, _)| format!(" ({class})"));
            Some(format!("its breaker is open{class}"))
        }
        BreakerState::HalfOpen | BreakerState::Closed => None,
    }
}
