//! Reasoning that a model writes into its answer, between tags of its own.
//!
//! Open models write `<think>…</think>` before the answer. Servers of their own often pass it on as text. It is no part of
//! the answer, so a choice, a schema or a text would be checked against the wrong words.

use serde::{Deserialize, Serialize};

use super::{Format, openai_chat};

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// What becomes of reasoning between tags before an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasoningTags {
    /// It stays in the answer.
    #[default]
    Keep,
    /// It is taken out before the answer is checked.
    Strip,
}

impl ReasoningTags {
    /// Returns what is done where the configuration says nothing: only servers that speak OpenAI's format and are not
    /// OpenAI's own are known to pass the tags on.
    pub fn default_for(format: Format, base_url: Option<&str>) -> Self {
        match (format, base_url) {
            (Format::Openai, Some(url)) if !openai_chat::is_openai(url) => Self::Strip,
            (Format::Openai | Format::Anthropic | Format::Gemini, _) => Self::Keep,
        }
    }

    /// Returns the word by which a configuration names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Strip => "strip",
        }
    }

    /// Returns the answer in a model's `text`.
    pub(super) fn answer(self, text: String) -> String {
        let answer = match self {
            Self::Keep => None,
            Self::Strip => without_reasoning(&text).map(str::to_owned),
        };
        answer.unwrap_or(text)
    }
}

/// Returns what follows the reasoning; `None` when there is none.
fn without_reasoning(text: &str) -> Option<&str> {
    let mut rest = text;
    while let Some(inside) = rest.trim_start().strip_prefix(OPEN) {
        // Reasoning that never ends has no answer after it.
        rest = inside.split_once(CLOSE).map_or("", |(_, after)| after);
    }
    if rest.len() < text.len() {
        return Some(rest.trim_start());
    }
    unopened(text)
}

/// Returns what follows reasoning whose first tag stood in the prompt, as some chat templates write it: the last tag is
/// then alone on its line.
fn unopened(text: &str) -> Option<&str> {
    let (before, after) = text.split_once(CLOSE)?;
    let line_before = before.rsplit('\n').next().unwrap_or(before);
    let line_after = after.split('\n').next().unwrap_or(after);
    let is_alone = line_before.trim().is_empty() && line_after.trim().is_empty();
    (is_alone && !before.contains(OPEN)).then(|| after.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasoning_before_the_answer_is_taken_out() {
        for (text, answer) in [
            ("<think>Hm.</think>URGENT", "URGENT"),
            ("\n<think>\nHm.\n</think>\n\nURGENT\n", "URGENT\n"),
            ("<think></think>\n{\"a\": 1}", "{\"a\": 1}"),
            ("<think>a</think> <think>b</think> c", "c"),
            // Its first tag stood in the prompt.
            ("Hm.\n</think>\n\nURGENT", "URGENT"),
            ("Hm.\n</think>", ""),
            // It never ended, so nothing was said.
            ("<think>Hm. URGENT", ""),
        ] {
            assert_eq!(ReasoningTags::Strip.answer(text.to_owned()), answer, "{text:?}");
            assert_eq!(ReasoningTags::Keep.answer(text.to_owned()), text);
        }
    }

    #[test]
    fn an_answer_about_the_tags_is_left_alone() {
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

    #[test]
    fn only_servers_that_speak_openais_format_are_stripped_by_default() {
        for (format, base_url, tags) in [
            (Format::Openai, Some("http://localhost:11434/v1"), ReasoningTags::Strip),
            (Format::Openai, Some("https://openrouter.ai/api/v1"), ReasoningTags::Strip),
            (Format::Openai, Some("https://api.openai.com/v1"), ReasoningTags::Keep),
            (Format::Openai, None, ReasoningTags::Keep),
            (Format::Anthropic, Some("http://localhost:1"), ReasoningTags::Keep),
            (Format::Gemini, Some("http://localhost:1"), ReasoningTags::Keep),
        ] {
            assert_eq!(ReasoningTags::default_for(format, base_url), tags, "{base_url:?}");
        }
    }
}
