//! A request as its caller writes it in JSON.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::config::Config;
use crate::router::{Request, StreamMode};
use crate::types::{
    LengthLimit, Priority, Prompt, ReasoningEffort, ResponseFormat, RouteName, Tool, ToolChoice,
};

use super::message_json::{FieldError, messages, read};

/// The deadline of a request whose caller sets none, if `max_wait` is not shorter.
const DEFAULT_DEADLINE: Duration = Duration::from_mins(10);

/// A request: one prompt, which one target of a route answers.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct NewRequest {
    /// The route. Without it, the default route.
    pub route: Option<String>,
    /// A text; or the messages of a conversation, each with a `role` (`system`, `user`, `assistant` or `tool`) and a
    /// `content`: a text, or a list of parts. A part has a `type`: `text` (`text`), `image`, `document`, `audio` or `video`
    /// (`media_type`, and `data` in base64 or `url`), `tool_call` (`id`, `name`, `arguments`), `tool_result` (`call_id`,
    /// `content`, `is_error`) or `reasoning` (`text`, `signature`). The parts of an answer can be sent back.
    pub prompt: Value,
    /// The system instructions.
    pub system: Option<String>,
    /// The required format of the answer: `{"type": "text"}`, `{"type": "choice", "choices": ["YES", "NO"]}` or
    /// `{"type": "json_schema", "schema": {...}}`. It is requested from the provider; the answer is not validated.
    pub response_format: Option<Value>,
    /// Maximum tokens of the answer, reasoning included; 1 or more.
    #[cfg_attr(feature = "server", schema(minimum = 1))]
    pub max_tokens: Option<u32>,
    /// Sampling temperature, from 0 to 2.
    #[cfg_attr(feature = "server", schema(minimum = 0, maximum = 2))]
    pub temperature: Option<f64>,
    /// Nucleus sampling, from 0 to 1.
    #[cfg_attr(feature = "server", schema(minimum = 0, maximum = 1))]
    pub top_p: Option<f64>,
    /// Texts before which the answer ends.
    #[serde(default)]
    pub stop: Vec<String>,
    /// Makes sampling repeatable, as far as the provider can.
    pub seed: Option<i64>,
    /// How much the model reasons: `none`, `minimal`, `low`, `medium`, `high`, `xhigh` or `max`.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub reasoning_effort: Option<ReasoningEffort>,
    /// Whether the answer contains the reasoning, where the provider shows it.
    #[serde(default)]
    pub keep_reasoning: bool,
    /// The tools that the model may call.
    #[serde(default)]
    pub tools: Vec<NewTool>,
    /// `"auto"`, `"none"`, `"required"`, or `{"tool": "NAME"}`.
    pub tool_choice: Option<Value>,
    /// Whether one answer may call several tools.
    pub parallel_tool_calls: Option<bool>,
    /// Identifies the end user to the provider, for its abuse detection.
    pub user: Option<String>,
    /// What happens to an answer that reaches the length limit: `fail` (the default) or `return`.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub length_limit: Option<LengthLimit>,
    /// How long the answer may take, in seconds; at most `max_wait` of `[serve]`.
    pub deadline_seconds: Option<f64>,
    /// `interactive` (the default) or `batch`, which may be delayed.
    #[cfg_attr(feature = "server", schema(value_type = Option<String>))]
    pub priority: Option<Priority>,
    /// Whether the answer is an event stream.
    #[serde(default)]
    pub stream: bool,
    /// When a stream commits to a target: `live` (the default), at the first piece of the answer; or `whole`, at its end, so
    /// that each failure can be answered by a retry or another target.
    pub stream_mode: Option<NewStreamMode>,
}

/// When a stream commits to a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NewStreamMode {
    /// At the first piece of the answer.
    Live,
    /// At the end of the answer.
    Whole,
}

