//! What a request says about reasoning, and the signatures of reasoning.
//!
//! A signature is a hash of what it signs. So one that a client sends back is checked without a memory.

use super::rng::{fingerprint, mix};

/// Reasoning tokens if a request names no effort.
pub(super) const DEFAULT_REASONING_TOKENS: u64 = 32;

/// The reasoning that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ReasoningRequest {
    /// Maximum number of reasoning tokens. An answer uses at most half of its limit for reasoning.
    pub(super) tokens: u64,
    /// Whether the answer contains the text of the reasoning.
    pub(super) shows_text: bool,
    /// Whether the answer contains the encrypted reasoning, in OpenAI's responses.
    pub(super) is_encrypted: bool,
}

/// Returns the number of reasoning tokens of an effort; `None` for a name that no vendor has.
pub(super) fn tokens_of_effort(effort: &str) -> Option<u64> {
    match effort {
        "none" => Some(0),
        "minimal" => Some(8),
        "low" => Some(16),
        "medium" => Some(DEFAULT_REASONING_TOKENS),
        "high" => Some(64),
        "xhigh" => Some(96),
        "max" => Some(128),
        _ => None,
    }
}

/// Returns the signature of `content`, in Base64.
pub(super) fn signature(content: &str) -> String {
    let hash = fingerprint(content.as_bytes());
    format!("c2ltdWxhdGVk{hash:016x}{:016x}", mix(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_depends_only_on_its_content() {
        assert_eq!(signature("a"), signature("a"));
        assert_ne!(signature("a"), signature("b"));
        assert_eq!(signature("a").len() % 4, 0);
    }
}
