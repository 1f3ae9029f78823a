//! Pipelines: the steps to run for each item.
//!
//! A [`Pipeline`] is loaded from a TOML file, with all errors reported at once. An [`ItemState`] is the state
//! machine of one item: it returns the requests to send next, and records their responses. Both are plain structs:
//! they wait for nothing, send nothing and read no clock. The actors of the module `run` read items from a
//! `source`, send the requests, and write the outcomes to a `sink`.

mod answer_settings;
pub(crate) mod attach;
pub(crate) mod cache_key;
pub(crate) mod cache_mode;
mod choice;
mod compile;
mod constant_prompt;
pub(crate) mod defaults;
pub(crate) mod definition;
mod embed;
mod extract_json;
mod field_advice;
mod filters;
mod graph;
mod item_check;
pub(crate) mod item_state;
mod load;
pub(crate) mod manifest;
pub(crate) mod meter;
mod nesting;
mod operators;
mod overrides;
mod prompt_cache;
mod raw;
mod resolve;
mod rewrite;
mod sampling;
mod schema;
mod schema_errors;
pub(crate) mod shared_prefix;
mod short_schema;
mod signatures;
mod source_diagnostics;
mod starter;
mod step_names;
pub(crate) mod step_request;
mod symbols;
pub(crate) mod template;
#[cfg(test)]
mod tests;
mod toml_string_span;
mod validate;
mod validation_retry;
mod values;

pub use crate::files::protected::{FileUse, ProtectedFiles};
pub use answer_settings::AnswerSettings;
pub use attach::{Attachment, FileAttachment, attached_file};
pub use cache_key::ModelIdentity;
pub use cache_mode::CacheMode;
pub use constant_prompt::ConstantPrompt;
pub use defaults::{Defaults, Temperature};
pub use definition::{Pipeline, Step};
pub use item_check::{CheckedStep, StepCheck, TemplateFault};
pub use item_state::{ItemOutcome, ItemState, StepEnd, StepOutcome};
pub use manifest::{ManifestDiff, RunManifest, StepManifest, TargetManifest};
pub use overrides::{OverrideError, Overrides, SchemaOverride};
pub use prompt_cache::PromptCache;
pub use sampling::{StopSequences, TopP};
pub use short_schema::{ShortSchemaError, short_schema};
pub use starter::{field_expression, starter};
pub use step_request::{AnswerCheck, StepRequest};
