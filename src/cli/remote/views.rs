//! What the program reads of the daemon's answers. Fields that it does not show are left out.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::guard::BreakerState;
use crate::run::{Cap, RunSummary};
use crate::store::RunNumber;
use crate::types::{Class, Price, seconds, utc_time};

/// A run.
#[derive(Debug, Clone, Deserialize)]
pub(in crate::cli) struct RunView {
    pub(in crate::cli) run: RunNumber,
    pub(in crate::cli) state: String,
    #[serde(with = "utc_time")]
    pub(in crate::cli) updated_at: i64,
    pub(in crate::cli) sessions: i64,
    /// Set while the daemon works on it.
    progress: Option<IgnoredAny>,
    /// Set if it was asked for.
    #[serde(default)]
    pub(in crate::cli) summary: Option<RunSummary>,
}

impl RunView {
    /// Returns whether the daemon works on it.
    pub(in crate::cli) fn is_open(&self) -> bool {
        self.progress.is_some() || matches!(self.state.as_str(), "running" | "holding")
    }
}

/// The state of a daemon.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(in crate::cli) struct StatusView {
    pub(in crate::cli) version: String,
    pub(in crate::cli) uptime_seconds: f64,
    pub(in crate::cli) ready: bool,
    pub(in crate::cli) reasons: Vec<ReasonView>,
    pub(in crate::cli) runs: RunCountsView,
    /// The most urgent of the runs that have not ended.
    #[serde(default)]
    pub(in crate::cli) unfinished_runs: Vec<UnfinishedRunView>,
    pub(in crate::cli) providers: Vec<ProviderView>,
    pub(in crate::cli) spent_today_usd: f64,
    pub(in crate::cli) caps: Vec<Cap>,
}

/// Why a daemon is not ready.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(in crate::cli) struct ReasonView {
    reason: String,
    #[serde(default)]
    detail: Option<String>,
}

impl fmt::Display for ReasonView {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.reason)?;
        match &self.detail {
            Some(detail) => write!(out, ": {detail}"),
            None => Ok(()),
        }
    }
}

/// The numbers of runs by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(in crate::cli) struct RunCountsView {
    pub(in crate::cli) open: usize,
    pub(in crate::cli) holding: usize,
    pub(in crate::cli) paused: usize,
    /// Runs that nothing continues.
    #[serde(default)]
    pub(in crate::cli) stuck: usize,
}

/// A run that has not ended.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(in crate::cli) struct UnfinishedRunView {
    pub(in crate::cli) run: RunNumber,
    pub(in crate::cli) pipeline: String,
    pub(in crate::cli) state: String,
    pub(in crate::cli) reason: Option<String>,
    pub(in crate::cli) waiting_for_scope: Option<ScopeWaitView>,
}

/// For which limit of a scope the requests of a run wait.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(in crate::cli) struct ScopeWaitView {
    pub(in crate::cli) scope: String,
    pub(in crate::cli) limit: String,
    pub(in crate::cli) requests: usize,
}

/// A provider.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(in crate::cli) struct ProviderView {
    pub(in crate::cli) provider: String,
    pub(in crate::cli) simulated: bool,
    /// Why it takes no new calls.
    pub(in crate::cli) out_of_service: Option<String>,
    pub(in crate::cli) draining: bool,
    pub(in crate::cli) up: bool,
    pub(in crate::cli) in_flight: usize,
    pub(in crate::cli) concurrency: usize,
    pub(in crate::cli) queued: usize,
    pub(in crate::cli) calls: u64,
    pub(in crate::cli) throttled: u64,
    /// The limit that is used most.
    pub(in crate::cli) limit: Option<LimitView>,
    #[serde(rename = "held_for_seconds", with = "seconds")]
    pub(in crate::cli) held_for: Duration,
    pub(in crate::cli) targets: Vec<TargetView>,
    pub(in crate::cli) keys_in_cooldown: Vec<CooldownView>,
}

/// How much of a limit is used.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(in crate::cli) struct LimitView {
    pub(in crate::cli) model: Option<String>,
    pub(in crate::cli) limit: String,
    pub(in crate::cli) per_minute: f64,
    pub(in crate::cli) utilization: f64,
}

/// A model of a provider.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(in crate::cli) struct TargetView {
    pub(in crate::cli) model: String,
    pub(in crate::cli) breaker: BreakerState,
    pub(in crate::cli) forced_open: bool,
}

/// A key that is not used for a while.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(in crate::cli) struct CooldownView {
    pub(in crate::cli) key: String,
    pub(in crate::cli) class: Class,
}

/// The prices of the models.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct PricesView {
    pub(in crate::cli) built_in_list_of: Option<String>,
    pub(in crate::cli) prices: Vec<PriceView>,
}

/// The price of a model.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct PriceView {
    pub(in crate::cli) target: String,
    pub(in crate::cli) price: Option<Price>,
    pub(in crate::cli) source: String,
}

impl ProviderView {
    /// Returns the models whose breaker is not closed, each with its state.
    pub(in crate::cli) fn open_breakers(&self) -> Vec<String> {
        let broken = self.targets.iter().filter(|target| target.breaker != BreakerState::Closed);
        let text = |target: &TargetView| {
            let forced = if target.forced_open { "forced " } else { "" };
            format!("{} {forced}{}", target.model, target.breaker.as_str())
        };
        broken.map(text).collect()
    }

    /// Returns why it takes no new calls; `None` if it takes them.
    pub(in crate::cli) fn unavailable(&self) -> Option<&str> {
        if !self.up {
            return Some("down");
        }
        if self.draining {
            return Some("draining");
        }
        self.out_of_service.as_deref()
    }
}
