//! Executes a pipeline over the items of a source.
//!
//! A [`Run`] is an actor that keeps a bounded number of items in flight, each with its own actor. A source
//! task reads items for it and a writer task writes its lines. When the run ends, its counts become a
//! [`Report`].
//!
//! ```text
//! source task            Run                  ItemActor             writer task
//!     |<----- demand -----|                       |                      |
//!     |--- EntriesRead -->|-------- starts ------>|                      |
//!     |                   |<---- RequestEnded ----| (one per request)    |
//!     |                   |<---- ItemFinished ----|                      |
//!     |                   |<---- ItemDeferred ----| (instead of ItemFinished: a cap was reached or all stops)
//!     |                   |---------------- OutputRecord --------------->|
//!     |                   |<--------------- RecordsWritten --------------|
//!     |--- SourceEnded -->|            (all records are written)         |
//!     |                   |<---------------- OutputEnded ----------------|
//! ```

mod abort_deadline;
mod actor;
mod advice;
mod allowed_folders;
mod answer_cache;
mod answer_check;
mod answer_lookup;
mod cache_totals;
mod cache_warmup;
mod cached_request;
mod caps;
mod evidence;
mod failed_item;
mod failure_limit;
mod file_stamp;
mod forecast;
mod gate;
mod group_stats;
mod history;
mod hold;
mod in_flight;
mod inbox;
mod item;
mod item_process;
mod item_result;
mod item_set;
mod job;
mod last_report;
mod load_attachment;
mod messages;
mod metrics;
mod model_identities;
mod output_line;
mod persistence;
mod preview;
mod probe_wait;
mod progress;
mod prompt_memory;
mod rendering;
mod report;
mod route_hold;
mod setup;
mod shared_requests;
mod source_task;
mod stats;
mod step_log;
mod step_request;
mod stored_steps;
mod summary;
mod tasks;
#[cfg(test)]
mod tests;
mod warmup_gate;
mod window;
mod writer;

pub use actor::Run;
pub use answer_cache::AnswerCache;
pub use caps::{Cap, CapHit, CapScope, RunBudgets};
pub use failed_item::FailedItem;
pub use failure_limit::MaxFailures;
pub use gate::RunRoute;
pub use history::{History, input_totals, pause_reason, state_word};
pub use item_set::ItemSet;
pub use last_report::{LastReport, failed_items_by_class, has_lost_session, is_last_session_lost};
pub use messages::{Cancel, Pause, ProgressWatched, StopIntake};
pub use metrics::RunMetrics;
pub use model_identities::ModelIdentities;
pub use persistence::RunPersistence;
pub use preview::{PreviewRow, ResultPreview};
pub use progress::{Holding, Progress, WaitingForScope};
pub use report::{
    CacheReport, Calls, ErrorCount, GroupReport, Items, LatencySummary, Report, RunOutcome, Unprocessed,
    UnsavedItems,
};
pub use setup::{RunLimits, RunSetup};
pub use shared_requests::SharedRequests;
#[cfg(test)]
pub(crate) use stats::empty_report;
pub use summary::RunSummary;
pub use tasks::RunTasks;
pub use window::MAX_WINDOW;
pub use writer::RunOutput;
