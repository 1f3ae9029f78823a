//! Sends large numbers of LLM requests through a pipeline and resumes after a crash.
//!
//! The input is a list of *items*. A *pipeline* defines the prompts for each item and their order. *Providers*
//! answer: any server with the API of OpenAI, Anthropic or Gemini. Pointsman paces requests to the limits of each
//! provider, sends a failed request to another provider, and validates each answer.
//!
#![cfg_attr(feature = "simulator", doc = "```")]
#![cfg_attr(not(feature = "simulator"), doc = "```no_run")]
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
//! | put a request into the trace of its caller | [`Request::with_trace`] with a [`TraceContext`] |
//! | run the daemon in a program | [`Daemon::start`], [`Daemon::drain`]; [`service`] has what it takes and returns |
//! | serve the HTTP API of the daemon | [`server::routes`] in an actix-web app, or [`server::serve`] on threads of its own |
//!
//! The examples `embed.rs` (an actix-web app with the daemon), `actor.rs` (an actix actor) and `tools.rs` (a conversation
//! with tools) are complete programs.
//!
//! A format expresses what it can of a request and refuses the rest by name: nothing is left out silently. Another target
//! of the route may express it. `drop_parameters` of a provider names parameters that may be left out.
//!
//! `docs/architecture.md` describes the structure, `docs/guarantees.md` the guarantees, `docs/configuration.md` and
//! `docs/pipelines.md` every key, `docs/metrics.md` every metric, and `docs/tracing.md` every span.
//!
//! # Daemon
//!
//! `pointsman serve` is a [`Daemon`] with a [`server`]. A program can have both beside its own routes. It keeps its signals,
//! its runtime and its actix system. Runs that have not ended at a drain are resumed by the next daemon of the same store.
//!
#![cfg_attr(all(feature = "server", feature = "simulator"), doc = "```")]
#![cfg_attr(not(all(feature = "server", feature = "simulator")), doc = "```ignore")]
//! use std::{sync::Arc, time::Duration};
//!
//! use actix_web::{App, HttpServer, web};
//! use pointsman::server::{ServerOptions, routes};
//! use pointsman::{Config, Daemon, Pointsman};
//!
//! #[actix_web::main]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // The simulator answers, so this program needs no key.
//!     let text = "
//!         [provider.simulated]
//!         base_url = 'simulator'
//!         [store]
//!         url = 'sqlite:pointsman.db'
//!         ";
//! #   let folder = tempfile::tempdir()?;
//! #   let text = text.replace("sqlite:", &format!("sqlite:{}/", folder.path().display()));
//!     // The daemon calls it again when it reloads its configuration.
//!     let load = move || Config::from_toml(&text);
//!     let pointsman = Pointsman::start(&load()?).await?;
//!     let daemon = Daemon::start(pointsman, Arc::new(load)).await?;
//!
//!     // The scope may have middleware of the program, such as its authentication.
//!     let llm = routes(&daemon, ServerOptions::new().with_prefix("/llm"));
//!     let app = move || App::new().service(web::scope("/llm").configure(llm.clone()));
//!     let server = HttpServer::new(app).bind("127.0.0.1:0")?.run();
//! #   drop(server.handle().stop(true));
//!     server.await?;
//!     daemon.drain(Duration::from_secs(30)).await;
//!     Ok(())
//! }
//! ```
//!
//! `docs/http-api.md` describes the HTTP API. A daemon runs as long as it has a handle, and the routes hold one.
//!
//! # Features
//!
//! `cli`, `server`, `simulator` and `sqlite` are enabled by default. A program that embeds Pointsman needs only `sqlite`, to
//! store and resume runs, or `server` for the daemon:
//! `pointsman = { path = "../pointsman", default-features = false, features = ["sqlite"] }`.
//!
//! - `cli`: the program `pointsman`, with its crates for arguments and output.
//! - `server`: the daemon, its HTTP API and its dashboard. It enables `sqlite`.
//! - `simulator`: the simulated providers, and with them `base_url = "simulator"`. Without it such a provider, or a
//!   [simulated](Config::simulated) configuration, is refused at the start.
//! - `otel`: the export of traces to an OpenTelemetry collector.
//! - `sqlite`: the store in an SQLite file, with bundled SQLite. Without it no run can be stored.
//! - `tui`: `pointsman top`, the daemon in a terminal. It enables `cli` and `server`.
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

