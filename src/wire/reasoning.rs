//! Reasoning text that a model writes between tags before its answer.
//!
//! Open models write `<think>…</think>` before the answer, and self-hosted servers often return it as text. It is
//! not part of the answer and would fail the validation of a choice or a schema.

use serde::{Deserialize, Serialize};

const OPEN_TAG: &str = "<think>";
const CLOSE_TAG: &str = "</think>";

/// How many blank bytes a streamed answer may begin with before a tag.
const MAX_BLANKS_BEFORE_TAG: usize = 1_024;

/// What happens to tagged reasoning before an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasoningTags {
    /// It remains in the answer.
    #[default]
    Keep,
    /// It is removed before the answer is validated.
    Strip,
}

impl ReasoningTags {
    /// Returns the name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Strip => "strip",
        }
    }

    /// Returns the answer in the `text` of a model.
    pub(super) fn answer(self, text: String) -> String {
        let answer = match self {
            Self::Keep => None,
            Self::Strip => strip_reasoning(&text).map(str::to_owned),
        };
        answer.unwrap_or(text)
    }
}

/// Returns whether an answer that begins with `text` begins with a tag; `None` while that depends on what follows.
pub(super) fn may_begin_with_tag(text: &str) -> Option<bool> {
    if text.len() > MAX_BLANKS_BEFORE_TAG
        && text[..text.floor_char_boundary(MAX_BLANKS_BEFORE_TAG)].trim().is_empty()
    {
        return Some(false);
    }
    let text = text.trim_start();
    if text.len() < OPEN_TAG.len() && OPEN_TAG.starts_with(text) {
        return None;
    }
    Some(text.starts_with(OPEN_TAG))
}

/// Returns the text after the reasoning; `None` if there is no reasoning.
fn strip_reasoning(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some(inside) = rest.trim_start().strip_prefix(OPEN_TAG) {
        // No answer follows reasoning without a closing tag.
        rest = inside.split_once(CLOSE_TAG).map_or("", |(_, after)| after);
    }
    if rest.len() < text.len() {
        return Some(rest.trim_start());
    }
    strip_unopened_reasoning(text)
}

/// Returns the text after reasoning whose opening tag is in the prompt, as in some chat templates: the closing
/// tag is then alone on its line.
fn strip_unopened_reasoning(text: &str) -> Option<&str> {
    let (before, after) = text.split_once(CLOSE_TAG)?;
    let line_before = before.rsplit('\n').next().unwrap_or(before);
    let line_after = after.split('\n').next().unwrap_or(after);
    let is_alone = line_before.trim().is_empty() && line_after.trim().is_empty();
    (is_alone && !before.contains(OPEN_TAG)).then(|| after.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasoning_before_the_answer_is_removed() {
        for (text, answer) in [
            ("<think>Hm.</think>URGENT", "URGENT"),
            ("\n<think>\nHm.\n</think>\n\nURGENT\n", "URGENT\n"),
            ("<think></think>\n{\"a\": 1}", "{\"a\": 1}"),
            ("<think>a</think> <think>b</think> c", "c"),
            // The opening tag is in the prompt.
            ("Hm.\n</think>\n\nURGENT", "URGENT"),
            ("Hm.\n</think>", ""),
            // The reasoning has no end, so there is no answer.
            ("<think>Hm. URGENT", ""),
        ] {
            assert_eq!(ReasoningTags::Strip.answer(text.to_owned()), answer, "{text:?}");
            assert_eq!(ReasoningTags::Keep.answer(text.to_owned()), text);
        }
    }

    #[test]
    fn an_answer_that_mentions_the_tags_is_unchanged() {
        for text in [
            "",
            " URGENT",
            "The tag is <think>, its end </think>.",
            "An answer.\n<think>late</think>\n",
            "`</think>` ends it",
            "<thinking>a</thinking>b",
        ] {
            assert_eq!(ReasoningTags::Strip.answer(text.to_owned()), text);
        }
    }
}
