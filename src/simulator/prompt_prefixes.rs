//! Digests of the prefixes of a prompt, by which a vendor finds them in its cache.
//!
//! Anthropic caches a prefix that ends at a marked block. OpenAI and Gemini cache prefixes of a multiple of 128 tokens.
//! Only digests and sizes are kept, never texts. The sizes are those of the usage.

use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

use super::parsed_request::{BYTES_PER_TOKEN, tokens};
use super::rng::{fingerprint, mix};

/// Tokens between two prefixes that are cached without a mark.
pub(super) const STEP_TOKENS: u64 = 128;
const STEP_BYTES: usize = STEP_TOKENS as usize * BYTES_PER_TOKEN;
/// Maximum number of prefixes without a mark: those of 1,280,000 tokens. The rest of a prompt is not cached.
const MAX_STEPS: usize = 10_000;
/// Number of blocks, up to and including a marked one, that are looked up for it.
const LOOKBACK_BLOCKS: usize = 20;
/// Fields that define what is cached. They are no part of the prompt.
const CACHE_FIELDS: [&str; 2] = ["cache_control", "prompt_cache_breakpoint"];

/// How long a prefix stays in the cache after its last use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CacheTtl {
    FiveMinutes,
    TenMinutes,
    OneHour,
}

impl CacheTtl {
    pub(super) fn duration(self) -> Duration {
        match self {
            Self::FiveMinutes => Duration::from_secs(300),
            Self::TenMinutes => Duration::from_secs(600),
            Self::OneHour => Duration::from_secs(3_600),
        }
    }
}

/// The prefix of a prompt that ends with a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockPrefix {
    pub(super) digest: u64,
    pub(super) tokens: u64,
    /// How long the prefix is cached, if the block is marked.
    pub(super) mark: Option<CacheTtl>,
}

/// Which cache of the vendor a request reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CacheRouting {
    /// The only one.
    Single,
    /// That of a key, by the digest of the key.
    Key(u64),
    /// One of several. It contains the prompt or not.
    Any,
}

/// The prefixes of a prompt that a vendor may cache.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CacheablePrompt {
    /// A prefix for each block.
    Blocks(Vec<BlockPrefix>),
    /// The digest of the prefix of each multiple of 128 tokens.
    Steps { digests: Vec<u64>, routing: CacheRouting },
}

/// Returns the indices of the blocks that are looked up for the marked block with this index.
pub(super) fn looked_up_blocks(mark: usize) -> RangeInclusive<usize> {
    (mark + 1).saturating_sub(LOOKBACK_BLOCKS)..=mark
}

/// Reads a prompt from its start to its end and makes the digests.
#[derive(Debug, Default)]
pub(super) struct PrefixDigester {
    /// Digest of all that was added so far.
    digest: u64,
    /// Bytes that the usage counts.
    bytes: usize,
    blocks: Vec<BlockPrefix>,
    steps: Vec<u64>,
}

impl PrefixDigester {
    /// Adds a part of the prompt that the usage does not count, such as a role or an image.
    pub(super) fn uncounted(&mut self, part: &str) {
        self.digest = mix(self.digest.rotate_left(1) ^ fingerprint(part.as_bytes()));
    }

