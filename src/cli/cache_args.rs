//! The argument that decides which stored answers a run reuses.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::config::RunSettings;
use crate::pipeline::CacheMode;

/// Which stored answers a run reuses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
pub(super) struct CacheArgs {
    /// Which stored answers are used instead of sending a request [default: that of the run, else `[run] cache`, else auto].
    #[arg(long, value_name = "MODE")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) cache: Option<Cache>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Cache {
    /// `store` for steps with temperature 0, a schema or choices; `run` for all others and with --simulate.
    Auto,
    /// Answers to the same request of the same item in the same run.
    Run,
    /// Answers to the same request of any item, pipeline and run in the store.
    Store,
    /// None. Only an item that was interrupted continues with the answers that it has.
    Off,
}

impl CacheArgs {
    /// Returns these arguments, or else those of an earlier command.
    pub(super) fn or(self, earlier: Self) -> Self {
        Self { cache: self.cache.or(earlier.cache) }
    }

    /// Returns the mode of a run with the configuration `settings`.
    pub(super) fn mode(self, settings: &RunSettings) -> CacheMode {
        match self.cache {
            None => settings.cache,
            Some(Cache::Auto) => CacheMode::Auto,
            Some(Cache::Run) => CacheMode::Run,
            Some(Cache::Store) => CacheMode::Store,
            Some(Cache::Off) => CacheMode::Off,
        }
    }
}
