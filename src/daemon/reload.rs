//! Reloads the configuration: on a signal, when its file changes, or when a caller asks.

use serde_json::json;

use crate::config::Config;
use crate::runtime::{self, ReloadReport};
use crate::types::error_chain;

use super::daemon::Daemon;
use super::error::Error;
use super::events::EventKind;

impl Daemon {
    /// Loads the configuration again and applies it. `by` is who asked. A faulty configuration changes nothing; it is shown in
    /// [`readiness`](Self::readiness) until another reload.
    ///
    /// # Errors
    /// All faults of the configuration.
    pub async fn reload(&self, by: &str) -> Result<ReloadReport, Error> {
        self.check_running()?;
        let _one_at_a_time = self.reloading().lock().await;
        let loaded = self.load_config();
        let reloaded = match loaded {
            Ok(config) => Box::pin(self.apply(&config)).await,
            Err(diagnostics) => Err(Error::Diagnostics(diagnostics)),
        };
        match &reloaded {
            Ok(report) => {
                self.set_reload_fault(None);
                let changes: Vec<String> = report.changes.iter().map(ToString::to_string).collect();
                tracing::info!(by, changes = changes.len(), "the configuration was reloaded");
                self.events().record(
                    EventKind::ConfigurationReloaded,
                    None,
                    json!({ "by": by, "changes": changes }),
                );
            }
            Err(error) => {
                let faults: Vec<String> = match error.diagnostics() {
                    Some(diagnostics) => diagnostics.0.iter().map(ToString::to_string).collect(),
                    None => vec![error_chain(error)],
                };
                tracing::error!(
                    by,
                    ?faults,
                    "the configuration was not reloaded; the previous one is in use"
                );
                self.set_reload_fault(Some(faults.join("; ")));
                self.events().record(
                    EventKind::ConfigurationReloaded,
                    None,
                    json!({ "by": by, "faults": faults }),
                );
            }
        }
        reloaded
    }

    async fn apply(&self, config: &Config) -> Result<ReloadReport, Error> {
        let report =
            self.pointsman().reload(config).await.map_err(|error: runtime::Error| Error::from(error))?;
        self.pointsman().sync_budgets(&**self.store()).await?;
        // A cap may have been raised.
        self.resume_after_budget().await;
        Ok(report)
    }
}
