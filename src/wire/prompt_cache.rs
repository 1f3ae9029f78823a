//! Caching of the beginning that requests share, as far as the formats have it in common.

use crate::types::{Fingerprint, Format, Message, Part, Prompt, Role, SharedPrefix};

use super::Dialect;

/// Minimum tokens of a cached prompt at OpenAI
/// (<https://developers.openai.com/api/docs/guides/prompt-caching>).
const OPENAI_MIN_TOKENS: u64 = 1024;

/// Minimum tokens of a cached prompt of Anthropic's models, by the beginning of their names
/// (<https://platform.claude.com/docs/en/build-with-claude/prompt-caching>). The first that matches applies. A
/// prompt below the minimum is processed without cache and without an error.
const ANTHROPIC_MIN_TOKENS: [(&str, u64); 6] = [
    ("claude-3-haiku", 2048),
    ("claude-3-5-haiku", 2048),
    ("claude-haiku", ANTHROPIC_HAIKU_MIN_TOKENS),
    ("claude-opus-4-5", 4096),
    ("claude-opus-4-6", 4096),
    ("claude-opus-4-7", 2048),
];

/// For small models that are not in the list.
const ANTHROPIC_HAIKU_MIN_TOKENS: u64 = 4096;

/// For all other models.
const ANTHROPIC_DEFAULT_MIN_TOKENS: u64 = 1024;

/// Minimum tokens of a prompt that Gemini caches by itself
/// (<https://ai.google.dev/gemini-api/docs/caching>): of the newer models, and of the models of version 2.5.
const GEMINI_MIN_TOKENS: u64 = 4096;
const GEMINI_2_MIN_TOKENS: u64 = 2048;

/// Minimum bytes of constant text that is moved before attachments. Models answer better if an image precedes
/// the question about it, and a cache of less text saves little.
const MIN_MOVED_BYTES: usize = 1 << 10;

/// Returns how many tokens the beginning of a prompt needs to be cached by the vendor of a model.
pub(super) fn min_tokens(format: Format, model: &str) -> u64 {
    match format {
        Format::Openai | Format::OpenaiResponses => OPENAI_MIN_TOKENS,
        Format::Anthropic => anthropic_min_tokens(model),
        Format::Gemini if model.contains("gemini-2") => GEMINI_2_MIN_TOKENS,
        Format::Gemini => GEMINI_MIN_TOKENS,
    }
}

fn anthropic_min_tokens(model: &str) -> u64 {
    // Gateways put the name of the vendor or of a region before it.
    let name = model.find("claude-").and_then(|start| model.get(start..)).unwrap_or(model);
    let listed = ANTHROPIC_MIN_TOKENS.iter().find(|(prefix, _)| name.starts_with(prefix));
    match listed {
        Some((_, tokens)) => *tokens,
        None if name.contains("haiku") => ANTHROPIC_HAIKU_MIN_TOKENS,
        None => ANTHROPIC_DEFAULT_MIN_TOKENS,
    }
}

/// Returns the shared beginning of a prompt, if it is long enough to be cached.
pub(super) fn cacheable<'a>(
    prompt: &'a Prompt,
    format: Format,
    model: &str,
    dialect: &Dialect,
) -> Option<&'a SharedPrefix> {
    let min_tokens = dialect.min_cache_tokens.unwrap_or_else(|| min_tokens(format, model));
    prompt.shared_prefix.as_ref().filter(|prefix| prefix.tokens >= min_tokens)
}

/// Returns the `prompt_cache_key` of OpenAI's formats, unless the fields of the vendor contain one. OpenAI
/// sends requests with the same key to the same cache.
pub(super) fn openai_key(
    prompt: &Prompt,
    format: Format,
    model: &str,
    dialect: &Dialect,
) -> Option<Fingerprint> {
    let prefix = cacheable(prompt, format, model, dialect)?;
    let of_request = prompt.vendor_fields.iter().filter(|fields| fields.format == format);
    let mut fields = of_request.map(|fields| &fields.fields).chain(dialect.extra.as_ref());
    let is_set = fields.any(|fields| fields.contains_key("prompt_cache_key"));
    (!is_set).then_some(prefix.key)
}

/// A user message that is split after its constant text. The constant text is sent first.
#[derive(Debug, PartialEq)]
pub(super) struct SplitMessage<'a> {
    /// The constant text.
    pub(super) constant: &'a str,
    /// The attachments that were before the text.
    pub(super) before: &'a [Part],
    /// The rest of the text; empty if all of it is constant.
    pub(super) rest: &'a str,
    /// What was after the text.
    pub(super) after: &'a [Part],
}

