//! Speaks OpenAI's chat completions, and everything compatible with them.
//!
//! The same code talks to OpenAI, Azure, Gemini's compatible endpoint, Ollama, vLLM, llama.cpp and
//! LM Studio: what they add is ignored, what they leave out is unknown, and the shapes of their
//! errors are all known here. Nothing here asks which vendor it is, except for the name of
//! `max_tokens`.

mod chunk;
mod error;
mod limits;
mod reply;
mod request;
#[cfg(test)]
mod strict;
#[cfg(test)]
mod tests;
mod words;

pub(super) use error::{complete, read_error};
pub(super) use limits::read_hints;
pub(super) use reply::Decoder;
pub(super) use request::{BASE_URL, authorization, encode, is_openai};
