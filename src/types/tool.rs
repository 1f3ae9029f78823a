//! Tools that a model may call.

use std::sync::Arc;

use serde::de::IgnoredAny;
use serde_json::Value;

/// A function that a model may ask its caller to run.
///
/// ```
/// use pointsman::{Prompt, Tool};
///
/// let parameters = serde_json::json!({
///     "type": "object",
///     "properties": { "city": { "type": "string" } },
///     "required": ["city"],
/// });
/// let weather = Tool::new("weather", parameters).with_description("The weather of a city, now.");
/// let prompt = Prompt::text("Do I need an umbrella in Bern?").with_tool(weather);
/// assert_eq!(prompt.tools.len(), 1);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Tool {
    /// The name: 1 to 64 letters, digits, `_` and `-`, different from those of the other tools.
    pub name: Arc<str>,
    /// What it does, for the model.
    pub description: Option<Arc<str>>,
    /// A JSON Schema of its arguments; the root is an object.
    pub parameters: Arc<Value>,
    /// Whether the provider enforces the schema. `None` leaves it to the provider.
    pub strict: Option<bool>,
}

impl Tool {
    /// Creates a tool whose arguments this JSON Schema describes.
    pub fn new(name: impl Into<Arc<str>>, parameters: impl Into<Arc<Value>>) -> Self {
        Self { name: name.into(), description: None, parameters: parameters.into(), strict: None }
    }

    /// Sets what it does, for the model.
    #[must_use]
    pub fn with_description(mut self, description: impl Into<Arc<str>>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Sets whether the provider enforces the schema.
    #[must_use]
    pub fn with_strict(mut self, strict: bool) -> Self {
        self.strict = Some(strict);
        self
    }
}

/// Maximum nesting of arguments: those that are sent back are parsed with a limit of 128.
const MAX_ARGUMENTS_DEPTH: usize = 100;

/// Which tools the model may or must call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ToolChoice {
    /// The model decides.
    #[default]
    Auto,
    /// It calls no tool.
    None,
    /// It calls at least one tool.
    Required,
    /// It calls the tool of this name.
    Tool(Arc<str>),
}

/// Returns whether a text is a JSON object, as the arguments of a call must be.
pub(crate) fn is_json_object(text: &str) -> bool {
    text.trim_start().starts_with('{')
        && !is_nested_deeper(text, MAX_ARGUMENTS_DEPTH)
        && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Returns whether brackets outside of texts are nested deeper than this. A text that is not JSON gives any result.
fn is_nested_deeper(json: &str, max_depth: usize) -> bool {
    let mut depth = 0_usize;
    let mut is_text = false;
    let mut bytes = json.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if is_text => drop(bytes.next()),
            b'"' => is_text = !is_text,
            b'{' | b'[' if !is_text => {
                depth += 1;
                if depth > max_depth {
                    return true;
                }
            }
            b'}' | b']' if !is_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_objects_of_limited_depth() {
        assert!(is_json_object(" { \"a\": [1, {\"b\": \"]}{[\\\"\"}] } "));
        for text in ["", "[]", "7", "{", "{} {}", "{\"a\":}"] {
            assert!(!is_json_object(text), "{text}");
        }
        let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(is_json_object(&nested(99)) && !is_json_object(&nested(100)));
    }
}
