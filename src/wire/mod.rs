//! Prompts to bytes, bytes to replies: one file per format, and no input or output of its own.
//!
//! A *format* is a way of speaking (OpenAI's chat completions, Anthropic's messages, Gemini's
//! generateContent); a *vendor* is whoever speaks it. What differs between vendors of one format is
//! a [`Dialect`], which is configuration and not code.
//!
//! Calls always ask for a stream. [`Decoder`] eats its events and gives the [`Reply`](crate::types::Reply) only when the
//! format's own end mark has come: an answer that was cut is never a reply.

mod anthropic;
mod count;
mod dialect;
mod echo;
#[cfg(test)]
mod error_bodies;
mod excerpt;
mod exchange;
#[cfg(test)]
mod fixtures;
mod format;
mod gateway;
mod gemini;
mod halves;
mod hints;
mod instants;
mod left_out;
mod lenient;
mod limited;
mod openai_chat;
mod outgoing;
mod parameter;
mod phrases;
mod reasoning;
mod refused;
mod schema_fits;
mod schema_rules;
mod scope;
mod structured;
mod text_document;
mod times;
mod told;
mod translate_schema;

pub use dialect::{Dialect, MaxTokensField, Structured};
pub use echo::without_echo;
pub use exchange::{Progress, Request};
pub use format::{Decoder, Format};
pub use hints::{Hints, Remaining};
pub use left_out::LeftOut;
pub use reasoning::ReasoningTags;
