//! Simulates the providers whose `base_url` is `simulator`, on this machine and only for this process.

#[cfg(feature = "server")]
use std::net::{Ipv4Addr, SocketAddr};

use crate::config::{Config, ResolvedConfig};
#[cfg(feature = "server")]
use crate::simulator::{Simulator, Vendor};
use crate::types::Format;

use super::error::Error;
use super::threads::Arbiters;

/// The simulator of this process; `None` if no provider is simulated.
#[cfg(feature = "server")]
#[derive(Debug)]
pub(super) struct SimulatedProviders(Option<Simulator>);

/// A build without the simulator.
#[cfg(not(feature = "server"))]
#[derive(Debug)]
pub(super) struct SimulatedProviders;

#[cfg(feature = "server")]
impl SimulatedProviders {
    pub(super) fn start(
        config: &Config,
        usable: &ResolvedConfig,
        arbiters: &Arbiters,
    ) -> Result<Self, Error> {
        if !usable.providers.values().any(|ready| ready.settings.is_simulated()) {
            return Ok(Self(None));
        }
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let simulator = Simulator::start(config.simulator.clone(), any_port, &arbiters.runtime);
        let simulator = simulator.map_err(|source| Error::System { what: "the simulator", source })?;
        Ok(Self(Some(simulator)))
    }

    pub(super) fn base_url(&self, format: Format) -> Option<String> {
        let vendor = match format {
            Format::Openai | Format::OpenaiResponses => Vendor::OpenAi,
            Format::Anthropic => Vendor::Anthropic,
            Format::Gemini => Vendor::Gemini,
        };
        self.0.as_ref().map(|simulator| simulator.base_url(vendor))
    }
}

#[cfg(not(feature = "server"))]
impl SimulatedProviders {
    pub(super) fn start(_: &Config, _: &ResolvedConfig, _: &Arbiters) -> Result<Self, Error> {
        Ok(Self)
    }

    pub(super) fn base_url(&self, _: Format) -> Option<String> {
        None
    }
}
