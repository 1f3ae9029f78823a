//! Data types that all modules share: names, prompts, completions, usage, money and failures.
//!
//! Plain data without I/O and without a clock.

mod attempt_counts;
mod cause;
mod completion;
mod day;
pub mod duration;
mod error_chain;
mod failure;
mod fingerprint;
mod item;
mod limit_window;
mod media;
mod money;
mod name;
mod origin;
mod prompt;
mod rate_limit_resource;
mod rate_limit_status;
mod remedy;
mod request_context;
mod response;
mod scope;
mod secret;
mod spend;
mod usage;
mod usage_totals;

pub use attempt_counts::{AttemptCounts, FailedAttempt};
pub use cause::Cause;
pub use completion::Completion;
pub use day::Day;
pub use error_chain::error_chain;
pub use failure::{Attribution, Charged, Class, Failure, RetryAction};
pub use fingerprint::{Fingerprint, FingerprintError};
pub use item::{ItemKey, ItemStatus};
pub use limit_window::LimitWindow;
pub use media::{Media, MediaData};
pub use money::{LongPromptPrice, NanoUsd, Price};
pub use name::{
    KeyLabel, ModelName, Priority, ProviderName, RouteName, StepName, TargetName, TargetNameError,
};
pub use origin::{Origin, OriginError};
pub use prompt::{Message, Part, Prompt, ResponseFormat, Role};
pub use rate_limit_resource::RateLimitResource;
pub use rate_limit_status::RateLimitStatus;
pub use remedy::{Advice, Remedy};
pub use request_context::{RequestContext, RunId, RunItem};
pub use response::{Attempt, AttemptLog, Outcome, RequestError, Response};
pub use scope::{Parameter, Scope};
pub use secret::Secret;
pub use spend::Spend;
pub use usage::{MAX_CREDIBLE_TOKENS, Tokens, Usage};
pub use usage_totals::UsageTotals;
