//! `--metrics`: writes the metrics of a run to a file, or serves them over HTTP.

mod file;
#[cfg(feature = "simulator")]
mod server;
pub(super) mod target;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::runtime::Pointsman;
use crate::store::StoreUrl;

use self::file::MetricsFile;
use self::target::MetricsTarget;
use super::args::Run;
use super::config::used_files;
use super::progress::Mode;

/// How often the file is replaced.
const FILE_INTERVAL: Duration = Duration::from_secs(5);

/// How long the last write may take.
const MAX_LAST_WRITE: Duration = Duration::from_secs(10);

/// Where the metrics go, checked and opened.
pub(super) enum MetricsExport {
    File(MetricsFile),
    #[cfg(feature = "simulator")]
    Server(std::net::TcpListener),
}

/// Metrics that are being exported.
pub(super) struct RunningExport {
    task: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl MetricsExport {
    /// Opens the target of `--metrics`, if there is one. A file may be none of the files of the run.
    pub(super) fn open(args: &Run, store: &StoreUrl) -> anyhow::Result<Option<Self>> {
        let opened = match &args.metrics.target {
            None => return Ok(None),
            Some(MetricsTarget::File(path)) => {
                let used_paths = used_paths(args, store);
                let used_paths: Vec<&Path> = used_paths.iter().map(PathBuf::as_path).collect();
                MetricsFile::open(path, &used_paths, args.overwrite).map(Self::File)
            }
            #[cfg(feature = "simulator")]
            Some(MetricsTarget::Address(address)) => server::listen(*address).map(Self::Server),
            #[cfg(not(feature = "simulator"))]
            Some(MetricsTarget::Address(_)) => {
                Err(anyhow::anyhow!("this build serves nothing over HTTP; write the metrics to a file"))
            }
        };
        opened.map(Some).context("--metrics")
    }

    /// Returns the URL of the metrics, if they are served.
    fn url(&self) -> Option<String> {
        match self {
            Self::File(_) => None,
            #[cfg(feature = "simulator")]
            Self::Server(listener) => {
                listener.local_addr().ok().map(|address| format!("http://{address}/metrics"))
            }
        }
    }

    /// Exports the metrics from now on.
    pub(super) fn start(self, pointsman: &Pointsman, mode: Mode) -> RunningExport {
        if let Some(url) = self.url() {
            mode.note(&format!("metrics at {url}"));
        }
        let (stop, stopped) = oneshot::channel();
        let runtime = pointsman.runtime();
        let pointsman = pointsman.clone();
        let task = match self {
            Self::File(file) => runtime.spawn(write_until(stopped, pointsman, file)),
            #[cfg(feature = "simulator")]
            Self::Server(listener) => runtime.spawn(server::serve(listener, pointsman, stopped)),
        };
        RunningExport { task, stop }
    }
}

impl RunningExport {
    /// Ends the export. A file then has the metrics as of now.
    pub(super) fn finish(self, pointsman: &Pointsman) {
        let Self { mut task, stop } = self;
        drop(stop);
        pointsman.runtime().block_on(async {
            if timeout(MAX_LAST_WRITE, &mut task).await.is_err() {
                task.abort();
            }
        });
    }
}

/// Writes the metrics to the file until `stopped`, and once more then. A failed write is logged, unless the one before
/// has failed too.
async fn write_until(mut stopped: oneshot::Receiver<()>, pointsman: Pointsman, file: MetricsFile) {
    let file = Arc::new(file);
    let mut ticks = interval(FILE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut has_failed = false;
    loop {
        let is_last = tokio::select! {
            biased;
            _ = &mut stopped => true,
            _ = ticks.tick() => false,
        };
        let text = pointsman.metrics_text().await;
        let replaced = file.clone();
        // An error means that the runtime stops, which it does only after the export.
        let Ok(written) = spawn_blocking(move || replaced.replace(&text)).await else { return };
        if let Err(error) = &written
            && !has_failed
        {
            tracing::warn!(file = file.name(), %error, "the metrics cannot be written");
        }
        has_failed = written.is_err();
        if is_last {
            return;
        }
    }
}

/// Returns the files that the run reads and writes.
fn used_paths(args: &Run, store: &StoreUrl) -> Vec<PathBuf> {
    let named =
        [&args.items, &args.out].into_iter().chain(&args.pipeline).chain(&args.rejects).chain(&args.report);
    named.cloned().chain(used_files(args.config.as_deref())).chain(store.files()).collect()
}
