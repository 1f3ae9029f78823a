//! Simulates the providers whose `base_url` is `simulator`, on this machine and only for this process.

#[cfg(feature = "simulator")]
use std::net::{Ipv4Addr, SocketAddr};
#[cfg(feature = "simulator")]
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::config::{Config, ResolvedConfig};
#[cfg(feature = "simulator")]
use crate::simulator::{Simulator, Vendor};
use crate::types::Format;

use super::error::Error;
use super::threads::Arbiters;

/// The simulator of this process; `None` before a provider is simulated.
#[cfg(feature = "simulator")]
#[derive(Debug, Default)]
pub(super) struct SimulatedProviders(Mutex<Option<Simulator>>);

/// A build without the simulator.
#[cfg(not(feature = "simulator"))]
#[derive(Debug, Default)]
pub(super) struct SimulatedProviders;

#[cfg(feature = "simulator")]
impl SimulatedProviders {
    /// Starts the simulator if a provider is simulated, unless it runs already.
    pub(super) fn start(
        &self,
        config: &Config,
        usable: &ResolvedConfig,
        arbiters: &Arbiters,
    ) -> Result<(), Error> {
        let mut running = self.lock();
        if running.is_some() || !usable.providers.values().any(|ready| ready.settings.is_simulated()) {
            return Ok(());
        }
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let simulator = Simulator::start(config.simulator.clone(), any_port, &arbiters.runtime);
        let simulator = simulator.map_err(|source| Error::System { what: "the simulator", source })?;
        *running = Some(simulator);
        Ok(())
    }

    /// Stops the simulator.
    pub(super) fn stop(&self) {
        self.lock().take();
    }

    fn lock(&self) -> MutexGuard<'_, Option<Simulator>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn base_url(&self, format: Format) -> Option<String> {
        let vendor = match format {
            Format::Openai | Format::OpenaiResponses => Vendor::OpenAi,
            Format::Anthropic => Vendor::Anthropic,
            Format::Gemini => Vendor::Gemini,
        };
        self.lock().as_ref().map(|simulator| simulator.base_url(vendor))
    }
}

#[cfg(not(feature = "simulator"))]
impl SimulatedProviders {
    pub(super) fn start(&self, _: &Config, _: &ResolvedConfig, _: &Arbiters) -> Result<(), Error> {
        Ok(())
    }

    pub(super) fn stop(&self) {}

    pub(super) fn base_url(&self, _: Format) -> Option<String> {
        None
    }
}
