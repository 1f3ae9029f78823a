//! Where providers are played, and what asks them.
//!
//! Providers have threads of their own: what they count does not wait for the one that is judged.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use pointsman::run::Output;
use pointsman::simulator::{Settings, Simulator};
use pointsman::sink::{Format, Sink, Target};
use pointsman::source::Source;
use pointsman::{Config, Pointsman, RunHandle};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

use super::rows::Row;

/// The played providers' threads, and for how long rows are measured.
pub(crate) struct Stage {
    runtime: Runtime,
    pub(crate) measured_for: Duration,
}

impl Stage {
    /// Makes a stage where nobody plays yet.
    pub(crate) fn new(measured_for: Duration) -> anyhow::Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("simulator").enable_all().build()?;
        Ok(Self { runtime, measured_for })
    }

    /// Plays a row's provider, on a port of its own.
    pub(crate) fn play(&self, row: &Row) -> anyhow::Result<Simulator> {
        self.play_at(toml::from_str(row.simulator)?, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// Plays a provider at an address.
    pub(crate) fn play_at(&self, settings: Settings, address: SocketAddr) -> anyhow::Result<Simulator> {
        Ok(Simulator::start(settings, address, self.runtime.handle())?)
    }
}

/// Starts a row's Pointsman, as its configuration says.
pub(crate) fn start(row: &Row, first: &Simulator, second: Option<&Simulator>) -> anyhow::Result<Pointsman> {
    let mut text = row.config.replace("{first}", &first.base_url(row.vendor));
    if let Some(second) = second {
        text = text.replace("{second}", &second.base_url(row.vendor));
    }
    let config = Config::parse("config.toml", &text, &|_| None)?;
    Ok(Pointsman::start_with(&config, &|_| None)?)
}

/// Starts a run that never ends by itself: there is always another item.
pub(crate) async fn endless(pointsman: &Pointsman, row: &Row) -> anyhow::Result<RunHandle> {
    let pipeline =
        pointsman.parse_pipeline(&format!("name = 'pacing'\n[[step]]\nname = 'answer'\n{}", row.step))?;
    let items = (0_u64..).map(|id| json!({ "id": id }));
    Ok(pointsman.run(pipeline, Source::values("endless items", items), nowhere()?).await?)
}

/// Ends a run, and returns how many items it has lost: failed, not just given up now.
pub(crate) async fn end(mut run: RunHandle) -> anyhow::Result<u64> {
    run.stop_intake();
    run.cancel();
    let items = run.report().await?.items;
    Ok(items.failed + items.unwritten + items.rejected)
}

/// Makes an output that keeps nothing.
pub(crate) fn nowhere() -> anyhow::Result<Output> {
    Ok(Output::new(Sink::results(Target::none(), Format::Jsonl, &[])?))
}
