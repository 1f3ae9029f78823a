//! Starts everything and hands out the handle: the face of the library.
//!
//! ```no_run
//! use pointsman::types::Prompt;
//! use pointsman::{Config, Pointsman};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::load(None, &|name| std::env::var(name).ok())?;
//! let pointsman = Pointsman::start(&config)?;
//! let answer = pointsman.ask("default", Prompt::text("Say hello.")).await?;
//! println!("{} says: {}", answer.lane, answer.reply.text);
//! # Ok(())
//! # }
//! ```
//!
//! It lives on threads of its own, so it does not matter whether the program around it is actix,
//! plain tokio, or neither. It takes no signals and ends no process.

mod capped;
mod check;
mod children;
mod day_limits;
mod error;
mod keep;
mod keep_options;
mod learned;
mod marks;
mod open_runs;
mod outcome;
mod outputs;
mod pause_options;
mod plan;
mod played;
mod pointsman;
mod purses;
mod retry;
mod run;
mod runs;
mod session;
mod threads;

pub use crate::clock::ClockError;
pub use capped::{MaxCost, RunOptions};
pub use check::check;
pub use error::Error;
pub use keep::Kept;
pub use keep_options::Keep;
pub use outcome::{rejected_by, retried_by};
pub use outputs::{note_written, owner_of};
pub use pause_options::PauseOptions;
pub use plan::{Bound, Counted, LanePlan, NoCalls, Plan, Range, Sample, StepPlan};
pub use pointsman::Pointsman;
pub use retry::Retried;
pub use run::RunHandle;
