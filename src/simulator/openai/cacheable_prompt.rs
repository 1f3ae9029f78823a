//! The prefixes of a request that OpenAI's prompt cache reads and writes, in both formats.

use serde_json::Value;

use crate::simulator::prompt_prefixes::{CacheRouting, CacheablePrompt, PrefixDigester};
use crate::simulator::rng::fingerprint;

/// Returns the prefixes of a valid request for chat completions.
pub(in crate::simulator) fn cacheable_chat_prompt(body: &[u8]) -> CacheablePrompt {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let mut digester = PrefixDigester::default();
    digester.tools(&request["tools"]);
    for message in list(&request["messages"]) {
        digester.uncounted(text(&message["role"]));
        digester.uncounted(text(&message["tool_call_id"]));
        digester.content(&message["content"]);
        for call in list(&message["tool_calls"]) {
            read_call(&mut digester, &call["id"], &call["function"]);
        }
    }
    digester.into_steps(routing(&request))
}

/// Returns the prefixes of a valid request for responses.
pub(in crate::simulator) fn cacheable_responses_prompt(body: &[u8]) -> CacheablePrompt {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let mut digester = PrefixDigester::default();
    digester.tools(&request["tools"]);
    digester.uncounted("instructions");
    digester.content(&request["instructions"]);
    match &request["input"] {
        Value::Array(items) => items.iter().for_each(|item| read_item(&mut digester, item)),
        input => {
            digester.uncounted("user");
            digester.content(input);
        }
    }
    digester.into_steps(routing(&request))
}

fn read_item(digester: &mut PrefixDigester, item: &Value) {
    match item["type"].as_str() {
        None | Some("message") => {
            digester.uncounted(text(&item["role"]));
            digester.content(&item["content"]);
        }
        Some("function_call") => read_call(digester, &item["call_id"], item),
        Some("function_call_output") => {
            digester.uncounted(text(&item["call_id"]));
            digester.content(&item["output"]);
        }
        Some(_) => digester.uncounted(&item.to_string()),
    }
}

fn read_call(digester: &mut PrefixDigester, id: &Value, function: &Value) {
    digester.uncounted(text(id));
    digester.counted(text(&function["name"]));
    digester.counted(text(&function["arguments"]));
}

/// Returns the cache that the request reaches. Requests without a key are spread over several.
fn routing(request: &Value) -> CacheRouting {
    match text(&request["prompt_cache_key"]) {
        "" => CacheRouting::Any,
        key => CacheRouting::Key(fingerprint(key.as_bytes())),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
