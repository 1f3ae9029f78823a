//! The prefixes of a request that Anthropic's prompt cache reads and writes: those that end at a block with
//! `cache_control`.

use serde_json::Value;

use crate::simulator::api_error::ApiError;
use crate::simulator::prompt_prefixes::{CacheTtl, CacheablePrompt, PrefixDigester, tool_json};

use super::tools::invalid;

/// Maximum number of blocks with `cache_control`.
const MAX_MARKS: usize = 4;

/// Returns the prefixes of a valid request, in the vendor's order: tools, system, messages. Blocks in the result of a
/// tool are part of the result.
pub(in crate::simulator) fn cacheable_prompt(body: &[u8]) -> Result<CacheablePrompt, ApiError> {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let mut digester = PrefixDigester::default();
    let tools = list(&request["tools"]);
    for (index, tool) in tools.iter().enumerate() {
        digester.counted(if index == 0 { "[" } else { "," });
        digester.counted(&tool_json(tool));
        digester.end_block(mark(tool, || format!("tools.{index}."))?);
    }
    if !tools.is_empty() {
        digester.counted("]");
    }
    digester.uncounted("system");
    read_content(&mut digester, &request["system"], "system")?;
    for (index, message) in list(&request["messages"]).iter().enumerate() {
        digester.uncounted(message["role"].as_str().unwrap_or_default());
        read_content(&mut digester, &message["content"], &format!("messages.{index}.content"))?;
    }
    // The vendor places a mark of the request itself at the last block.
    if let Some(ttl) = mark(&request, String::new)? {
        digester.mark_last_block(ttl);
    }
    let marks = digester.marks();
    if marks > MAX_MARKS {
        return Err(invalid(format!(
            "A maximum of {MAX_MARKS} blocks with cache_control may be provided. Found {marks}."
        )));
    }
    Ok(digester.into_blocks())
}

fn read_content(digester: &mut PrefixDigester, content: &Value, path: &str) -> Result<(), ApiError> {
    match content {
        Value::Array(blocks) => {
            for (index, block) in blocks.iter().enumerate() {
                digester.part(block);
                digester.end_block(mark(block, || format!("{path}.{index}."))?);
            }
        }
        Value::Null => {}
        text => {
            digester.content(text);
            digester.end_block(None);
        }
    }
    Ok(())
}

/// Returns how long a block's prefix is cached; `None` without a mark. `path` is that of the block, for an error.
fn mark(block: &Value, path: impl FnOnce() -> String) -> Result<Option<CacheTtl>, ApiError> {
    let control = &block["cache_control"];
    if control.is_null() {
        return Ok(None);
    }
    if control["type"] != "ephemeral" {
        return Err(invalid(format!("{}cache_control.type: Input should be 'ephemeral'", path())));
    }
    match (&control["ttl"], control["ttl"].as_str()) {
        (Value::Null, _) | (_, Some("5m")) => Ok(Some(CacheTtl::FiveMinutes)),
        (_, Some("1h")) => Ok(Some(CacheTtl::OneHour)),
        (_, Some(_) | None) => {
            Err(invalid(format!("{}cache_control.ephemeral.ttl: Input should be '5m' or '1h'", path())))
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
