//! Checks whether the daemon can take work.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::timeout;

use crate::types::{RouteName, error_chain};

use super::catalogue::PipelineEntry;
use super::daemon::Daemon;
use super::readiness::{Readiness, Reason, STOPPING, STORE_UNWRITABLE};

/// How long the store may take to accept a write.
const MAX_STORE_WAIT: Duration = Duration::from_secs(2);

impl Daemon {
    /// Checks whether the daemon can take work: it is not stopping, its store can be written, its configuration and its
    /// pipelines are not faulty, and each route that its pipelines and runs use has a usable target. Without either, one route
    /// has to be usable.
    pub async fn readiness(&self) -> Readiness {
        if self.is_stopping() {
            return Readiness::of(vec![Reason { reason: STOPPING, detail: None }]);
        }
        if let Some(recent) = self.last_readiness().recent() {
            return recent;
        }
        let readiness = Readiness::of(self.reasons().await);
        self.last_readiness().set(readiness.clone());
        readiness
    }

    async fn reasons(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        let store = self.store().clone();
        let written =
            self.pointsman().work(async move { timeout(MAX_STORE_WAIT, store.check_writable()).await });
        let failure = match written.await {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(error))) => Some(error_chain(&error)),
            Ok(Err(_)) => Some("it does not accept a write within two seconds".to_owned()),
            Err(error) => Some(error.to_string()),
        };
        if failure.is_some() {
            reasons.push(Reason { reason: STORE_UNWRITABLE, detail: failure });
        }
        if let Some(fault) = self.reload_fault() {
            let reason = "the configuration is faulty, and the one before it is in use";
            reasons.push(Reason { reason, detail: Some(fault) });
        }
        match self.pipelines().await {
            Ok(pipelines) => {
                let faults = pipelines.iter().filter_map(PipelineEntry::file_fault);
                let reason = "a pipeline file is faulty";
                reasons.extend(faults.map(|fault| Reason { reason, detail: Some(fault) }));
                let faults = pipelines.iter().filter_map(PipelineEntry::stored_fault);
                let reason = "a stored pipeline cannot be run with this configuration";
                reasons.extend(faults.map(|fault| Reason { reason, detail: Some(fault) }));
                let used = pipelines.into_iter().flat_map(|pipeline| pipeline.routes);
                let mut used: BTreeSet<RouteName> = used.map(RouteName::from).collect();
                // A reload may have removed a route while a run uses it.
                used.extend(self.pointsman().routes_of_runs());
                reasons.extend(self.unusable_routes(&used));
            }
            Err(error) => {
                reasons.push(Reason {
                    reason: "the pipelines cannot be read",
                    detail: Some(error_chain(&error)),
                });
            }
        }
        reasons
    }

    fn unusable_routes(&self, used: &BTreeSet<RouteName>) -> Vec<Reason> {
        let routes = self.pointsman().route_health();
        let text = |route: &RouteName, why: &str| format!("{route}: {why}");
        if used.is_empty() {
            let unusable = routes.iter().map(|(route, why)| why.as_ref().map(|why| text(route, why)));
            let unusable: Option<Vec<String>> = unusable.collect();
            return match unusable {
                Some(all) => {
                    vec![Reason { reason: "no route has a usable target", detail: Some(all.join("; ")) }]
                }
                None => Vec::new(),
            };
        }
        let reason = "a route in use has no usable target";
        let unusable = used.iter().filter_map(|route| match routes.get(route) {
            Some(why) => Some(text(route, why.as_ref()?)),
            None => Some(text(route, "it is not configured")),
        });
        unusable.map(|detail| Reason { reason, detail: Some(detail) }).collect()
    }
}
