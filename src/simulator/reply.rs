//! An answer on its way out, and the vendor's hand that writes it.
//!
//! Chooses the vendor's file and nothing else; every byte of a format is written there.

use http::{HeaderMap, HeaderValue};
use jiff::Timestamp;

use super::account::Standing;
use super::answer::Answer;
use super::ask::Ask;
use super::events::Events;
use super::trouble::Trouble;
use super::{Settings, Vendor, anthropic, gemini, openai};

/// What a reply says besides the answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reply<'a> {
    pub(super) model: &'a str,
    pub(super) answer: &'a Answer,
    pub(super) input_tokens: u64,
    /// Differs in every reply.
    pub(super) serial: u64,
    /// Seconds since 1970.
    pub(super) created: i64,
}

/// The parts of a request's head that a format looks at.
pub(super) struct Head<'a> {
    pub(super) headers: &'a HeaderMap,
    pub(super) query: &'a str,
    /// The model where the path names it.
    pub(super) model: Option<&'a str>,
    /// Whether the path asks for a stream.
    pub(super) stream: bool,
}

/// An error reply: status and body.
pub(super) type ErrorReply = (u16, Vec<u8>);

/// Reads a request as `vendor` would.
pub(super) fn read<'a>(
    vendor: Vendor,
    head: &Head<'a>,
    body: &'a [u8],
    settings: &Settings,
) -> Result<Ask<'a>, Trouble> {
    match vendor {
        Vendor::OpenAi => openai::read(body, settings),
        Vendor::Anthropic => anthropic::read(head, body, settings),
        Vendor::Gemini => gemini::read(head, body, settings),
    }
}

/// Writes a whole reply.
pub(super) fn whole(vendor: Vendor, reply: &Reply<'_>) -> Vec<u8> {
    match vendor {
        Vendor::OpenAi => openai::whole(reply),
        Vendor::Anthropic => anthropic::whole(reply),
        Vendor::Gemini => gemini::whole(reply),
    }
}

/// Writes a stream of at most so many pieces.
pub(super) fn events(vendor: Vendor, reply: &Reply<'_>, pieces: usize, usage: bool) -> Events {
    match vendor {
        Vendor::OpenAi => openai::events(reply, pieces, usage),
        Vendor::Anthropic => anthropic::events(reply, pieces),
        Vendor::Gemini => gemini::events(reply, pieces),
    }
}

/// Writes an error.
pub(super) fn error(vendor: Vendor, trouble: &Trouble, serial: u64) -> ErrorReply {
    match vendor {
        Vendor::OpenAi => openai::error(trouble),
        Vendor::Anthropic => anthropic::error(trouble, serial),
        Vendor::Gemini => gemini::error(trouble),
    }
}

/// Writes the error that comes inside a stream.
pub(super) fn error_event(vendor: Vendor, serial: u64) -> Vec<u8> {
    let event = match vendor {
        Vendor::OpenAi => openai::error(&Trouble::Server { status: 500 }).1,
        Vendor::Anthropic => anthropic::error(&Trouble::Overloaded { status: None }, serial).1,
        Vendor::Gemini => gemini::error(&Trouble::Overloaded { status: None }).1,
    };
    let name: &[u8] = if vendor == Vendor::Anthropic { b"event: error\n" } else { b"" };
    [name, b"data: ", &event, line_end(vendor)].concat()
}

/// Returns what ends an event.
pub(super) fn line_end(vendor: Vendor) -> &'static [u8] {
    if vendor == Vendor::Gemini { b"\r\n\r\n" } else { b"\n\n" }
}

/// Adds the headers that every reply of the vendor carries.
pub(super) fn add_headers(vendor: Vendor, headers: &mut HeaderMap, serial: u64) {
    match vendor {
        Vendor::OpenAi => openai::add_headers(headers, serial),
        Vendor::Anthropic => anthropic::add_headers(headers, serial),
        Vendor::Gemini => {}
    }
}

/// Adds how the limits stand, where the vendor says so at all.
pub(super) fn add_standing(vendor: Vendor, headers: &mut HeaderMap, standing: &Standing, now: Timestamp) {
    match vendor {
        Vendor::OpenAi => openai::add_standing(headers, standing),
        Vendor::Anthropic => anthropic::add_standing(headers, standing, now),
        Vendor::Gemini => {}
    }
}

/// Adds the time by the vendor's clock, which is not this machine's.
pub(super) fn add_date(headers: &mut HeaderMap, now: Timestamp) {
    let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    if let Ok(date) = HeaderValue::try_from(date) {
        headers.insert(http::header::DATE, date);
    }
}

/// Adds when to come back, where the vendor has a header for it.
pub(super) fn add_retry_after(headers: &mut HeaderMap, vendor: Vendor, trouble: &Trouble) {
    match vendor {
        Vendor::OpenAi => openai::add_retry_after(headers, trouble),
        Vendor::Anthropic => anthropic::add_retry_after(headers, trouble),
        // Gemini says it in the body.
        Vendor::Gemini => {}
    }
}

/// Returns the list of models.
pub(super) fn models(vendor: Vendor, models: &[String]) -> Vec<u8> {
    let practice = [super::answer::MARK.trim_matches(['[', ']']).to_owned()];
    let models = if models.is_empty() { &practice } else { models };
    match vendor {
        Vendor::OpenAi => openai::models(models),
        Vendor::Anthropic => anthropic::models(models),
        Vendor::Gemini => gemini::models(models),
    }
}

/// Makes a header of what is known to be plain ASCII.
pub(super) fn header_value(text: impl std::fmt::Display) -> HeaderValue {
    HeaderValue::try_from(text.to_string()).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// Appends `text` as a JSON string.
pub(super) fn json_string(out: &mut Vec<u8>, text: &str) {
    // Writing a string to memory cannot fail, neither as JSON nor as I/O.
    let _ = serde_json::to_writer(out, text);
}

/// Appends each part in its turn: bytes as they are, numbers in digits.
macro_rules! append {
    ($out:expr, $($part:expr),+ $(,)?) => {{
        use std::io::Write as _;
        // Writing to memory cannot fail.
        $( let _ = write!($out, "{}", $part); )+
    }};
}
pub(super) use append;
