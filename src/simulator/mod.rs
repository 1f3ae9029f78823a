//! Simulator of the HTTP APIs of OpenAI, Anthropic and Gemini, for use without an API key.
//!
//! Responses, streams, headers and errors have each vendor's format. Latency, rate limits and faults are settings.
//! Generated answers are marked as simulated. The simulator shares no code with the client side of the wire
//! formats, so that each can test the other, and it opens no outgoing connection.

mod account;
mod anthropic;
mod api_error;
mod body;
mod completion;
mod connection;
mod counts;
mod distribution;
mod duplicates;
mod event_stream;
mod example;
mod fault;
mod gateway;
mod gemini;
mod handler;
mod merge;
mod openai;
mod parsed_request;
mod request_scope;
mod response_data;
mod rng;
mod routes;
mod server;
mod settings;
mod strict_schema;
mod token_stream;
mod vendor;
mod vendor_format;

#[cfg(test)]
mod tests;

pub use counts::{Counts, SecondCounts};
pub use distribution::{FirstToken, Latency, Length};
pub use example::example;
pub use fault::{Fault, FaultKind, RetryAfter};
pub use server::Simulator;
pub use settings::{AccountLimits, BucketSize, Gateway, OutputAccounting, Settings};
pub use vendor::Vendor;
