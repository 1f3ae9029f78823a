//! Encodes prompts as HTTP requests and decodes HTTP responses, one module per format. No I/O.
//!
//! A *format* is an API protocol (OpenAI's chat completions, Anthropic's messages, Gemini's generateContent). A
//! *vendor* is a provider that offers it. The differences between the vendors of one format are a [`Dialect`],
//! which is configuration and not code.
//!
//! Calls request a stream, except those for embeddings and those of a dialect without streams. A [`Decoder`] reads its events and returns the
//! [`Completion`](crate::types::Completion) only after the end mark of the format. A response that was cut off is
//! a failure.

mod answer;
mod answer_deltas;
mod answer_parts;
mod answer_rules;
mod anthropic;
mod arguments;
mod bounded_json;
mod bounded_list;
mod count;
mod dialect;
mod drop_parameter;
mod echo;
mod embeddings;
mod error_body;
mod exact_number;
mod failure_scope;
#[cfg(test)]
mod fixtures;
mod format;
mod gateway;
mod gemini;
mod http_error;
mod incoming;
mod lenient;
mod limit_status;
mod limited_resource;
mod model_list;
mod openai_chat;
mod openai_responses;
mod phrases;
mod progress;
mod prompt_cache;
mod rate_limit_headers;
mod reasoning;
#[cfg(test)]
mod recorded_errors;
mod rejected_parameter;
mod request;
mod reset_time;
mod retry_after;
mod schema_check;
mod schema_rules;
mod structured_output;
mod surrogates;
mod text_document;
mod translate_schema;
mod unsupported;
mod unsupported_parameters;
mod vendor_fields;

pub use crate::types::Format;
pub use dialect::{Dialect, MaxTokensField, StreamSupport, StructuredOutput};
pub use drop_parameter::DropParameter;
pub use echo::strip_echo;
pub use format::Decoder;
pub use incoming::IncomingRequest;
pub use model_list::{ModelListRequest, ModelPage, OfferedModel};
pub use progress::Progress;
pub use rate_limit_headers::RateLimitHeaders;
pub use reasoning::ReasoningTags;
pub use request::HttpRequest;
pub use unsupported_parameters::UnsupportedParameters;
pub use vendor_fields::{RefusedField, refused_fields};
