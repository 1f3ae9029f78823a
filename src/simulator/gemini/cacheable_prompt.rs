//! The prefixes of a request that Gemini's implicit cache reads and writes.

use serde_json::Value;

use crate::simulator::prompt_prefixes::{CacheRouting, CacheablePrompt, PrefixDigester};

use super::tools::either;

/// Returns the prefixes of a valid request.
pub(in crate::simulator) fn cacheable_prompt(body: &[u8]) -> CacheablePrompt {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let mut digester = PrefixDigester::default();
    digester.tools(&request["tools"]);
    digester.content(either(&request, "systemInstruction", "system_instruction"));
    for turn in request["contents"].as_array().into_iter().flatten() {
        digester.uncounted(turn["role"].as_str().unwrap_or("user"));
        digester.content(&turn["parts"]);
    }
    digester.into_steps(CacheRouting::Single)
}
