//! Runs very many AI calls at once and loses none of them.
//!
//! Work comes as *items*; a *pipeline* says which prompts each item needs and in which order; *providers*
//! (whatever speaks the formats of OpenAI, Anthropic or Gemini) answer. Actors between them keep every
//! provider within its limits, move a question to another provider when one fails, and check each answer.
//!
#![cfg_attr(feature = "server", doc = "```")]
#![cfg_attr(not(feature = "server"), doc = "```no_run")]
//! use pointsman::pipeline::{run::Output, sink::Sink, source::Source};
//! use pointsman::{Config, Pointsman};
//! use serde_json::json;
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // The simulator on this machine answers, so this runs without a key.
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
//!     // Any runtime will do.
//!     pointsman.runtime().block_on(async {
//!         let mut run = pointsman.run(pipeline, Source::values("tickets", items), Output::new(sink)).await?;
//!         while let Some(line) = lines.recv().await {
//!             println!("{}: {} {}", line.key, line.answers["kind"], line.answers["reply"]);
//!         }
//!         let report = run.report().await?;
//!         assert_eq!((report.items.completed, report.practice), (3, true));
//!         Ok(())
//!     })
//! }
//! ```
//!
//! One question without a pipeline is [`Pointsman::ask`]; actors of your own ask the address that
//! [`Pointsman::router`] returns. `examples/embed.rs` does that inside an actix-web app.
//!
//! # Rooms
//!
//! | module | what lives there |
//! |---|---|
//! | [`runtime`] | [`Pointsman`], the handle to everything that runs |
//! | [`config`] | [`Config`]: reads `config.toml` or the environment, and refuses what makes no sense |
//! | [`pipeline`] | pipelines, runs, [sources](source), [sinks](sink), reports |
//! | [`router`] | picks the provider for each question, and another when that one fails |
//! | [`provider`] | one account at one vendor: its keys, its pacing, its queue, HTTP |
//! | [`wire`] | prompts to bytes and bytes to replies, one file per format |
//! | [`guard`] | whether a call may leave now: rates, concurrency, breaker, retry budget, back-off |
//! | [`ledger`] | commits what must survive, many records at a time |
//! | [`store`] | keeps runs, items, answers and costs; SQLite |
//! | [`supervisor`] | supervision for actix: restarts after panics, drains |
//! | [`document`] | TOML with the place of every value; [`Faults`](document::Faults) |
//! | [`types`] | the nouns: [prompts](types::Prompt), [answers](types::Answer), [failures](types::Failure) |
#![cfg_attr(
    feature = "server",
    doc = "| [`simulator`] | a server that plays the providers, with limits and faults |"
)]
#![cfg_attr(feature = "chaos", doc = "| [`chaos`] | panics on purpose, for tests |")]
#![cfg_attr(feature = "cli", doc = "| [`cli`] | the program, and the only room that prints |")]
//!
//! `docs/architecture.md` is the map, `docs/guarantees.md` says what can be relied on,
//! `docs/configuration.md` and `docs/pipelines.md` have every key.
//!
//! # Features
//!
//! `cli`, `server` and `sqlite` are on by default; a program that embeds Pointsman rarely needs them:
//! `pointsman = { version = "0.1", default-features = false }`.
//!
//! - `cli`: the program `pointsman`, with the crates that it prints and parses arguments with.
//! - `server`: what answers over HTTP: the simulator, and with it `base_url = "simulator"`. Without it such a
//!   provider, and a [simulated](Config::simulated) configuration, is refused at the start.
//! - `sqlite`: the store in an SQLite file, with its bundled SQLite. Without it nothing is kept.
//! - `chaos`: never on by default, and for tests only: lets actors and calls panic where a plan says. Without
//!   it nothing of that is compiled.
//!
//! The library takes no signals, installs no logger and ends no process. It logs through `tracing`, and
//! lives on threads of its own, so the program around it may be actix, plain tokio, or neither. A build with
//! `panic = "abort"` is refused: a panic costs one call or one actor, never the process.

#[cfg(not(panic = "unwind"))]
compile_error!("a panic must cost one actor, not the process: build with panic = \"unwind\"");

#[cfg(feature = "chaos")]
pub mod chaos;
#[cfg(not(feature = "chaos"))]
mod chaos;
#[cfg(feature = "cli")]
pub mod cli;
mod clock;
pub mod config;
pub mod document;
mod files;
pub mod guard;
pub mod ledger;
pub mod pipeline;
pub mod provider;
pub mod router;
pub mod run;
pub mod runtime;
mod screen;
#[cfg(feature = "server")]
pub mod simulator;
pub mod sink;
pub mod source;
pub mod store;
pub mod supervisor;
pub mod types;
pub mod wire;

pub use config::Config;
pub use runtime::{Error, Pointsman, RunHandle};
