//! Sends large numbers of LLM requests through a pipeline and resumes after a crash.
//!
//! The input is a list of *items*. A *pipeline* defines the prompts for each item and their order. *Providers*
//! answer: any server with the API of OpenAI, Anthropic or Gemini. Pointsman paces requests to the limits of each
//! provider, sends a failed request to another provider, and validates each answer.
//!
#![cfg_attr(feature = "server", doc = "```")]
#![cfg_attr(not(feature = "server"), doc = "```no_run")]
//! use pointsman::run::RunOutput;
//! use pointsman::sink::Sink;
//! use pointsman::source::Source;
//! use pointsman::{Config, Pointsman};
//! use serde_json::json;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // The simulator on this machine answers, so this program needs no key.
//!     let config = Config::load(None, &|name| std::env::var(name).ok())?.simulated();
//!     let pointsman = Pointsman::start(&config)?;
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
//!         let mut run = pointsman.run(pipeline, Source::values("tickets", items), RunOutput::new(sink)).await?;
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
//! [`Pointsman::ask`] sends one request without a pipeline. actix actors can send requests to the address that
//! [`Pointsman::router`] returns; `examples/embed.rs` does so in an actix-web app.
//!
//! # Modules
//!
//! | module | contents |
//! |---|---|
//! | [`runtime`] | [`Pointsman`], the handle; starting, resuming and estimating runs |
//! | [`config`] | [`Config`]: reads `config.toml` or the environment, and refuses invalid settings |
//! | [`run`] | the execution of a run: its items, holds, failures, progress and report |
//! | [`pipeline`] | pipelines: steps, prompt templates, conditions, answer validation |
//! | [`source`] | reads items from JSON lines, JSON, CSV or an iterator |
//! | [`sink`] | writes results as JSON lines or CSV, or sends them to a channel |
//! | [`router`] | selects the target of each request, with retries, failover and hedging |
//! | [`provider`] | one account at one vendor: keys, limits, queue, HTTP |
//! | [`wire`] | converts requests and responses, one file per API format |
//! | [`guard`] | admission of calls: rate limits, concurrency, circuit breaker, retry budget, back-off |
//! | [`ledger`] | commits records to the store in batches |
//! | [`store`] | stores runs, items, answers and costs; SQLite |
//! | [`supervisor`] | supervision for actix: restarts after panics, drains |
//! | [`diagnostics`] | TOML with the position of every value; [`Diagnostics`](diagnostics::Diagnostics) |
//! | [`types`] | shared types: [prompts](types::Prompt), [responses](types::Response), [failures](types::Failure) |
#![cfg_attr(
    feature = "server",
    doc = "| [`simulator`] | a server that simulates the providers, with limits and faults |"
)]
#![cfg_attr(feature = "chaos", doc = "| [`chaos`] | fault injection for tests |")]
#![cfg_attr(feature = "cli", doc = "| [`cli`] | the program; the only module that prints |")]
//!
//! `docs/architecture.md` describes the structure, `docs/guarantees.md` the guarantees, `docs/configuration.md` and
//! `docs/pipelines.md` every key.
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

#[cfg(feature = "chaos")]
pub mod chaos;
#[cfg(not(feature = "chaos"))]
mod chaos;
#[cfg(feature = "cli")]
pub mod cli;
mod clock;
pub mod config;
pub mod diagnostics;
mod files;
pub mod guard;
pub mod ledger;
pub mod pipeline;
pub mod provider;
pub mod router;
pub mod run;
pub mod runtime;
#[cfg(feature = "server")]
pub mod simulator;
pub mod sink;
pub mod source;
pub mod store;
pub mod supervisor;
mod terminal_text;
pub mod types;
pub mod wire;

pub use config::Config;
pub use runtime::{Error, Pointsman, RunHandle};
