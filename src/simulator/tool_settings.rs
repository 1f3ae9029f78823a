//! The tools that a request offers, and which of them the answer calls.

use std::borrow::Cow;

use fastrand::Rng;
use serde_json::Value;

/// Start of the instruction to call one tool, before its name.
const ONE_TOOL_INSTRUCTION: &str = "Call the tool ";
/// Start of the instruction to call several tools, before their names: `A, B and C`.
const SEVERAL_TOOLS_INSTRUCTION: &str = "Call the tools ";

/// A tool that a request offers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct OfferedTool {
    pub(super) name: String,
    /// JSON Schema of the arguments.
    pub(super) schema: Value,
}

/// Whether the answer calls tools.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ToolChoice {
    /// Only if the last user message instructs the model to.
    #[default]
    Auto,
    /// Never.
    None,
    /// Always.
    Required,
}

/// What a request says about tools.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ToolSettings {
    /// The tools that the answer may call.
    pub(super) tools: Vec<OfferedTool>,
    pub(super) choice: ToolChoice,
    /// Whether the answer calls at most one tool.
    pub(super) is_single: bool,
}

impl ToolSettings {
    /// Requires a call of one of the tools with these names.
    pub(super) fn require(&mut self, names: &[&str]) {
        self.choice = ToolChoice::Required;
        self.restrict(names);
    }

    /// Keeps only the tools with these names.
    pub(super) fn restrict(&mut self, names: &[&str]) {
        self.tools.retain(|tool| names.contains(&tool.name.as_str()));
    }

    /// Returns the tool with this name.
    pub(super) fn find(&self, name: &str) -> Option<&OfferedTool> {
        self.tools.iter().find(|tool| tool.name == name)
    }

    /// Returns the tools that the answer calls.
    pub(super) fn called(&self, last_user_message: &[Cow<'_, str>], rng: &mut Rng) -> Vec<&OfferedTool> {
        if self.tools.is_empty() || self.choice == ToolChoice::None {
            return Vec::new();
        }
        let mut called =
            last_user_message.iter().rev().find_map(|text| self.instructed(text)).unwrap_or_default();
        if called.is_empty() && self.choice == ToolChoice::Required {
            called.push(&self.tools[rng.usize(..self.tools.len())]);
        }
        if self.is_single {
            called.truncate(1);
        }
        called
    }

    /// Returns the tools of the last instruction in a text; `None` without one.
    fn instructed(&self, text: &str) -> Option<Vec<&OfferedTool>> {
        let one = text.rfind(ONE_TOOL_INSTRUCTION).map(|at| (at + ONE_TOOL_INSTRUCTION.len(), 1));
        let several = text
            .rfind(SEVERAL_TOOLS_INSTRUCTION)
            .map(|at| (at + SEVERAL_TOOLS_INSTRUCTION.len(), usize::MAX));
        let (at, max) = one.max(several)?;
        let names = text[at..].split_whitespace().filter(|word| *word != "and");
        let names = names.map(|word| word.trim_end_matches([',', '.', ':', ';', '!', '?']));
        Some(names.take(max).map_while(|name| self.find(name)).collect())
    }
}

/// Returns whether a name consists of 1 to `max` letters, digits, `_`, `-` and the characters of `more`.
pub(super) fn is_tool_name(name: &str, max: usize, more: &str) -> bool {
    let is_allowed =
        |letter: char| letter.is_ascii_alphanumeric() || "_-".contains(letter) || more.contains(letter);
    (1..=max).contains(&name.len()) && name.chars().all(is_allowed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn called(settings: &ToolSettings, message: &str) -> Vec<String> {
        let called = settings.called(&[message.into()], &mut Rng::with_seed(1));
        called.into_iter().map(|tool| tool.name.clone()).collect()
    }

    fn settings(choice: ToolChoice) -> ToolSettings {
        let tool = |name: &str| OfferedTool { name: name.to_owned(), schema: json!({}) };
        ToolSettings { tools: vec![tool("look"), tool("count"), tool("sort")], choice, is_single: false }
    }

    #[test]
    fn an_instruction_names_the_tools_that_are_called() {
        let auto = settings(ToolChoice::Auto);
        assert_eq!(called(&auto, "Hello. Call the tool look."), ["look"]);
        assert_eq!(called(&auto, "Call the tool look and tell me"), ["look"]);
        assert_eq!(called(&auto, "Call the tools look, sort and count, please"), ["look", "sort", "count"]);
        assert_eq!(called(&auto, "Call the tools look and look"), ["look", "look"]);
        assert!(called(&auto, "Call the tool other").is_empty());
        assert!(called(&auto, "Hello").is_empty());
        assert!(called(&settings(ToolChoice::None), "Call the tool look").is_empty());
        let single = ToolSettings { is_single: true, ..settings(ToolChoice::Auto) };
        assert_eq!(called(&single, "Call the tools look and sort"), ["look"]);
    }

    #[test]
    fn a_required_call_needs_no_instruction() {
        assert_eq!(called(&settings(ToolChoice::Required), "Hello").len(), 1);
        let mut named = settings(ToolChoice::Auto);
        named.require(&["count"]);
        assert_eq!(called(&named, "Hello"), ["count"]);
        assert_eq!(called(&settings(ToolChoice::Required), "Call the tool sort"), ["sort"]);
    }

    #[test]
    fn a_tool_name_has_no_blank() {
        assert!(is_tool_name("look_up-2", 64, ""));
        assert!(is_tool_name("a.b", 64, ".:"));
        for wrong in ["", "look up", "größe", "a.b"] {
            assert!(!is_tool_name(wrong, 64, ""), "{wrong}");
        }
        assert!(!is_tool_name("abcde", 4, ""));
    }
}
