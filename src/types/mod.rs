//! The nouns everybody shares: names, prompts, replies, usage, money, failures.
//!
//! Plain data. Nothing here reads a file, a clock or a socket.

mod answer;
mod asker;
mod attempt_counts;
mod booked;
mod cause;
mod day;
pub mod duration;
mod failure;
mod fingerprint;
mod item;
mod limit_window;
mod limited;
mod media;
mod money;
mod name;
mod origin;
mod prompt;
mod reply;
mod scope;
mod secret;
mod spent;
mod story;
mod usage;

pub use answer::{Answer, Attempt, Outcome, Trail, Unanswered};
pub use asker::{Asker, ItemOfRun, RunId};
pub use attempt_counts::{AttemptCounts, FailedAttempt};
pub use booked::Booked;
pub use cause::Cause;
pub use day::Day;
pub use failure::{Charged, Class, Failure, Verdict, Whose};
pub use fingerprint::{Fingerprint, FingerprintError};
pub use item::{ItemKey, ItemStatus};
pub use limit_window::LimitWindow;
pub use limited::Limited;
pub use media::{Media, MediaData};
pub use money::{LongPrice, NanoUsd, Price};
pub use name::{KeyLabel, LaneName, LaneNameError, ModelName, Priority, ProviderName, RouteName, StepName};
pub use origin::{Origin, OriginError};
pub use prompt::{Message, Part, Prompt, Role, Shape};
pub use reply::Reply;
pub use scope::{Parameter, Scope};
pub use secret::Secret;
pub use spent::Spent;
pub use story::whole_story;
pub use usage::{MAX_CREDIBLE_TOKENS, Tokens, Usage};
