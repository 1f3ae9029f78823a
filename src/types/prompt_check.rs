//! What is wrong with a prompt whatever the provider is, found before any call.

use std::collections::BTreeSet;

use super::tool::is_json_object;
use super::{Class, Failure, Message, Part, Prompt, Role, Tool, ToolChoice, ToolResult};

/// Maximum number of tools. No vendor accepts more than a few hundred.
const MAX_TOOLS: usize = 1_000;

/// Maximum length of the name of a tool, as the vendors document it.
const MAX_TOOL_NAME: usize = 64;

/// Maximum number of inputs of a request for embeddings, as OpenAI documents it.
const MAX_EMBEDDING_INPUTS: usize = 2_048;

impl Prompt {
    /// Checks what no provider could accept: tools, calls and results that do not fit together, and inputs of which no
    /// provider makes embeddings.
    ///
    /// # Errors
    /// `api_error`, which names the tool, the call, the message or the input.
    #[doc(hidden)]
    pub fn check(&self) -> Result<(), Failure> {
        if self.embedding.is_some() {
            return self.check_embedding_inputs();
        }
        check_tools(&self.tools)?;
        self.check_tool_choice()?;
        if let Some(top_p) = self.top_p.filter(|top_p| !(0.0..=1.0).contains(top_p)) {
            return Err(invalid(format!("top_p is {top_p}; it must be from 0 to 1")));
        }
        if self.stop.iter().any(|stop| stop.is_empty()) {
            return Err(invalid("a stop sequence is empty; remove it"));
        }
        // Empty ordered sets cost nothing, and most prompts have no tool calls.
        let mut calls = BTreeSet::new();
        let mut results = BTreeSet::new();
        for (index, message) in self.messages.iter().enumerate() {
            let at = index + 1;
            for part in &message.parts {
                match part {
                    Part::Text(_) | Part::Image(_) | Part::Document(_) | Part::Audio(_) | Part::Video(_) => {
                        if message.role == Role::Tool {
                            let message = "a tool message contains only results of tools";
                            return Err(invalid(format!("message {at}: {message}")));
                        }
                    }
                    Part::Reasoning(_) => check_author(message, Role::Assistant, at, "reasoning")?,
                    Part::ToolCall(call) => {
                        check_author(message, Role::Assistant, at, "a tool call")?;
                        check_arguments(&call.arguments, &call.name, at)?;
                        if !calls.insert(&*call.id) {
                            let message = format!("two tool calls have the id {:?}", call.id);
                            return Err(invalid(format!("message {at}: {message}")));
                        }
                    }
                    Part::ToolResult(result) => {
                        check_author(message, Role::Tool, at, "the result of a tool")?;
                        check_result(result, at)?;
                        if !calls.contains(&*result.call_id) {
                            return Err(invalid(format!(
                                "message {at}: the result of the tool call {:?} follows no such call",
                                result.call_id
                            )));
                        }
                        if !results.insert(&*result.call_id) {
                            return Err(invalid(format!(
                                "message {at}: the tool call {:?} has two results",
                                result.call_id
                            )));
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks the inputs of a request for embeddings.
    fn check_embedding_inputs(&self) -> Result<(), Failure> {
        let [Message { role: Role::User, parts }] = &self.messages[..] else {
            return Err(invalid("a request for embeddings has one user message"));
        };
        if parts.is_empty() {
            return Err(invalid("a request for embeddings has no input"));
        }
        if parts.len() > MAX_EMBEDDING_INPUTS {
            return Err(invalid(format!(
                "{} inputs; a request for embeddings has at most {MAX_EMBEDDING_INPUTS}",
                parts.len()
            )));
        }
        for (index, part) in parts.iter().enumerate() {
            let at = index + 1;
            match part {
                Part::Text(text) if text.is_empty() => {
                    return Err(invalid(format!(
                        "input {at} is empty; no provider makes an embedding of it"
                    )));
                }
                Part::Text(_) => {}
                Part::Image(_)
                | Part::Document(_)
                | Part::Audio(_)
                | Part::Video(_)
                | Part::ToolCall(_)
                | Part::ToolResult(_)
                | Part::Reasoning(_) => {
                    return Err(invalid(format!("input {at} is not a text; embeddings are made of texts")));
                }
            }
        }
        Ok(())
    }

    fn check_tool_choice(&self) -> Result<(), Failure> {
        match &self.tool_choice {
            ToolChoice::Auto | ToolChoice::None => Ok(()),
            // The vendor fields may contain tools.
            ToolChoice::Required if self.tools.is_empty() && self.vendor_fields.is_empty() => {
                Err(invalid("tool_choice requires a tool call, and there are no tools"))
            }
            ToolChoice::Required => Ok(()),
            ToolChoice::Tool(name) if self.tools.iter().any(|tool| tool.name == *name) => Ok(()),
            ToolChoice::Tool(name) => {
                Err(invalid(format!("tool_choice requires the tool {name:?}, which is not among the tools")))
            }
        }
    }
}

fn invalid(message: impl Into<Box<str>>) -> Failure {
    Failure::new(Class::ApiError, message)
}

fn check_tools(tools: &[Tool]) -> Result<(), Failure> {
    if tools.len() > MAX_TOOLS {
        return Err(invalid(format!("{} tools; at most {MAX_TOOLS} are possible", tools.len())));
    }
    let mut names = BTreeSet::new();
    for (index, tool) in tools.iter().enumerate() {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if !(1..=MAX_TOOL_NAME).contains(&tool.name.len()) || !tool.name.bytes().all(is_allowed) {
            return Err(invalid(format!(
                "the name of tool {} must be 1 to {MAX_TOOL_NAME} letters, digits, _ and -",
                index + 1
            )));
        }
        if !names.insert(&*tool.name) {
            return Err(invalid(format!("two tools have the name {:?}", tool.name)));
        }
        let is_object = tool.parameters.get("type").is_some_and(|root| root == "object");
        if !is_object {
            return Err(invalid(format!(
                "the parameters of the tool {:?} must be a JSON Schema with \"type\": \"object\" at its root",
                tool.name
            )));
        }
    }
    Ok(())
}

fn check_author(message: &Message, role: Role, at: usize, what: &str) -> Result<(), Failure> {
    if message.role == role {
        return Ok(());
    }
    let owner = match role {
        Role::System => "a system message",
        Role::User => "a user message",
        Role::Assistant => "an assistant message",
        Role::Tool => "a tool message",
    };
    Err(invalid(format!("message {at}: only {owner} contains {what}")))
}

fn check_arguments(arguments: &str, tool: &str, at: usize) -> Result<(), Failure> {
    if is_json_object(arguments) {
        return Ok(());
    }
    Err(invalid(format!("message {at}: the arguments of the call of {tool:?} are not a JSON object")))
}

fn check_result(result: &ToolResult, at: usize) -> Result<(), Failure> {
    let is_content = |part: &Part| matches!(part, Part::Text(_) | Part::Image(_) | Part::Document(_));
    if result.parts.iter().all(is_content) {
        return Ok(());
    }
    Err(invalid(format!(
        "message {at}: the result of the tool call {:?} may contain text, images and documents only",
        result.call_id
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::types::{EmbeddingOptions, Media, Reasoning, ToolCall};

    fn weather() -> Tool {
        Tool::new("weather", json!({ "type": "object" }))
    }

    fn call(id: &str) -> Part {
        Part::ToolCall(ToolCall::new(id, "weather", "{}"))
    }

    fn error(prompt: &Prompt) -> String {
        let failure = prompt.check().unwrap_err();
        assert_eq!(failure.class, Class::ApiError);
        failure.message.into()
    }

    #[test]
    fn a_conversation_with_calls_and_results_passes() {
        let prompt = Prompt::text("Umbrella?")
            .with_tool(weather())
            .with_tool_choice(ToolChoice::Tool("weather".into()))
            .with_message(Message::new(
                Role::Assistant,
                [Part::Reasoning(Reasoning::new("Hm.")), call("a"), call("b")],
            ))
            .with_message(Message::tool([ToolResult::new("b", "rain"), ToolResult::error("a", "no data")]));
        assert_eq!(prompt.check(), Ok(()));
        assert_eq!(Prompt::text("Hello?").check(), Ok(()));
    }

    #[test]
    fn tools_that_no_vendor_accepts_are_named() {
        let with = |tool| Prompt::text("x").with_tool(tool);
        assert!(error(&with(Tool::new("a b", json!({ "type": "object" })))).contains("name of tool 1"));
        assert!(error(&with(Tool::new("", json!({ "type": "object" })))).contains("name of tool 1"));
        assert!(error(&with(Tool::new("f", json!({ "type": "array" })))).contains("tool \"f\""));
        assert!(error(&with(weather()).with_tool(weather())).contains("two tools have the name"));
        let mut many = Prompt::text("x");
        many.tools = (0..10_000).map(|n| Tool::new(format!("t{n}"), json!({ "type": "object" }))).collect();
        assert_eq!(error(&many), "10000 tools; at most 1000 are possible");
    }

    #[test]
    fn a_tool_choice_needs_its_tool() {
        let prompt = |choice| Prompt::text("x").with_tool_choice(choice);
        assert!(error(&prompt(ToolChoice::Required)).contains("there are no tools"));
        let missing = prompt(ToolChoice::Tool("clock".into())).with_tool(weather());
        assert!(error(&missing).contains("\"clock\", which is not among the tools"));
    }

    #[test]
    fn a_result_follows_its_call_once() {
        let result = || Message::tool([ToolResult::new("a", "rain")]);
        let without_call = Prompt::text("x").with_message(result());
        assert_eq!(error(&without_call), "message 2: the result of the tool call \"a\" follows no such call");
        let called = Prompt::text("x").with_message(Message::new(Role::Assistant, [call("a")]));
        assert!(error(&called.clone().with_message(result()).with_message(result())).contains("two results"));
        let twice = called.with_message(Message::new(Role::Assistant, [call("a")]));
        assert!(error(&twice).contains("two tool calls have the id \"a\""));
    }

    #[test]
    fn parts_stand_in_the_messages_of_their_authors() {
        for (message, expected) in [
            (Message::new(Role::User, [call("a")]), "only an assistant message contains a tool call"),
            (
                Message::new(Role::User, [Part::Reasoning(Reasoning::new("Hm."))]),
                "only an assistant message contains reasoning",
            ),
            (
                Message::new(Role::User, [Part::ToolResult(ToolResult::new("a", "x"))]),
                "only a tool message contains the result of a tool",
            ),
            (Message::new(Role::Tool, [Part::text("x")]), "a tool message contains only results of tools"),
        ] {
            assert_eq!(error(&Prompt::default().with_message(message)), format!("message 1: {expected}"));
        }
        let broken =
            Message::new(Role::Assistant, [Part::ToolCall(ToolCall::new("a", "weather", "{\"city\":"))]);
        assert!(
            error(&Prompt::default().with_message(broken)).contains("arguments of the call of \"weather\"")
        );
    }

    #[test]
    fn inputs_of_which_no_provider_makes_embeddings_are_named() {
        let of = |inputs: Vec<String>| Prompt::embeddings(inputs, EmbeddingOptions::default());
        let texts = |count: usize| vec!["tide".to_owned(); count];
        assert_eq!(of(texts(1)).check(), Ok(()));
        assert_eq!(of(texts(2_048)).check(), Ok(()));
        assert_eq!(error(&of(texts(0))), "a request for embeddings has no input");
        let many = error(&of(texts(10_000)));
        assert_eq!(many, "10000 inputs; a request for embeddings has at most 2048");
        let empty = error(&of(vec!["tide".to_owned(), String::new()]));
        assert!(empty.starts_with("input 2 is empty"), "{empty}");
        let image = Part::Image(Media::url("image/png", "https://example.com/a.png"));
        assert!(error(&of(texts(1)).with_part(image)).starts_with("input 2 is not a text"));
        assert!(error(&of(texts(1)).with_message(Message::user("x"))).contains("one user message"));
    }

    #[test]
    fn sampling_settings_outside_their_range_are_refused() {
        assert!(error(&Prompt::text("x").with_top_p(1.5)).contains("from 0 to 1"));
        assert!(error(&Prompt::text("x").with_stop([""])).contains("stop sequence is empty"));
    }
}