    /// Adds a text that the usage counts.
    pub(super) fn counted(&mut self, text: &str) {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let until_step = STEP_BYTES - self.bytes % STEP_BYTES;
            let (piece, after) = rest.split_at(until_step.min(rest.len()));
            rest = after;
            self.digest = mix(self.digest.rotate_left(2) ^ fingerprint(piece));
            self.bytes += piece.len();
            if self.bytes.is_multiple_of(STEP_BYTES) && self.steps.len() < MAX_STEPS {
                self.steps.push(self.digest);
            }
        }
    }

    /// Ends a block.
    pub(super) fn end_block(&mut self, mark: Option<CacheTtl>) {
        self.blocks.push(BlockPrefix { digest: self.digest, tokens: tokens(self.bytes), mark });
    }

    /// Gives the last block a mark, unless it has one.
    pub(super) fn mark_last_block(&mut self, ttl: CacheTtl) {
        if let Some(last) = self.blocks.last_mut() {
            last.mark.get_or_insert(ttl);
        }
    }

    /// Returns the number of marked blocks.
    pub(super) fn marks(&self) -> usize {
        self.blocks.iter().filter(|block| block.mark.is_some()).count()
    }

    /// Adds the tools of a request as a whole.
    pub(super) fn tools(&mut self, tools: &Value) {
        if tools.as_array().is_some_and(|tools| !tools.is_empty()) {
            self.counted(&tools.to_string());
        }
    }

    /// Adds the content of a message: a text, or parts.
    pub(super) fn content(&mut self, content: &Value) {
        match content {
            Value::String(text) => self.text(text),
            Value::Array(parts) => parts.iter().for_each(|part| self.part(part)),
            // Gemini's `systemInstruction`.
            Value::Object(holder) => self.content(holder.get("parts").unwrap_or(&Value::Null)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Adds a text as the part that has the same meaning.
    pub(super) fn text(&mut self, text: &str) {
        self.uncounted("type");
        self.uncounted("\"text\"");
        self.counted(text);
    }

    /// Adds a part of a message.
    pub(super) fn part(&mut self, part: &Value) {
        let Value::Object(fields) = part else { return self.uncounted(&part.to_string()) };
        let kind = fields.get("type").and_then(Value::as_str).unwrap_or_default();
        for (name, value) in fields {
            self.field(kind, name, value);
        }
    }

    fn field(&mut self, kind: &str, name: &str, value: &Value) {
        match (kind, name, value) {
            (_, name, _) if CACHE_FIELDS.contains(&name) => {}
            (_, "text", Value::String(text))
            | ("thinking", "thinking", Value::String(text))
            | ("tool_use", "name", Value::String(text))
            | ("tool_result", "content", Value::String(text)) => self.counted(text),
            ("tool_use", "input", input) => self.counted(&input.to_string()),
            ("tool_result", "content", content) => self.content(content),
            (_, "functionCall" | "function_call", Value::Object(call)) => {
                self.gemini_fields(call, &["name", "args"]);
            }
            (_, "functionResponse" | "function_response", Value::Object(result)) => {
                self.gemini_fields(result, &["response"]);
            }
            (_, name, value) => {
                self.uncounted(name);
                self.uncounted(&value.to_string());
            }
        }
    }

    fn gemini_fields(&mut self, fields: &Map<String, Value>, counted: &[&str]) {
        for (name, value) in fields {
            let is_counted = counted.contains(&name.as_str());
            match value {
                Value::String(text) if is_counted => self.counted(text),
                value if is_counted => self.counted(&value.to_string()),
                value => {
                    self.uncounted(name);
                    self.uncounted(&value.to_string());
                }
            }
        }
    }

    /// Returns the prefix of each block.
    pub(super) fn into_blocks(self) -> CacheablePrompt {
        CacheablePrompt::Blocks(self.blocks)
    }

    /// Returns the prefix of each multiple of 128 tokens.
    pub(super) fn into_steps(self, routing: CacheRouting) -> CacheablePrompt {
        CacheablePrompt::Steps { digests: self.steps, routing }
    }

    /// Returns the number of tokens so far.
    #[cfg(test)]
    pub(super) fn tokens(&self) -> u64 {
        tokens(self.bytes)
    }
}

/// Returns the JSON of a tool without the fields that define what is cached.
pub(super) fn tool_json(tool: &Value) -> String {
    match tool {
        Value::Object(fields) if CACHE_FIELDS.iter().any(|name| fields.contains_key(*name)) => {
            let mut fields = fields.clone();
            fields.retain(|name, _| !CACHE_FIELDS.contains(&name.as_str()));
            Value::Object(fields).to_string()
        }
        tool => tool.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn steps(texts: &[&str]) -> Vec<u64> {
        let mut digester = PrefixDigester::default();
        texts.iter().for_each(|text| digester.text(text));
        digester.steps
    }

    #[test]
    fn prompts_have_the_steps_of_their_common_prefix_in_common() {
        let start = "x".repeat(3 * STEP_BYTES + 100);
        let first = steps(&["system", &format!("{start}{}", "a".repeat(2_000))]);
        let second = steps(&["system", &format!("{start}{}", "b".repeat(9_000))]);
        let common = first.iter().zip(&second).take_while(|(first, second)| first == second).count();
        assert_eq!((common, first.len()), (3, (6 + start.len() + 2_000) / STEP_BYTES));
        assert_ne!(steps(&["other", &start])[0], first[0]);
        assert_eq!(steps(&[&"x".repeat(STEP_BYTES - 1)]), [0; 0]);
        assert_eq!(steps(&[&"x".repeat(STEP_BYTES)]).len(), 1);
    }

    #[test]
    fn the_steps_of_a_prompt_are_bounded() {
        assert_eq!(steps(&[&"x".repeat(STEP_BYTES * (MAX_STEPS + 5))]).len(), MAX_STEPS);
    }

    #[test]
    fn a_block_is_the_same_as_text_with_a_mark_and_without() {
        let digest = |content: Value| {
            let mut digester = PrefixDigester::default();
            digester.content(&content);
            digester.end_block(None);
            (digester.blocks[0].digest, digester.tokens())
        };
        let plain = digest(json!("Be brief."));
        assert_eq!(digest(json!([{ "type": "text", "text": "Be brief." }])), plain);
        let control = json!({ "type": "ephemeral" });
        let marked = json!([{ "type": "text", "text": "Be brief.", "cache_control": control }]);
        assert_eq!(digest(marked), plain);
        assert_ne!(digest(json!("Be brief!")).0, plain.0);
        let image = |data: &str| json!([{ "type": "image", "source": { "data": data } }]);
        assert_ne!(digest(image("a")).0, digest(image("b")).0);
        assert_eq!(tool_json(&json!({ "name": "a", "cache_control": {}, "b": 1 })), r#"{"name":"a","b":1}"#);
    }

    #[test]
    fn twenty_blocks_are_looked_up() {
        assert_eq!(looked_up_blocks(0), 0..=0);
        assert_eq!(looked_up_blocks(19), 0..=19);
        assert_eq!(looked_up_blocks(20), 1..=20);
    }
}
