//! What a long-lived process adds to [`Pointsman`](crate::runtime::Pointsman): pipelines and runs that it keeps by itself.
//!
//! A [`Daemon`] is responsible for:
//! 1. pipelines: files that it watches, and versions that are stored ([`Daemon::pipelines`]);
//! 2. runs: their items are files of the daemon, their results are read from the store, and a run that was interrupted is
//!    resumed at the next start;
//! 3. items that come one at a time, which share a run ([`Daemon::submit_item`]);
//! 4. events for those who watch.
//!
//! It knows nothing of HTTP: the module `server` shows it there, and a program may use it directly.

mod answer;
mod browser_sessions;
mod browsers;
mod caller;
mod catalogue;
mod config_watcher;
mod configuration;
#[expect(clippy::module_inception, reason = "the module is named after its main type")]
mod daemon;
mod data_folder;
mod error;
mod event_watch;
mod events;
mod growing_file;
mod history_samples;
mod idempotency;
mod idempotency_keys;
mod intake;
mod item_counts;
mod item_view;
mod items_check;
mod load_config;
mod message_json;
mod metrics;
mod monitor;
mod new_request;
mod open_runs;
mod overview;
mod overview_view;
mod page_size;
mod parsed_pipelines;
mod permission;
mod process_lock;
mod progress_feeds;
mod providers;
mod readiness;
mod readiness_check;
mod reload;
mod requests;
mod revocation;
mod run_command;
mod run_items;
mod run_log;
mod run_results;
mod run_watch;
mod runs;
mod shared_runs;
mod shown_state;
mod spending;
mod start;
mod status;
mod text_parser;
mod token_index;
mod token_limits;
mod token_store;
mod token_text;
mod tokens;
mod unfinished_runs;
mod upkeep;
mod views;

pub use answer::Answer;
pub use browsers::BrowserLogin;
pub use caller::Caller;
pub use catalogue::{
    Expected, PipelineCheck, PipelineEntry, PipelineOrigin, PipelineVersion, StoredPipeline,
};
pub use configuration::{ConfigCheck, ConfigView, PriceView, PricesView};
pub use daemon::{Daemon, Stopping};
pub use data_folder::{DataFolder, SpooledFile};
pub use error::{Error, Kind};
pub use event_watch::{EventUpdate, EventWatch};
pub use events::{Event, EventKind, EventLog};
pub use history_samples::HistorySample;
pub use idempotency_keys::{IdempotencyGuard, Idempotent, RequestDigest, ReservedKey, StoredResponse};
pub use intake::{ItemProgress, SubmittedItem};
pub use item_counts::ItemCounts;
pub use item_view::{AttemptView, FailureView, ItemPage, ItemState, ItemView, StepView};
pub use load_config::LoadConfig;
pub use message_json::FieldError;
pub use new_request::{NewRequest, NewStreamMode, NewTool};
pub use overview_view::{
    CountedRun, FailureExample, FailureGroup, Overview, ProcessView, RunDetails, SpentToday,
};
pub use permission::{Permission, PermissionError};
pub use readiness::{Readiness, Reason};
pub use reload::Reloaded;

pub use run_items::ItemQuery;
pub use run_results::{LineStream, RejectStream, ResultsFrom};
pub use run_watch::{RunUpdate, RunWatch};
pub use runs::{ItemsFrom, NewRun, RunQuery};
pub use shown_state::ShownState;
pub use spending::{SpendingKey, SpendingKeyError, SpendingRow};
pub use status::{DaemonStatus, RunCounts};
pub use token_limits::{TokenLimits, parse_daily_budget, parse_lifetime, parse_rate};
pub use token_store::{NewToken, TokenStore, TokenView};
pub use tokens::Access;
pub use unfinished_runs::UnfinishedRun;
pub use views::{RunPage, RunView};
