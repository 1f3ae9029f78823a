//! Plays OpenAI, Anthropic and Gemini over HTTP, so that everything can be tried without a key.
//!
//! Replies, streams, headers and errors have each vendor's own form; latency, limits and faults are set.
//! What it says is made up and says so. It shares no code with the formats that talk to real vendors, so
//! that the two check each other, and it never calls anybody.

mod account;
mod answer;
mod anthropic;
mod ask;
mod body;
mod counts;
mod door;
mod draw;
mod events;
mod example;
mod fault;
mod gateway;
mod gemini;
mod line;
mod merge;
mod openai;
mod play;
mod repeats;
mod reply;
mod rules;
mod server;
mod settings;
mod spread;
mod trouble;
mod vendor;
mod visit;
mod writing;

#[cfg(test)]
mod tests;

pub use counts::{Counts, Second};
pub use example::example;
pub use fault::{Fault, FaultKind, RetryAfter};
pub use server::Simulator;
pub use settings::{BucketSize, Gateway, Limits, OutputCounts, Settings};
pub use spread::{FirstToken, Latency, Length};
pub use vendor::Vendor;