/// A tool that the model may call.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "server", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct NewTool {
    /// Its name: 1 to 64 letters, digits, `_` and `-`.
    pub name: String,
    /// What it does, for the model.
    pub description: Option<String>,
    /// A JSON Schema of its arguments. The root is an object.
    pub parameters: Value,
    /// Whether the provider enforces the schema.
    pub strict: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFormat {
    r#type: String,
    choices: Option<Vec<String>>,
    schema: Option<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawToolChoice {
    tool: String,
}

impl NewRequest {
    /// Returns the request, without a scope.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn into_request(self, config: &Config) -> Result<Request, FieldError> {
        let route = self.route(config)?;
        let deadline = self.deadline(config)?;
        let priority = self.priority.unwrap_or(Priority::Interactive);
        let mode = match self.stream_mode {
            None | Some(NewStreamMode::Live) => StreamMode::Live,
            Some(NewStreamMode::Whole) => StreamMode::Whole,
        };
        if self.stream_mode.is_some() && !self.stream {
            return Err(FieldError::new("stream_mode", "it belongs to \"stream\": true"));
        }
        let prompt = self.into_prompt(config)?;
        let request = Request::new(route, prompt).with_deadline(deadline).with_priority(priority);
        Ok(request.with_stream_mode(mode))
    }

    fn route(&self, config: &Config) -> Result<RouteName, FieldError> {
        let Some(name) = &self.route else {
            let default = config.defaults.route.clone();
            return default.ok_or_else(|| {
                FieldError::new("route", "the configuration has no default route: name one of its routes")
            });
        };
        let route = RouteName::from(name.as_str());
        if config.routes.contains_key(&route) {
            return Ok(route);
        }
        let known: Vec<&str> = config.routes.keys().map(RouteName::as_str).collect();
        Err(FieldError::new("route", format!("there is no route {name:?}; use one of: {}", known.join(", "))))
    }

    fn deadline(&self, config: &Config) -> Result<Duration, FieldError> {
        let max = config.serve.max_wait;
        let Some(seconds) = self.deadline_seconds else { return Ok(DEFAULT_DEADLINE.min(max)) };
        match Duration::try_from_secs_f64(seconds) {
            Ok(deadline) if !deadline.is_zero() && deadline <= max => Ok(deadline),
            Ok(_) | Err(_) => Err(FieldError::new(
                "deadline_seconds",
                format!("{seconds} is not above 0 and at most {} (max_wait of [serve])", max.as_secs_f64()),
            )),
        }
    }

    fn into_prompt(self, config: &Config) -> Result<Prompt, FieldError> {
        if self.max_tokens == Some(0) {
            return Err(FieldError::new("max_tokens", "it is 1 or more"));
        }
        check_range("temperature", self.temperature, 2.0)?;
        check_range("top_p", self.top_p, 1.0)?;
        let mut prompt = Prompt {
            system: self.system.map(Into::into),
            messages: messages(&self.prompt, "prompt", &config.files.allow_hosts)?,
            ..Prompt::default()
        };
        if let Some(format) = &self.response_format {
            prompt.response_format = response_format(format)?;
        }
        if let Some(choice) = &self.tool_choice {
            prompt.tool_choice = tool_choice(choice)?;
        }
        prompt.max_tokens = self.max_tokens;
        prompt.temperature = self.temperature;
        prompt.top_p = self.top_p;
        prompt.stop = self.stop.into_iter().map(Into::into).collect();
        prompt.seed = self.seed;
        prompt.reasoning_effort = self.reasoning_effort;
        prompt.keep_reasoning = self.keep_reasoning;
        prompt.tools = self.tools.into_iter().map(tool).collect();
        prompt.parallel_tool_calls = self.parallel_tool_calls;
        prompt.user = self.user.map(Into::into);
        prompt.length_limit = self.length_limit.unwrap_or_default();
        Ok(prompt)
    }
}

fn check_range(field: &str, value: Option<f64>, max: f64) -> Result<(), FieldError> {
    match value {
        Some(value) if !(0.0..=max).contains(&value) => {
            Err(FieldError::new(field, format!("{value} is not from 0 to {max}")))
        }
        Some(_) | None => Ok(()),
    }
}

fn tool(tool: NewTool) -> Tool {
    let NewTool { name, description, parameters, strict } = tool;
    let mut tool = Tool::new(name, parameters);
    tool.description = description.map(Into::into);
    tool.strict = strict;
    tool
}

fn response_format(value: &Value) -> Result<ResponseFormat, FieldError> {
    const FIELD: &str = "response_format";
    let raw: RawFormat = read(value, FIELD)?;
    match (raw.r#type.as_str(), raw.choices, raw.schema) {
        ("text", None, None) => Ok(ResponseFormat::Text),
        ("choice", Some(choices), None) if !choices.is_empty() => Ok(ResponseFormat::choice(choices)),
        ("choice", _, None) => {
            Err(FieldError::new(format!("{FIELD}.choices"), "it is a list of at least one text"))
        }
        ("json_schema", None, Some(schema)) if schema.is_object() => Ok(ResponseFormat::json(schema)),
        ("json_schema", None, _) => {
            Err(FieldError::new(format!("{FIELD}.schema"), "it is a JSON Schema, an object"))
        }
        ("text" | "choice" | "json_schema", _, _) => {
            let message = "a choice has `choices`, a json_schema has `schema`, and a text has neither";
            Err(FieldError::new(FIELD, message))
        }
        (other, _, _) => {
            let message = format!("there is no format {other:?}; use text, choice or json_schema");
            Err(FieldError::new(format!("{FIELD}.type"), message))
        }
    }
}

