//! Sends large numbers of LLM requests through a pipeline and resumes after a crash.
//!
//! The input is a list of *items*. A *pipeline* defines the prompts for each item and their order. *Providers*
//! answer: any server with the API of OpenAI, Anthropic or Gemini. Pointsman paces requests to the limits of each
//! provider, sends a failed request to another provider, and validates each answer.
//!
#![cfg_attr(feature = "server", doc = "```")]
#![cfg_attr(not(feature = "server"), doc = "```no_run")]
//! use pointsman::{Config, Pointsman, Sink, Source};
//! use serde_json::json;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // The simulator on this machine answers, so this program needs no key.
//!     let config = Config::load()?.simulated();
//!     let pointsman = Pointsman::start_blocking(&config)?;
//!     let pipeline = pointsman.parse_pipeline(
//!         "
//!         name = 'tickets'
//!
//!         [[step]]
//!         name   = 'kind'
//!         prompt = 'What is this about? {{ item.text }}'
//!         choice = ['BUG', 'QUESTION', 'THANKS']
//!
//!         [[step]]
//!         name   = 'reply'
//!         when   = \"kind != 'THANKS'\"
//!         prompt = 'Answer this {{ kind | lower }} in one sentence: {{ item.text }}'
//!         ",
//!     )?;
//!     let tickets = ["It crashes when I print.", "How do I print?", "Thank you!"];
//!     let items = (1..).zip(tickets).map(|(id, text)| json!({ "id": id, "text": text }));
//!     let (sink, mut lines) = Sink::channel()?;
//!
//!     // Any runtime works.
//!     pointsman.runtime().block_on(async {
//!         let mut run = pointsman.run(pipeline, Source::values("tickets", items), sink).await?;
//!         while let Some(line) = lines.recv().await {
//!             println!("{}: {} {}", line.key, line.answers["kind"], line.answers["reply"]);
//!         }
//!         let report = run.report().await?;
//!         assert_eq!((report.items.completed, report.simulated), (3, true));
//!         Ok(())
//!     })
//! }
//! ```
//!
//! # Overview
//!
//! | to | use |
//! |---|---|
//! | configure | [`Config`]: from a file, from environment variables, or in code with a [`ConfigBuilder`] |
//! | start and stop | [`Pointsman::start`], [`Pointsman::start_blocking`], [`Pointsman::drain`] |
//! | send one request | [`Pointsman::send`] with a [`Request`]; the result is a [`Response`] or a [`RequestError`] |
//! | set what a request may contain | [`Prompt`]: messages, media, an answer format, sampling, [`ReasoningEffort`], [`LengthLimit`], and [`VendorFields`] for fields of one [`Format`] |
//! | get an answer in pieces | [`Pointsman::stream`]; a [`ResponseStream`] of [`StreamEvent`]s |
//! | get vectors for texts | [`Pointsman::embed`] with an [`EmbeddingRequest`]; the result is [`Embeddings`] |
//! | offer tools to a model | [`Tool`], [`ToolChoice`]; [`Response::tool_calls`]; [`Response::message`] and [`ToolResult`] continue the conversation |
//! | send requests from tasks and actors | [`RouterHandle`], [`RouterHandle::recipient`] |
//! | limit the requests of a tenant or a token | [`Request::with_scope`], and `[scope.NAME]` or [`ConfigBuilder::with_scope`] |
//! | process many items | [`Pointsman::run`] with a [`Pipeline`], a [`Source`] and a [`Sink`]; a [`RunHandle`] controls the run |
//! | store and resume a run | [`Sqlite::open`], [`ResumeOptions`], [`Pointsman::prepare_run`], [`Pointsman::run_stored`] |
//! | see what was left out at the start | [`Pointsman::notes`]: providers without a key, simulated routes |
//! | observe a run | [`RunHandle::progress`], [`RunHandle::report`], [`Pointsman::providers`] |
//! | export metrics to Prometheus | [`Pointsman::metrics_text`] |
//!
//! The examples `embed.rs` (an actix-web app), `actor.rs` (an actix actor) and `tools.rs` (a conversation with tools) are
//! complete programs.
//!
//! A format expresses what it can of a request and refuses the rest by name: nothing is left out silently. Another target
//! of the route may express it. `drop_parameters` of a provider names parameters that may be left out.
//!
//! `docs/architecture.md` describes the structure, `docs/guarantees.md` the guarantees, `docs/configuration.md` and
//! `docs/pipelines.md` every key, and `docs/metrics.md` every metric.
//!
//! # Features
//!
//! `cli`, `server` and `sqlite` are enabled by default. A program that embeds Pointsman needs only `sqlite`, to
//! store and resume runs:
//! `pointsman = { path = "../pointsman", default-features = false, features = ["sqlite"] }`.
//!
//! - `cli`: the program `pointsman`, with its crates for arguments and output.
//! - `server`: the simulator, and with it `base_url = "simulator"`. Without it such a provider, or a
//!   [simulated](Config::simulated) configuration, is refused at the start.
//! - `sqlite`: the store in an SQLite file, with bundled SQLite. Without it no run can be stored.
//! - `exact-numbers`: keeps all digits of integers above 64 bits; `cli` enables it. It changes `serde_json` for the
//!   whole program.
//! - `bench`: opens the admission of calls to `benches/`; not a part of the API.
//! - `chaos`: for tests only: lets actors and calls panic at named failure points. Without it no such code is
//!   compiled.
//!
//! The library handles no signals, installs no logger and ends no process. It logs through `tracing` and runs on
//! its own threads, so it works in programs that use actix, plain tokio, or neither. A build with
//! `panic = "abort"` is refused, because a panic is caught at the call, item or actor in which it happens.

