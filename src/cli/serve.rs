//! `pointsman serve`: the daemon.

mod file_limit;
mod notices;

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
use crate::server::{BoundServer, RunningServer, ServerOptions};

use super::args::Serve;
use super::config::load;
use super::exit::Exit;
use super::log;
use super::signals::{DaemonSignal, DaemonSignals};
use super::systemd;
use notices::Notices;

/// How long the actors have to stop after a start that has failed. They have no work.
const FAILED_START_DRAIN: Duration = Duration::from_secs(1);

/// The names by which a browser on this machine reaches a daemon that needs no tokens.
const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// Runs the daemon until a signal.
pub(super) fn serve(args: &Serve) -> Exit {
    log::start_daemon(args.log);
    let notices = Notices::new(args.log.format);
    let load_config = config_loader(args);
    let config = match load_config() {
        Ok(config) => config,
        Err(diagnostics) => return notices.diagnostics(&diagnostics),
    };
    let bound = match bind(&config) {
        Ok(bound) => bound,
        Err(error) => return notices.fail(&error, exit_of(&error)),
    };
    let pointsman = match Pointsman::start_blocking(&config) {
        Ok(pointsman) => pointsman,
        Err(runtime::Error::Diagnostics(diagnostics)) => return notices.diagnostics(&diagnostics),
        Err(error) => return notices.fail(&anyhow::Error::new(error), Exit::Configuration),
    };
    pointsman.notes().iter().for_each(|note| notices.info(note));
    let runtime = pointsman.runtime().clone();
    let exit = runtime.block_on(async {
        // Before anything can be asked to stop.
        let signals = DaemonSignals::new();
        match start(&pointsman, load_config, bound).await {
            Ok((daemon, server)) => Service { daemon, server, notices }.run(signals).await,
            Err(error) => {
                let exit = exit_of(&error);
                pointsman.drain(FAILED_START_DRAIN).await;
                match error.downcast::<daemon::Error>() {
                    Ok(daemon::Error::Diagnostics(diagnostics)) => notices.diagnostics(&diagnostics),
                    Ok(error) => notices.fail(&error.into(), exit),
                    Err(error) => notices.fail(&error, exit),
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
            config.set_listen(listen);
        }
        Ok(config)
    })
}

/// Takes the address and the certificate before anything else begins.
fn bind(config: &Config) -> anyhow::Result<BoundServer> {
    // If this daemon runs already, its process says more than the address in use.
    Daemon::check_unused(config)?;
    BoundServer::bind(config).context("serve")
}

async fn start(
    pointsman: &Pointsman,
    load_config: daemon::LoadConfig,
    bound: BoundServer,
) -> anyhow::Result<(Daemon, RunningServer)> {
    let daemon = Daemon::start(pointsman.clone(), load_config).await?;
    let needs_tokens = daemon.config().serve.needs_tokens();
    let mut options = ServerOptions::new().with_tokens(needs_tokens);
    if !needs_tokens {
        options = options.with_hosts(LOCAL_HOSTS);
    }
    let server = match bound.start(&daemon, options) {
        Ok(server) => server,
        Err(error) => {
            daemon.drain(FAILED_START_DRAIN).await;
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
    notices: Notices,
}

impl Service {
    async fn run(self, mut signals: DaemonSignals) -> Exit {
        let scheme = if self.server.is_tls() { "https" } else { "http" };
        let address = format!("{scheme}://{}", self.server.address());
        self.notices.info(&format!("pointsman serves at {address} (process {})", std::process::id()));
        if self.daemon.config().serve.needs_tokens() {
            self.notices.info(
                "requests need a token: `pointsman token new --name NAME --scope read,run,request` creates one",
            );
        }
        if let Some(warning) = file_limit::raise(&self.daemon.config()) {
            self.notices.warn(&warning);
        }
        systemd::ready(&format!("serving at {address}"));
        let watched = self.daemon.pointsman().clone();
        // A task of its own: a reload and the drain take time.
        let watchdog =
            self.daemon.pointsman().runtime().spawn(systemd::watchdog(move || !watched.is_stalled()));
        let exit = self.serve_until_stopped(&mut signals).await;
        watchdog.abort();
        exit
    }

    async fn serve_until_stopped(self, signals: &mut DaemonSignals) -> Exit {
        loop {
            tokio::select! {
                why = self.daemon.pointsman().fatal_error() => {
                    self.notices.error(&format!("stopping: {why}"));
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
                self.notices.info_in_text("configuration reloaded: nothing has changed");
            }
            Ok(report) => {
                self.notices.info_in_text("configuration reloaded:");
                report.changes.iter().for_each(|change| self.notices.info_in_text(&format!("  {change}")));
            }
            Err(error) => match error.diagnostics() {
                Some(diagnostics) => {
                    self.notices.diagnostics_in_text(diagnostics);
                    self.notices
                        .info_in_text("the configuration was not reloaded; the previous one is in use");
                }
                None => self.notices.info_in_text(&format!("the configuration was not reloaded: {error}")),
            },
        }
        systemd::ready("serving");
    }

    /// Drains. A second signal makes it stop at once.
    async fn stop(self, signals: &mut DaemonSignals) -> Exit {
        systemd::stopping();
        let within = self.daemon.config().serve.drain;
        let notices = self.notices;
        notices.info(&format!(
            "stopping: work in flight has {} to end; a second signal stops it now",
            super::progress_text::seconds_text(within.as_secs_f64())
        ));
        let started = Instant::now();
        let mut exit = Exit::Success;
        let mut drained = std::pin::pin!(self.daemon.drain(within));
        loop {
            tokio::select! {
                _ = &mut drained => break,
                signal = signals.next() => match signal {
                    DaemonSignal::Stop => {
                        exit = Exit::Interrupted;
                        self.daemon.drain(Duration::ZERO).await;
                        break;
                    }
                    // There is nothing to reload any more.
                    DaemonSignal::Reload => {}
                },
            }
        }
        self.server.stop().await;
        notices.info(&format!(
            "stopped after {}; runs that have not ended continue at the next start",
            super::progress_text::seconds_text(started.elapsed().as_secs_f64())
        ));
        exit
    }
}
