//! `pointsman serve`: the daemon.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::time::Instant;

use crate::config::Config;
use crate::daemon::{self, Daemon};
use crate::diagnostics::Diagnostics;
use crate::runtime::{self, Pointsman};
use crate::server::{RunningServer, ServerOptions, serve as serve_http};

use super::args::Serve;
use super::config::load;
use super::exit::Exit;
use super::log;
use super::progress::{Mode, eprint_line};
use super::signals::{DaemonSignal, DaemonSignals};
use super::systemd;

/// The names by which a browser on this machine reaches a daemon that needs no tokens.
const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Runs the daemon until a signal.
pub(super) fn serve(args: &Serve) -> Exit {
    let mode = Mode::Lines;
    log::start_daemon(args.log);
    let load_config = config_loader(args);
    let config = match load_config() {
        Ok(config) => config,
        Err(diagnostics) => return mode.report_diagnostics(&diagnostics),
    };
    let pointsman = match Pointsman::start_blocking(&config) {
        Ok(pointsman) => pointsman,
        Err(runtime::Error::Diagnostics(diagnostics)) => return mode.report_diagnostics(&diagnostics),
        Err(error) => return mode.fail(&anyhow::Error::new(error), Exit::Configuration),
    };
    pointsman.notes().iter().for_each(|note| mode.note(note));
    let runtime = pointsman.runtime().clone();
    let exit = runtime.block_on(async {
        // Before anything can be asked to stop.
        let signals = DaemonSignals::new();
        match start(&pointsman, load_config).await {
            Ok((daemon, server)) => Service { daemon, server, mode }.run(signals).await,
            Err(error) => {
                let exit = exit_of(&error);
                pointsman.drain(Duration::ZERO).await;
                match error.downcast::<daemon::Error>() {
                    Ok(daemon::Error::Diagnostics(diagnostics)) => mode.report_diagnostics(&diagnostics),
                    Ok(error) => mode.fail(&error.into(), exit),
                    Err(error) => mode.fail(&error, exit),
                }
            }
        }
    });
    drop(pointsman);
    exit
}

/// Returns what loads the configuration, now and at each reload. The directory of the process does not change.
fn config_loader(args: &Serve) -> daemon::LoadConfig {
    let path: Option<PathBuf> = args.config.clone();
    let simulate = args.simulate;
    let listen: Option<SocketAddr> = args.listen;
    Arc::new(move || -> Result<Config, Diagnostics> {
        let mut config = load(path.as_deref(), simulate)?;
        if let Some(listen) = listen {
            config.serve.listen = listen;
        }
        Ok(config)
    })
}

async fn start(
    pointsman: &Pointsman,
    load_config: daemon::LoadConfig,
) -> anyhow::Result<(Daemon, RunningServer)> {
    let daemon = Daemon::start(pointsman.clone(), load_config).await?;
    let needs_tokens = daemon.config().serve.needs_tokens();
    let mut options = ServerOptions::new().with_tokens(needs_tokens);
    if !needs_tokens {
        options = options.with_hosts(LOCAL_HOSTS);
    }
    let server = match serve_http(&daemon, options) {
        Ok(server) => server,
        Err(error) => {
            daemon.drain(Duration::ZERO).await;
            return Err(error).context("serve");
        }
    };
    Ok((daemon, server))
}

fn exit_of(error: &anyhow::Error) -> Exit {
    match error.downcast_ref::<daemon::Error>().map(daemon::Error::kind) {
        Some(daemon::Kind::Invalid) => Exit::Configuration,
        // Another daemon uses the store, the address is in use, or the disk fails.
        Some(_) | None => Exit::IoError,
    }
}

/// A running daemon with its server.
struct Service {
    daemon: Daemon,
    server: RunningServer,
    mode: Mode,
}

impl Service {
    async fn run(self, mut signals: DaemonSignals) -> Exit {
        let scheme = if self.server.is_tls() { "https" } else { "http" };
        let address = format!("{scheme}://{}", self.server.address());
        eprint_line(&format!("pointsman serves at {address} (process {})", std::process::id()));
        if self.daemon.config().serve.needs_tokens() {
            eprint_line(
                "requests need a token: `pointsman token new --name NAME --scope read,run,request` creates one",
            );
        }
        systemd::ready(&format!("serving at {address}"));
        let watched = self.daemon.pointsman().clone();
        // A task of its own: a reload and the drain take time.
        let watchdog = self.daemon.pointsman().runtime().spawn(systemd::watchdog(move || !watched.is_stalled()));
        let exit = self.serve_until_stopped(&mut signals).await;
        watchdog.abort();
        exit
    }

    async fn serve_until_stopped(self, signals: &mut DaemonSignals) -> Exit {
        loop {
            tokio::select! {
                why = self.daemon.pointsman().fatal_error() => {
                    eprint_line(&format!("stopping: {why}"));
                    self.stop(signals).await;
                    return Exit::Internal;
                }
                signal = signals.next() => match signal {
                    DaemonSignal::Reload => self.reload().await,
                    DaemonSignal::Stop => return self.stop(signals).await,
                },
            }
        }
    }

    async fn reload(&self) {
        systemd::reloading();
        match self.daemon.reload("SIGHUP").await {
            Ok(report) if report.changes.is_empty() => {
                eprint_line("configuration reloaded: nothing has changed")
            }
            Ok(report) => {
                eprint_line("configuration reloaded:");
                report.changes.iter().for_each(|change| eprint_line(&format!("  {change}")));
            }
            Err(error) => match error.diagnostics() {
                Some(diagnostics) => {
                    self.mode.report_diagnostics(diagnostics);
                    eprint_line("the configuration was not reloaded; the previous one is in use");
                }
                None => eprint_line(&format!("the configuration was not reloaded: {error}")),
            },
        }
        systemd::ready("serving");
    }

    /// Drains. A second signal makes it stop at once.
    async fn stop(self, signals: &mut DaemonSignals) -> Exit {
        systemd::stopping();
        let within = self.daemon.config().serve.drain;
        eprint_line(&format!(
            "stopping: work in flight has {} to end; a second signal stops it now",
            super::progress_text::seconds_text(within.as_secs_f64())
        ));
        let started = Instant::now();
        let mut exit = Exit::Success;
        let mut drained = std::pin::pin!(self.daemon.drain(within));
        let aborted = loop {
            tokio::select! {
                drained = &mut drained => break drained.killed,
                signal = signals.next() => match signal {
                    DaemonSignal::Stop => {
                        exit = Exit::Interrupted;
                        break self.daemon.drain(Duration::ZERO).await.killed;
                    }
                    // There is nothing to reload any more.
                    DaemonSignal::Reload => {}
                },
            }
        };
        self.server.stop().await;
        if aborted > 0 {
            eprint_line(&format!(
                "{} had to be aborted",
                super::progress_text::counted(aborted as u64, "actor")
            ));
        }
        eprint_line(&format!(
            "stopped after {}; runs that have not ended continue at the next start",
            super::progress_text::seconds_text(started.elapsed().as_secs_f64())
        ));
        exit
    }
}
