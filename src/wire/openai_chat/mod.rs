//! OpenAI's chat completions API and compatible APIs.
//!
//! The same code supports OpenAI, Azure, Gemini's compatible endpoint, Ollama, vLLM, llama.cpp and LM Studio:
//! additional fields are ignored, missing fields are unknown, and all their error structures are supported. The
//! vendor only matters for the name of `max_tokens` and for the rules of strict schemas.

mod chunk;
mod error;
mod error_codes;
mod incoming;
mod message;
mod rate_limit_headers;
mod request;
mod response;
#[cfg(test)]
mod strict_schema;
#[cfg(test)]
mod tests;
mod tool_calls;
mod tools;
mod usage;

pub(super) use error::{apply_headers, failure, in_band, in_band_text, read_error};
pub(super) use incoming::{
    check_detail, data_document, function_tool, json_schema, read_choice, read_effort, read_request,
    read_tools, refuse_file_id, refuse_unless_empty,
};
pub(super) use message::{Address, address, document_name};
pub(super) use rate_limit_headers::read_rate_limit_headers;
pub(super) use request::{BASE_URL, authorization, encode, is_azure, is_openai};
pub(super) use response::{Decoder, stopped, truncation_message};
pub(super) use usage::{InputDetails, OutputDetails, TokenCounts};
