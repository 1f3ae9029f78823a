//! Reloads the configuration: on a signal, when its file changes, or when a caller asks.

use serde::Serialize;
use serde_json::json;

use crate::config::{Config, file_content};
use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::runtime;
use crate::types::error_chain;

use super::daemon::Daemon;
use super::error::Error;
use super::events::EventKind;

/// What a reload has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[non_exhaustive]
pub struct Reloaded {
    /// The changes, as sentences.
    pub changes: Vec<String>,
    /// A line for each provider that is left out or simulated, and hints.
    pub notes: Vec<String>,
    /// The faults of pipeline files: a text for each faulty file.
    pub pipeline_faults: Vec<String>,
}

/// Whether a fault that is known already is reported again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KnownFault {
    Reported,
    Quiet,
}

impl Daemon {
    /// Loads the configuration again and applies it. `by` is who asked. A faulty configuration changes nothing; it is shown in
    /// [`readiness`](Self::readiness) until another reload. A faulty pipeline file is shown there until it is corrected.
    ///
    /// # Errors
    /// All faults of the configuration.
    pub async fn reload(&self, by: &str) -> Result<Reloaded, Error> {
        self.reload_now(by, KnownFault::Reported).await
    }

    /// Reloads once more after a fault, which may have ended without a change of the file. The same fault is not reported
    /// again.
    pub(super) async fn retry_reload(&self) {
        // The error is shown in the readiness.
        drop(self.reload_now("the end of a fault", KnownFault::Quiet).await);
    }

    async fn reload_now(&self, by: &str, known_fault: KnownFault) -> Result<Reloaded, Error> {
        self.check_running()?;
        let _one_at_a_time = self.reloading().lock().await;
        let reloaded = match self.load_file() {
            Ok(config) => Box::pin(self.apply(&config)).await,
            Err(diagnostics) => Err(Error::Diagnostics(diagnostics)),
        };
        match &reloaded {
            Ok(Reloaded { changes, pipeline_faults, .. }) => {
                self.set_reload_fault(None);
                tracing::info!(by, changes = changes.len(), "the configuration was reloaded");
                for fault in pipeline_faults {
                    tracing::error!(%fault, "a pipeline file is faulty");
                }
                self.events().record(
                    EventKind::ConfigurationReloaded,
                    None,
                    json!({ "by": by, "changes": changes, "pipeline_faults": pipeline_faults }),
                );
            }
            Err(error) => {
                let faults: Vec<String> = match error.diagnostics() {
                    Some(diagnostics) => diagnostics.0.iter().map(ToString::to_string).collect(),
                    None => vec![error_chain(error)],
                };
                let fault = Some(faults.join("; "));
                if known_fault == KnownFault::Quiet && self.reload_fault() == fault {
                    return reloaded;
                }
                tracing::error!(
                    by,
                    ?faults,
                    "the configuration was not reloaded; the previous one is in use"
                );
                self.set_reload_fault(fault);
                self.events().record(
                    EventKind::ConfigurationReloaded,
                    None,
                    json!({ "by": by, "faults": faults }),
                );
            }
        }
        reloaded
    }

    /// Loads the configuration. A file that is gone is a fault: without it the defaults would replace everything in use.
    fn load_file(&self) -> Result<Config, Diagnostics> {
        let before = self.config();
        let Some(file) = before.file() else { return self.load_config() };
        // Read before it is loaded, so that a change meanwhile is found later.
        self.set_loaded_file(file_content(file));
        let config = self.load_config()?;
        let wrong = match config.file() {
            Some(loaded) if loaded == file => return Ok(config),
            Some(other) if file.exists() => {
                let message =
                    format!("{} is found before {}, which is in use", other.display(), file.display());
                Diagnostic::new(message)
                    .with_help("remove one of them, or name the configuration at the start")
            }
            Some(_) | None => {
                Diagnostic::new(format!("the configuration file {} does not exist", file.display()))
            }
        };
        Err(Diagnostics(vec![wrong]))
    }

    async fn apply(&self, config: &Config) -> Result<Reloaded, Error> {
        let report =
            self.pointsman().reload(config).await.map_err(|error: runtime::Error| Error::from(error))?;
        self.pointsman().sync_budgets(&**self.store()).await?;
        // A cap may have been raised.
        self.resume_after_budget().await;
        let daemon = self.clone();
        // It reads files.
        let pipeline_faults = self
            .blocking(move || Ok(daemon.catalogue().file_faults(daemon.pointsman(), &daemon.config())))
            .await?;
        Ok(Reloaded { changes: report.changes, notes: report.notes, pipeline_faults })
    }
}
