//! Runs the tools that a model calls, until the model answers with text.
//!
//! ```sh
//! cargo run --example tools
//! ```
//!
//! The answers are simulated, so it needs no key.

use pointsman::{
    Config, Message, Pointsman, Prompt, Request, Response, RouterHandle, Tool, ToolCall, ToolResult,
};
use serde_json::{Value, json};

/// Maximum number of requests of one conversation. A model may call tools again and again.
const MAX_REQUESTS: usize = 8;

pub(crate) fn weather_tool() -> Tool {
    let parameters = json!({
        "type": "object",
        "properties": { "city": { "type": "string" } },
        "required": ["city"],
        "additionalProperties": false,
    });
    Tool::new("weather", parameters).with_description("The weather of a city, now.")
}

fn run_tool(call: &ToolCall) -> ToolResult {
    // The model wrote the arguments: they are valid JSON, but may not have the schema.
    let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
    match (&*call.name, arguments["city"].as_str()) {
        ("weather", Some(city)) => {
            ToolResult::new(call.id.clone(), json!({ "city": city, "weather": "rain" }).to_string())
        }
        ("weather", None) => ToolResult::error(call.id.clone(), "the argument `city` is missing"),
        (name, _) => ToolResult::error(call.id.clone(), format!("there is no tool {name:?}")),
    }
}

pub(crate) async fn converse(router: &RouterHandle, mut prompt: Prompt) -> anyhow::Result<Response> {
    for _ in 0..MAX_REQUESTS {
        let response = router.send(Request::new("default", prompt.clone())).await?;
        let results: Vec<ToolResult> = response.tool_calls().map(run_tool).collect();
        if results.is_empty() {
            return Ok(response);
        }
        prompt = prompt.with_message(response.message()).with_message(Message::tool(results));
    }
    anyhow::bail!("the model has called tools {MAX_REQUESTS} times")
}

#[expect(clippy::print_stdout, reason = "prints the answer")]
fn main() -> anyhow::Result<()> {
    let pointsman = Pointsman::start_blocking(&Config::load()?.simulated())?;
    let router = pointsman.router();
    let question = "Call the tool weather. Do I need an umbrella in Bern?";
    let prompt = Prompt::text(question).with_tool(weather_tool());
    let response = pointsman.runtime().block_on(converse(&router, prompt))?;
    println!("{}", response.text());
    Ok(())
}
