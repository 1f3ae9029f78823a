//! OpenAI's responses API and compatible servers.
//!
//! Stateless: each request contains the whole conversation and sets `"store": false`, so that reasoning comes back
//! encrypted and is sent again with the next request. The key, the errors and the rate-limit headers are those of
//! the chat completions API, whose module has their code.

mod event;
mod incoming;
mod input;
mod output;
mod raw_field;
mod request;
mod response;
#[cfg(test)]
mod tests;

pub(super) use incoming::read_request;
pub(super) use request::encode;
pub(super) use response::Decoder;