// The modules but `server` are hidden: their paths are for the program and the tests of this repository. The API is below.
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
#[cfg(feature = "server")]
#[doc(hidden)]
pub mod daemon;
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
pub mod server;
#[cfg(feature = "simulator")]
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
mod tls;
#[doc(hidden)]
pub mod types;
#[doc(hidden)]
pub mod wire;

pub use config::{Config, ConfigBuilder, MaxHold, ModelBuilder, ProviderBuilder};
#[cfg(feature = "server")]
pub use daemon::Daemon;
pub use diagnostics::{Diagnostic, Diagnostics, SourceSpan};
pub use guard::ScopeSettings;
pub use pipeline::{
    CacheMode, OverrideError, Overrides, Pipeline, SchemaOverride, ShortSchemaError, attached_file,
    short_schema,
};
pub use router::{EmbeddingRequest, Embeddings, Request, ResponseStream, RouterHandle, StreamMode};
pub use run::{MaxFailures, Progress, Report, RunOutcome, RunOutput};
pub use runtime::{
    Error, MaxCost, PauseOptions, Pointsman, PreparedRun, ProgressStream, Question, QuestionAnswer,
    QuestionError, ResumeOptions, RunControl, RunHandle, RunOptions,
};
pub use sink::{Line, RejectLine, Sink};
pub use source::Source;
#[cfg(feature = "sqlite")]
pub use store::Sqlite;
pub use store::{CacheLimits, RunNumber, Store};
pub use telemetry::TraceContext;
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
        Destination, Format as SinkFormat, FormulaCells, LineOptions, OtherFields, OutputColumns, RowLayout,
        StepColumns, StepError, StepLine, StepStatus, TokenCount,
    };
    pub use crate::source::{Delimiter, FileSelection, Format as SourceFormat, Limits as SourceLimits};
    pub use crate::types::ItemStatus;
}

/// What a [`Daemon`] takes and returns: its start, callers, pipelines, runs, items, requests, events, tokens and spending.
#[cfg(feature = "server")]
pub mod service {
    pub use crate::daemon::{
        Access, Answer, AttemptView, Caller, ConfigCheck, ConfigView, Event, EventKind, EventLog,
        EventUpdate, EventWatch, Expected, FailureView, FieldError, ItemCounts, ItemPage, ItemProgress,
        ItemQuery, ItemState, ItemView, ItemsFrom, LineStream, LoadConfig, NewRequest, NewRun, NewStreamMode,
        NewToken, NewTool, Permission, PipelineCheck, PipelineEntry, PipelineOrigin, PipelineVersion,
        PriceView, PricesView, Readiness, Reason, RejectStream, Reloaded, ResultsFrom, RunPage, RunQuery,
        RunUpdate, RunView, RunWatch, ShownState, SpendingKey, SpendingRow, StepView, Stopping,
        StoredPipeline, SubmittedItem, TokenLimits, TokenView,
    };
    pub use crate::store::RunState;
    pub use crate::types::{Day, Secret};
}

/// Changes of the configuration of a running [`Pointsman`].
pub mod reload {
    pub use crate::runtime::{AppliedAs, ConfigDiff, ReloadReport, SettingChange};
}

/// State of providers and supervised actors.
pub mod health {
    pub use crate::guard::BreakerState;
    pub use crate::provider::{
        KeyCooldown, KeySnapshot, LimitSnapshot, LimitUtilization, OutOfService,
        Snapshot as ProviderSnapshot, TargetSnapshot,
    };
    pub use crate::supervisor::{ChildState, ChildStatus, Drained, Exit};
}

/// Errors of parts of Pointsman, and why a text is not a name or a format.
pub mod errors {
    #[cfg(feature = "server")]
    pub use crate::daemon::{Error as DaemonError, Kind as DaemonErrorKind};
    pub use crate::pipeline::ManifestDiff;
    pub use crate::provider::Error as ProviderError;
    pub use crate::runtime::ClockError;
    pub use crate::sink::{Error as SinkError, LineError};
    pub use crate::source::{
        DecodeError, DelimiterError, Error as SourceError, FormatError, LayoutFault, ValueError,
    };
    pub use crate::store::Error as StoreError;
    pub use crate::supervisor::Error as SupervisorError;
    pub use crate::telemetry::TraceContextError;
    pub use crate::types::{ScopeNameError, TargetNameError};
}
