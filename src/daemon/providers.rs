//! What an operator does with a provider while the daemon runs.

use serde_json::json;

use crate::provider::Snapshot;
use crate::types::{KeyLabel, ProviderName, TargetName};

use super::daemon::Daemon;
use super::error::Error;
use super::events::EventKind;

impl Daemon {
    /// Returns the state of all usable providers.
    pub fn providers(&self) -> Vec<Snapshot> {
        self.pointsman().providers()
    }

    /// Returns the state of a provider.
    ///
    /// # Errors
    /// If there is none.
    pub fn provider(&self, name: &str) -> Result<Snapshot, Error> {
        let found = self.providers().into_iter().find(|snapshot| snapshot.provider.as_str() == name);
        found.ok_or_else(|| Error::NotFound { what: "provider", name: name.to_owned() })
    }

    /// Opens the breaker of a target until it is closed by hand, or closes it. `by` is who does it.
    ///
    /// # Errors
    /// If there is no such target.
    pub fn set_breaker(&self, target: &TargetName, is_open: bool, by: &str) -> Result<Snapshot, Error> {
        if is_open {
            self.pointsman().open_breaker(target)?;
        } else {
            self.pointsman().close_breaker(target)?;
        }
        let change = if is_open { "breaker_opened" } else { "breaker_closed" };
        self.record_provider_change(&target.provider, change, Some(target), by);
        self.provider(target.provider.as_str())
    }

    /// Takes a provider out of service until it is resumed. Its calls in flight end. `by` is who does it.
    ///
    /// # Errors
    /// If there is no such provider.
    pub fn drain_provider(&self, name: &ProviderName, by: &str) -> Result<Snapshot, Error> {
        self.pointsman().drain_provider(name)?;
        self.record_provider_change(name, "drained", None, by);
        self.provider(name.as_str())
    }

    /// Takes a provider into service again. `by` is who does it.
    ///
    /// # Errors
    /// If there is no such provider.
    pub fn resume_provider(&self, name: &ProviderName, by: &str) -> Result<Snapshot, Error> {
        self.pointsman().resume_provider(name)?;
        self.record_provider_change(name, "resumed", None, by);
        self.provider(name.as_str())
    }

    /// Reads the keys of a provider again from their sources, and returns their labels. `by` is who does it.
    ///
    /// # Errors
    /// If there is no such provider, or a key cannot be read. The former keys stay in use then.
    pub async fn reload_provider_keys(&self, name: &ProviderName, by: &str) -> Result<Vec<KeyLabel>, Error> {
        let labels = self.pointsman().reload_keys(name).await?;
        self.record_provider_change(name, "keys_reloaded", None, by);
        Ok(labels)
    }

    fn record_provider_change(
        &self,
        provider: &ProviderName,
        change: &str,
        target: Option<&TargetName>,
        by: &str,
    ) {
        tracing::info!(%provider, change, by, "the state of a provider was changed");
        let model = target.map(|target| target.model.as_str());
        let data = json!({ "provider": provider, "change": change, "model": model, "by": by });
        self.events().record(EventKind::ProviderChanged, None, data);
    }
}