fn tool_choice(value: &Value) -> Result<ToolChoice, FieldError> {
    match value.as_str() {
        Some("auto") => Ok(ToolChoice::Auto),
        Some("none") => Ok(ToolChoice::None),
        Some("required") => Ok(ToolChoice::Required),
        Some(other) => {
            let message = format!("{other:?} is not auto, none, required or {{\"tool\": \"NAME\"}}");
            Err(FieldError::new("tool_choice", message))
        }
        None => {
            let RawToolChoice { tool } = read(value, "tool_choice")?;
            Ok(ToolChoice::Tool(tool.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config() -> Config {
        let text = "[provider.p]\nbase_url = 'http://127.0.0.1:1'\nmodels.m = {}\n[serve]\nmax_wait = '1m'\n";
        Config::parse("c.toml", text, &|_| None).unwrap()
    }

    fn request(body: Value) -> Result<Request, String> {
        let new: NewRequest = serde_json::from_str(&body.to_string()).map_err(|error| error.to_string())?;
        new.into_request(&config()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_field_reaches_the_prompt() {
        let schema = json!({ "type": "object" });
        let request = request(json!({
            "route": "default",
            "prompt": [{ "role": "user", "content": "Hello?" }],
            "system": "Answer in French.",
            "response_format": { "type": "json_schema", "schema": schema },
            "max_tokens": 100,
            "temperature": 0.5,
            "top_p": 1,
            "stop": ["END"],
            "seed": -7,
            "reasoning_effort": "low",
            "keep_reasoning": true,
            "tools": [{ "name": "weather", "description": "The weather.", "parameters": schema, "strict": true }],
            "tool_choice": { "tool": "weather" },
            "parallel_tool_calls": false,
            "user": "user-1",
            "length_limit": "return",
            "deadline_seconds": 1.5,
            "priority": "batch",
            "stream": true,
            "stream_mode": "whole",
        }))
        .unwrap();
        let tool = Tool::new("weather", schema.clone()).with_description("The weather.").with_strict(true);
        let expected = Prompt::text("Hello?")
            .with_system("Answer in French.")
            .with_response_format(ResponseFormat::json(schema))
            .with_max_tokens(100)
            .with_temperature(0.5)
            .with_top_p(1.0)
            .with_stop(["END"])
            .with_seed(-7)
            .with_reasoning_effort(ReasoningEffort::Low)
            .with_keep_reasoning(true)
            .with_tool(tool)
            .with_tool_choice(ToolChoice::Tool("weather".into()))
            .with_parallel_tool_calls(false)
            .with_user("user-1")
            .with_length_limit(LengthLimit::Return);
        assert_eq!(*request.prompt, expected);
        assert_eq!((request.priority, request.stream_mode), (Priority::Batch, StreamMode::Whole));
    }

    #[test]
    fn a_short_request_uses_the_defaults() {
        let request = request(json!({ "prompt": "Hello?" })).unwrap();
        assert_eq!(*request.prompt, Prompt::text("Hello?"));
        assert_eq!((request.route.as_str(), request.priority), ("default", Priority::Interactive));
    }

    #[test]
    fn a_wrong_field_is_named() {
        let with = |field: &str, value: Value| {
            let mut body = json!({ "prompt": "x" });
            body[field] = value;
            request(body).unwrap_err()
        };
        for (field, value, expected) in [
            ("route", json!("cheap"), "`route`: there is no route \"cheap\"; use one of: default"),
            ("prompt", Value::Null, "`prompt`: expected a text"),
            ("prompt", json!(""), "`prompt`: it is empty"),
            ("prompt", json!(" \n"), "`prompt`: it is empty"),
            ("prompt", json!([]), "`prompt`: the list of messages is empty"),
            ("max_tokens", json!(0), "`max_tokens`: it is 1 or more"),
            ("temperature", json!(2.5), "`temperature`: 2.5 is not from 0 to 2"),
            ("top_p", json!(-1), "`top_p`: -1 is not from 0 to 1"),
            ("deadline_seconds", json!(61), "`deadline_seconds`: 61 is not above 0 and at most 60"),
            ("deadline_seconds", json!(0), "`deadline_seconds`: 0 is not above 0"),
            ("deadline_seconds", json!(1e300), "`deadline_seconds`: "),
            ("stream_mode", json!("live"), "`stream_mode`: it belongs to"),
            ("tool_choice", json!("any"), "`tool_choice`: \"any\" is not auto"),
            ("tool_choice", json!({ "name": "x" }), "`tool_choice`: unknown field `name`"),
            ("response_format", json!({ "type": "xml" }), "`response_format.type`: there is no format"),
            ("response_format", json!({ "type": "choice", "choices": [] }), "`response_format.choices`: "),
            ("response_format", json!({ "type": "json_schema" }), "`response_format.schema`: "),
            ("response_format", json!({ "type": "text", "schema": {} }), "`response_format`: a choice has"),
            ("models", json!([]), "unknown field `models`"),
            ("reasoning_effort", json!("huge"), "unknown variant `huge`"),
        ] {
            let error = with(field, value);
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