impl<'a> SplitMessage<'a> {
    /// Splits a message; `None` if it has no constant text, or too little for a change of the order.
    pub(super) fn of(message: &'a Message, prefix: &SharedPrefix) -> Option<Self> {
        if message.role != Role::User || prefix.text_bytes == 0 {
            return None;
        }
        let at = message.parts.iter().position(|part| matches!(part, Part::Text(_)))?;
        let (before, from_text) = message.parts.split_at_checked(at)?;
        let Some((Part::Text(text), after)) = from_text.split_first() else { return None };
        let (constant, rest) = text.split_at_checked(prefix.text_bytes)?;
        // Vendors refuse a text of white space alone.
        let is_valid = !constant.trim().is_empty() && (rest.is_empty() || !rest.trim().is_empty());
        let may_move = before.is_empty() || constant.len() >= MIN_MOVED_BYTES;
        (is_valid && may_move).then_some(Self { constant, before, rest, after })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::types::{Media, VendorFields};

    fn prefix(text_bytes: usize) -> SharedPrefix {
        SharedPrefix::new(Fingerprint([7; 16]), 1024).with_text_bytes(text_bytes)
    }

    #[test]
    fn every_vendor_and_model_has_a_minimum() {
        for (model, expected) in [
            ("claude-3-haiku-20240307", 2048),
            ("claude-3-5-haiku-latest", 2048),
            ("claude-haiku-4-5-20251001", 4096),
            ("claude-haiku-5-5", 4096),
            ("some-haiku", 4096),
            ("claude-opus-4-6", 4096),
            ("claude-opus-4-7", 2048),
            ("claude-opus-4-1", 1024),
            ("claude-sonnet-5-5", 1024),
            ("anthropic.claude-opus-4-5-20251101-v1:0", 4096),
            ("other", 1024),
            ("", 1024),
        ] {
            assert_eq!(min_tokens(Format::Anthropic, model), expected, "{model}");
        }
        assert_eq!(min_tokens(Format::Openai, "gpt-6-luna"), 1024);
        assert_eq!(min_tokens(Format::OpenaiResponses, "gpt-6-luna"), 1024);
        assert_eq!(min_tokens(Format::Gemini, "gemini-3.8-flash"), 4096);
        assert_eq!(min_tokens(Format::Gemini, "gemini-2.5-pro"), 2048);
    }

    #[test]
    fn only_a_beginning_of_the_minimum_is_cached() {
        let prompt =
            |tokens| Prompt::text("x").with_shared_prefix(SharedPrefix::new(Fingerprint([7; 16]), tokens));
        let is_cached = |prompt: &Prompt, dialect: &Dialect| {
            cacheable(prompt, Format::Anthropic, "claude-haiku-4-5", dialect).is_some()
        };
        let default = Dialect::default();
        assert!(!is_cached(&Prompt::text("x"), &default));
        assert!(!is_cached(&prompt(4095), &default));
        assert!(is_cached(&prompt(4096), &default));
        let configured = Dialect { min_cache_tokens: Some(5000), ..Dialect::default() };
        assert!(!is_cached(&prompt(4999), &configured));
        assert!(is_cached(&prompt(5000), &configured));
    }

    #[test]
    fn a_key_of_the_vendors_fields_wins() {
        let fields = json!({ "prompt_cache_key": "mine" }).as_object().unwrap().clone();
        let prompt = Prompt::text("x").with_shared_prefix(prefix(0));
        let key = |prompt: &Prompt, extra: Option<&Map<String, serde_json::Value>>| {
            let dialect = Dialect { extra: extra.cloned().map(Into::into), ..Dialect::default() };
            openai_key(prompt, Format::Openai, "m", &dialect)
        };
        assert_eq!(key(&prompt, None), Some(Fingerprint([7; 16])));
        assert_eq!(key(&prompt, Some(&fields)), None);
        let own = prompt.clone().with_vendor_fields(VendorFields::new(Format::Openai, fields.clone()));
        assert_eq!(key(&own, None), None);
        let other = prompt.with_vendor_fields(VendorFields::new(Format::OpenaiResponses, fields));
        assert_eq!(key(&other, None), Some(Fingerprint([7; 16])));
    }

    #[test]
    fn a_text_is_split_only_between_characters_and_into_texts_that_are_not_blank() {
        let split = |text: &str, bytes| {
            let message = Message::user(text);
            let split = SplitMessage::of(&message, &prefix(bytes));
            split.map(|split| (split.constant.to_owned(), split.rest.to_owned()))
        };
        let texts = |constant: &str, rest: &str| Some((constant.to_owned(), rest.to_owned()));
        assert_eq!(split("Sort: a", 6), texts("Sort: ", "a"));
        assert_eq!(split("Sort: a", 7), texts("Sort: a", ""));
        assert_eq!(split("Sort: a", 0), None);
        assert_eq!(split("Sort: a", 8), None);
        assert_eq!(split("é a", 1), None);
        assert_eq!(split("é a", 2), texts("é", " a"));
        assert_eq!(split("Sort: \n", 6), None);
        assert_eq!(split("  a", 2), None);
    }

    #[test]
    fn only_a_large_text_is_moved_before_attachments() {
        let image = || Part::Image(Media::url("image/png", "https://example.com/a.png"));
        let message = |text: &str| Message::new(Role::User, [image(), Part::text(text), image()]);
        let small = message(&"x".repeat(1024));
        assert_eq!(SplitMessage::of(&small, &prefix(1023)), None);
        let split = SplitMessage::of(&small, &prefix(1024)).unwrap();
        assert_eq!((split.constant.len(), split.rest), (1024, ""));
        assert_eq!((split.before.len(), split.after.len()), (1, 1));
        let text_first = Message::user("Look: a").with_part(image());
        let split = SplitMessage::of(&text_first, &prefix(6)).unwrap();
        assert_eq!((split.constant, split.before.len(), split.after.len()), ("Look: ", 0, 1));
        let assistant = Message::assistant("x".repeat(2048));
        assert_eq!(SplitMessage::of(&assistant, &prefix(1024)), None);
        assert_eq!(SplitMessage::of(&Message::new(Role::User, [image()]), &prefix(1)), None);
    }
}
