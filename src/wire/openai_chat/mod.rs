//! OpenAI's chat completions API and compatible APIs.
//!
//! The same code supports OpenAI, Azure, Gemini's compatible endpoint, Ollama, vLLM, llama.cpp and LM Studio:
//! additional fields are ignored, missing fields are unknown, and all their error structures are supported. The
//! vendor only matters for the name of `max_tokens` and for the rules of strict schemas.

mod chunk;
mod error;
mod error_codes;
mod rate_limit_headers;
mod request;
mod response;
#[cfg(test)]
mod strict_schema;
#[cfg(test)]
mod tests;

pub(super) use error::{apply_headers, read_error};
pub(super) use rate_limit_headers::read_rate_limit_headers;
pub(super) use request::{BASE_URL, authorization, encode, is_openai};
pub(super) use response::Decoder;
