//! The marks with which a client says where the cached parts of its request end.
//!
//! Caching changes the price of an answer and not the answer. A prompt can say the end of the beginning that it shares
//! with other prompts, and the vendor takes a mark at the top level for the end of the conversation: these two are
//! kept. Marks between them are dropped. They would let a request read the cache of another request that differs
//! earlier than at the end of the conversation and later than in the shared beginning.

use serde_json::{Value, json};

use crate::types::{CacheTtl, Failure, Fingerprint, Message, Part, Prompt, Role, SharedPrefix};
use crate::wire::incoming::Fields;

/// The client decides that the beginning is cached, however short it is: the vendor ignores a mark below its minimum.
const TOKENS: u64 = u64::MAX;

/// The marks that are kept, each with the time for which the vendor caches.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// At the last tool.
    pub(super) tools: Option<CacheTtl>,
    /// At the last block of the system prompt.
    pub(super) system: Option<CacheTtl>,
    /// At the text with which the conversation begins.
    first_text: Option<CacheTtl>,
    /// At the last block of the conversation.
    end: Option<CacheTtl>,
    /// Whether the first text is also the last block.
    is_first_text_last: bool,
}

/// Removes the mark of a block.
///
/// # Errors
/// `api_error` if the vendor does not document it.
pub(super) fn take_mark(block: &mut Fields) -> Result<Option<CacheTtl>, Failure> {
    let Some(mut control) = block.object("cache_control")? else { return Ok(None) };
    match &*control.required_text("type")? {
        "ephemeral" => {}
        other => return Err(control.unsupported("type", other)),
    }
    let ttl = match control.text("ttl")?.as_deref() {
        None | Some("5m") => CacheTtl::FiveMinutes,
        Some("1h") => CacheTtl::OneHour,
        Some(other) => return Err(control.unsupported("ttl", other)),
    };
    control.finish()?;
    Ok(Some(ttl))
}

impl Marks {
    /// Records the mark of the next block of the conversation, or that it has none.
    pub(super) fn record(&mut self, mark: Option<CacheTtl>, is_first_text: bool) {
        if is_first_text {
            self.first_text = mark;
        }
        self.is_first_text_last = is_first_text;
        self.end = mark;
    }

    /// Sets the shared beginning of a prompt, and the mark at the end of the conversation in the body.
    pub(super) fn apply(self, prompt: &mut Prompt, body: &mut Fields) {
        let beginning = self.beginning(prompt);
        // If the only text has a mark beside that of the system prompt, it is the end of the conversation.
        let is_end = self.is_first_text_last && beginning.is_some();
        let constant = first_text(prompt).filter(|_| self.first_text.is_some() && !is_end);
        let ttl = constant.and(self.first_text).or(beginning);
        let is_end_shared = constant.is_some() && self.is_first_text_last;
        let prefix = ttl.map(|ttl| {
            let text = constant.unwrap_or_default();
            SharedPrefix::new(fingerprint(prompt, text), TOKENS).with_text_bytes(text.len()).with_ttl(ttl)
        });
        prompt.shared_prefix = prefix;
        if let Some(ttl) = self.end.filter(|_| !is_end_shared && !body.has("cache_control")) {
            body.put("cache_control", top_level(ttl));
        }
    }

    /// Returns the mark at the end of what precedes the messages, which is where encoding would put it.
    fn beginning(&self, prompt: &Prompt) -> Option<CacheTtl> {
        let leading = prompt.messages.iter().take_while(|message| message.role == Role::System);
        let texts = leading.flat_map(|message| &message.parts).map(part_text);
        match prompt.system.as_deref().into_iter().chain(texts).last() {
            // The vendor refuses the mark on an empty text.
            Some(last) => self.system.filter(|_| !last.trim().is_empty()),
            None => self.tools,
        }
    }
}

/// Returns the text with which the conversation begins; `None` if it begins in another way, or with a blank text.
fn first_text(prompt: &Prompt) -> Option<&str> {
    let first = prompt.messages.iter().find(|message| message.role != Role::System)?;
    match (first.role, first.parts.first()) {
        (Role::User, Some(Part::Text(text))) if !text.trim().is_empty() => Some(text),
        _ => None,
    }
}

fn part_text(part: &Part) -> &str {
    if let Part::Text(text) = part { text } else { "" }
}

fn fingerprint(prompt: &Prompt, constant: &str) -> Fingerprint {
    let mut parts = vec!["shared prefix of a client".to_owned()];
    for tool in &prompt.tools {
        parts.push(tool.name.to_string());
        parts.push(tool.description.as_deref().unwrap_or_default().to_owned());
        parts.push(tool.parameters.to_string());
    }
    parts.push(prompt.system.as_deref().unwrap_or_default().to_owned());
    let is_system = |message: &&Message| message.role == Role::System;
    for part in prompt.messages.iter().take_while(is_system).flat_map(|message| &message.parts) {
        parts.push(part_text(part).to_owned());
    }
    parts.push(constant.to_owned());
    Fingerprint::of(parts.iter().map(|part| part.as_bytes()))
}

fn top_level(ttl: CacheTtl) -> Value {
    match ttl {
        CacheTtl::FiveMinutes => json!({ "type": "ephemeral" }),
        CacheTtl::OneHour => json!({ "type": "ephemeral", "ttl": "1h" }),
    }
}
