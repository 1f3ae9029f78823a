//! Starts all parts and returns their handle, [`Pointsman`].
//!
//! It runs on its own threads, so it works in programs that use actix, plain tokio, or neither. It handles no
//! signals and ends no process.

mod budgets;
mod caps;
mod changes;
mod check;
mod children;
mod config_diff;
mod current;
mod daily_quotas;
mod error;
mod existing_run;
mod export;
mod failed_items;
mod file_digest;
mod metrics;
mod metrics_text;
mod model_list;
mod open_runs;
mod open_sessions;
mod operations;
mod outcome;
mod outputs;
mod pause_options;
mod plan;
mod pointsman;
mod progress_stream;
mod question;
mod reload;
#[cfg(any(feature = "cli", feature = "server"))]
pub(crate) mod request_spending;
mod resume;
mod resume_options;
mod route_health;
mod run;
mod runs;
mod session;
mod simulated_provider;
mod threads;
mod token_stats;

pub use crate::clock::ClockError;
pub use budgets::{MaxCost, RunOptions};
pub use check::{check, check_text, served_pipelines};
pub use config_diff::{AppliedAs, ConfigDiff, SettingChange};
#[cfg(feature = "server")]
pub(crate) use current::ConfigurationVersion;
pub use error::Error;
pub use export::{Exported, export, layout_of};
pub use failed_items::FailedItems;
pub use model_list::{ListedModel, ProviderModels, list_models};
pub use outcome::{rejected_count, retried_classes};
pub use outputs::{owner_of, record_written};
pub use pause_options::PauseOptions;
pub use plan::{
    Bound, CachePlan, InputScan, ItemCheck, ItemFault, JoinedPlan, NoCalls, Plan, Range, RenderedPrompt,
    Sample, StepPlan, TargetPlan, unknown_columns,
};
pub use pointsman::Pointsman;
pub use progress_stream::ProgressStream;
pub use question::{Question, QuestionAnswer, QuestionError};
pub use reload::ReloadReport;
pub use resume::PreparedRun;
pub use resume_options::ResumeOptions;
pub use run::{RunControl, RunHandle};
