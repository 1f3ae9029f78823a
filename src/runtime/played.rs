//! Simulates the providers whose `base_url` is `simulator`, on this machine and for this process only.

#[cfg(feature = "server")]
use std::net::{Ipv4Addr, SocketAddr};

use crate::config::{Config, Usable};
#[cfg(feature = "server")]
use crate::simulator::{Simulator, Vendor};
use crate::wire::Format;

use super::error::Error;
use super::threads::Arbiters;

/// The simulator that plays the simulated providers, where there is one.
#[cfg(feature = "server")]
#[derive(Debug)]
pub(super) struct Played(Option<Simulator>);

/// A build without the simulator.
#[cfg(not(feature = "server"))]
#[derive(Debug)]
pub(super) struct Played;

#[cfg(feature = "server")]
impl Played {
    pub(super) fn start(config: &Config, usable: &Usable, arbiters: &Arbiters) -> Result<Self, Error> {
        if !usable.providers.values().any(|ready| ready.settings.is_practice()) {
            return Ok(Self(None));
        }
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let simulator = Simulator::start(config.simulator.clone(), anywhere, &arbiters.runtime);
        let simulator = simulator.map_err(|source| Error::System { what: "the simulator", source })?;
        Ok(Self(Some(simulator)))
    }

    pub(super) fn base_url(&self, format: Format) -> Option<String> {
        let vendor = match format {
            Format::Openai => Vendor::OpenAi,
            Format::Anthropic => Vendor::Anthropic,
            Format::Gemini => Vendor::Gemini,
        };
        self.0.as_ref().map(|simulator| simulator.base_url(vendor))
    }
}

#[cfg(not(feature = "server"))]
impl Played {
    pub(super) fn start(_: &Config, _: &Usable, _: &Arbiters) -> Result<Self, Error> {
        Ok(Self)
    }

    pub(super) fn base_url(&self, _: Format) -> Option<String> {
        None
    }
}
