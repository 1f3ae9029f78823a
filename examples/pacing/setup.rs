//! Setup of a row: the simulated providers, and Pointsman with its work.
//!
//! Simulated providers have their own threads, so that Pointsman does not delay their counts.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use pointsman::run::RunOutput;
use pointsman::simulator::{Settings, Simulator};
use pointsman::sink::{Destination, Format, Sink};
use pointsman::source::Source;
use pointsman::{Config, Pointsman, RunHandle};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

use super::rows::Row;

/// The threads of the simulated providers, and the duration of the measurements.
pub(crate) struct SimulatorHost {
    runtime: Runtime,
    pub(crate) measured_for: Duration,
}

impl SimulatorHost {
    /// Creates a host without providers.
    pub(crate) fn new(measured_for: Duration) -> anyhow::Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("simulator").enable_all().build()?;
        Ok(Self { runtime, measured_for })
    }

    /// Starts the simulated provider of a row on a free port.
    pub(crate) fn start_simulator(&self, row: &Row) -> anyhow::Result<Simulator> {
        self.start_simulator_at(toml::from_str(row.simulator)?, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// Starts a simulated provider at an address.
    pub(crate) fn start_simulator_at(
        &self,
        settings: Settings,
        address: SocketAddr,
    ) -> anyhow::Result<Simulator> {
        Ok(Simulator::start(settings, address, self.runtime.handle())?)
    }
}

/// Starts Pointsman with the configuration of a row.
pub(crate) fn start(row: &Row, first: &Simulator, second: Option<&Simulator>) -> anyhow::Result<Pointsman> {
    let mut text = row.config.replace("{first}", &first.base_url(row.vendor));
    if let Some(second) = second {
        text = text.replace("{second}", &second.base_url(row.vendor));
    }
    let config = Config::parse("config.toml", &text, &|_| None)?;
    Ok(Pointsman::start_blocking_with(&config, |_| None)?)
}

/// Starts a run with infinitely many items.
pub(crate) async fn start_endless_run(pointsman: &Pointsman, row: &Row) -> anyhow::Result<RunHandle> {
    let pipeline =
        pointsman.parse_pipeline(&format!("name = 'pacing'\n[[step]]\nname = 'answer'\n{}", row.step))?;
    let items = (0_u64..).map(|id| json!({ "id": id }));
    Ok(pointsman.run(pipeline, Source::values("endless items", items), discard_output()?).await?)
}

/// Cancels a run, and returns the number of lost items. Items that are cancelled now are not included.
pub(crate) async fn cancel_run(mut run: RunHandle) -> anyhow::Result<u64> {
    run.stop_intake();
    run.cancel();
    let items = run.report().await?.items;
    Ok(items.failed + items.unwritten + items.rejected)
}

/// Creates an output that discards the results.
pub(crate) fn discard_output() -> anyhow::Result<RunOutput> {
    Ok(RunOutput::new(Sink::results(Destination::none(), Format::Jsonl, &[])?))
}