#[cfg(not(panic = "unwind"))]
compile_error!("pointsman isolates panics and needs panic = \"unwind\"");

// The modules are hidden: their paths are for the program and the tests of this repository. The API is below.
#[cfg(feature = "chaos")]
#[doc(hidden)]
pub mod chaos;
#[cfg(not(feature = "chaos"))]
mod chaos;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
mod clock;
#[doc(hidden)]
pub mod config;
#[doc(hidden)]
pub mod diagnostics;
mod files;
#[doc(hidden)]
pub mod guard;
#[doc(hidden)]
pub mod ledger;
#[doc(hidden)]
pub mod pipeline;
#[doc(hidden)]
pub mod provider;
#[doc(hidden)]
pub mod router;
#[doc(hidden)]
pub mod run;
#[doc(hidden)]
pub mod runtime;
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod simulator;
#[doc(hidden)]
pub mod sink;
#[doc(hidden)]
pub mod source;
#[doc(hidden)]
pub mod store;
#[doc(hidden)]
pub mod supervisor;
#[doc(hidden)]
pub mod telemetry;
mod terminal_text;
#[doc(hidden)]
pub mod types;
#[doc(hidden)]
pub mod wire;

pub use config::{Config, ConfigBuilder, MaxHold, ModelBuilder, ProviderBuilder};
pub use diagnostics::{Diagnostic, Diagnostics, SourceSpan};
pub use guard::ScopeSettings;
pub use pipeline::Pipeline;
pub use router::{EmbeddingRequest, Embeddings, Request, ResponseStream, RouterHandle, StreamMode};
pub use run::{MaxFailures, Progress, Report, RunOutcome, RunOutput};
pub use runtime::{
    Error, MaxCost, PauseOptions, Pointsman, PreparedRun, ProgressStream, ResumeOptions, RunHandle,
    RunOptions,
};
pub use sink::{Line, RejectLine, Sink};
pub use source::Source;
#[cfg(feature = "sqlite")]
pub use store::Sqlite;
pub use store::{RunNumber, Store};
pub use types::{
    Advice, Attempt, CacheTtl, Class, Failure, Fingerprint, FinishReason, Format, LengthLimit, Media,
    Message, NanoUsd, Part, Priority, Prompt, Reasoning, ReasoningEffort, Remedy, RequestError, Response,
    ResponseFormat, Role, Savings, SharedPrefix, StreamEvent, Tool, ToolCall, ToolChoice, ToolResult, Usage,
    VendorFields,
};

/// Names in configurations, pipelines and results.
pub mod names {
    pub use crate::types::{
        ItemKey, KeyLabel, ModelName, ProviderName, RouteName, ScopeName, StepName, TargetName,
    };
}

/// Parts of a [`Response`] and of a [`RequestError`].
pub mod response {
    pub use crate::types::{
        AttemptLog, Attribution, Charged, Completion, FailedAttempt, MediaData, Outcome, RetryAction,
        Signature, Tokens, ToolCallDelta,
    };
}

/// Parts of a [`Report`] and of a [`Progress`].
pub mod report {
    pub use crate::run::{
        Calls, Cap, CapHit, CapScope, ErrorCount, GroupReport, Holding, Items, LatencySummary, Unprocessed,
        UnsavedItems, WaitingForScope,
    };
}

/// Formats and limits of a [`Source`], formats and destinations of a [`Sink`], and parts of a [`Line`].
pub mod io {
    pub use crate::sink::{
        Destination, Format as SinkFormat, FormulaCells, StepError, StepLine, StepStatus, TokenCount,
    };
    pub use crate::source::{Format as SourceFormat, Limits as SourceLimits};
    pub use crate::types::ItemStatus;
}

/// State of providers and supervised actors.
pub mod health {
    pub use crate::guard::BreakerState;
    pub use crate::provider::{KeyCooldown, LimitUtilization, Snapshot as ProviderSnapshot, TargetSnapshot};
    pub use crate::supervisor::{ChildState, ChildStatus, Drained, Exit};
}

/// Errors of parts of Pointsman, and why a text is not a name or a format.
pub mod errors {
    pub use crate::pipeline::ManifestDiff;
    pub use crate::provider::Error as ProviderError;
    pub use crate::runtime::ClockError;
    pub use crate::sink::{Error as SinkError, LineError};
    pub use crate::source::{Error as SourceError, FormatError, LayoutFault, ValueError};
    pub use crate::store::Error as StoreError;
    pub use crate::supervisor::Error as SupervisorError;
    pub use crate::types::{ScopeNameError, TargetNameError};
}
