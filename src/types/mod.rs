//! Data types that all modules share: names, prompts, completions, usage, money and failures.
//!
//! Plain data without I/O and without a clock.

mod attempt_counts;
mod bounded_text;
mod cause;
mod completion;
mod day;
pub mod duration;
mod embedding;
mod error_chain;
mod failure;
mod failure_scope;
mod fingerprint;
mod finish_reason;
mod format;
mod input_fields;
mod item;
mod limit_window;
mod media;
mod message;
mod money;
mod name;
mod origin;
mod prompt;
mod prompt_check;
mod rate_limit_resource;
mod rate_limit_status;
mod reasoning;
mod remedy;
mod request_context;
mod response;
mod savings;
pub mod seconds;
mod secret;
mod shared_prefix;
mod spend;
mod stream_event;
mod tool;
mod usage;
mod usage_totals;
pub mod utc_time;
mod vendor_fields;

pub use attempt_counts::{AttemptCounts, FailedAttempt};
pub(crate) use bounded_text::bounded_text;
pub use cause::Cause;
pub use completion::Completion;
pub use day::{Day, DayError};
pub use embedding::{EmbeddingLimits, EmbeddingOptions};
pub use error_chain::error_chain;
pub use failure::{Attribution, Charged, Class, Failure, RetryAction};
pub use failure_scope::{FailureScope, Parameter};
pub use fingerprint::{Fingerprint, FingerprintError};
pub use finish_reason::{FinishReason, LengthLimit};
pub use format::Format;
pub use input_fields::{FieldCollector, InputFields};
pub use item::{ItemKey, ItemStatus};
pub use limit_window::LimitWindow;
pub use media::{Media, MediaData};
pub use message::{Message, Part, Role, ToolCall, ToolResult};
pub use money::{LongPromptPrice, NanoUsd, Price};
pub use name::{
    KeyLabel, ModelName, Priority, ProviderName, RouteName, ScopeName, ScopeNameError, StepName, TargetName,
    TargetNameError,
};
pub use origin::{Origin, OriginError};
pub use prompt::{Prompt, ResponseFormat};
pub use rate_limit_resource::RateLimitResource;
pub use rate_limit_status::RateLimitStatus;
pub use reasoning::{Reasoning, ReasoningEffort, Signature};
pub use remedy::{Advice, Remedy};
pub use request_context::{RequestContext, RunId, RunItem};
pub use response::{Attempt, AttemptLog, Outcome, RequestError, Response};
pub use savings::Savings;
pub use secret::Secret;
pub use shared_prefix::{CacheTtl, SharedPrefix};
pub use spend::Spend;
pub use stream_event::{StreamEvent, ToolCallDelta};
pub(crate) use tool::is_json_object;
pub use tool::{Tool, ToolChoice};
pub use usage::{MAX_CREDIBLE_TOKENS, Tokens, Usage};
pub use usage_totals::UsageTotals;
pub use vendor_fields::VendorFields;
