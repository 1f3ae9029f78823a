//! Simulator of the HTTP APIs of OpenAI (chat completions, responses and embeddings), Anthropic and Gemini, for use
//! without an API key.
//!
//! Responses, streams, headers and errors have each vendor's format. Latency, rate limits and faults are settings.
//! Generated answers are marked as simulated. Messages can ask for an answer: `Answer with exactly one of: A, B` for
//! one of the choices, `Call the tool A` or `Call the tools A, B and C` for calls of tools that the request offers.
//!
//! The simulator shares no code with the client side of the wire formats, so that each can test the other, and it opens
//! no outgoing connection.

mod account;
mod anthropic;
mod api_error;
mod body;
mod completion;
mod connection;
mod content;
mod counts;
mod distribution;
mod duplicates;
mod embedding;
mod event_stream;
mod example;
mod fault;
mod gateway;
mod gemini;
mod handler;
mod merge;
mod model_page;
mod openai;
mod parsed_request;
mod prompt_cache;
mod prompt_prefixes;
mod reasoning;
mod request_scope;
mod response_data;
mod rng;
mod routes;
mod server;
mod settings;
mod strict_schema;
mod token_stream;
mod tool_pairing;
mod tool_settings;
mod vendor;
mod vendor_format;
mod wire_format;

#[cfg(test)]
mod tests;

pub use counts::{Counts, SecondCounts};
pub use distribution::{FirstToken, Latency, Length};
pub use example::example;
pub use fault::{Fault, FaultKind, RetryAfter};
pub use prompt_cache::PromptCaching;
pub use server::Simulator;
pub use settings::{AccountLimits, BucketSize, Gateway, OutputAccounting, Settings};
pub use vendor::Vendor;
