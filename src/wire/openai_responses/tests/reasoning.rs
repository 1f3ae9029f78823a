//! Tests of reasoning: from its deltas to the request that continues the conversation.

use serde_json::{Value, json};

use crate::types::{Completion, Format, Message, Part, Prompt, Reasoning, Signature, ToolCall, ToolResult};
use crate::wire::Dialect;

use super::{decode_body, decode_data, prompt_with_tool};

/// The text of a reasoning item with spaces, so that a test sees whether it is kept.
const ITEM: &str = r#"{ "id":"rs_1", "type":"reasoning", "summary":[{"type":"summary_text","text":"First."},{"type":"summary_text","text":"Second."}], "encrypted_content":"gAAA=" }"#;

const CALL: &str =
    r#"{"type":"function_call","id":"fc_1","call_id":"a","name":"shelf_lookup","arguments":"{}"}"#;

fn body(items: &[&str]) -> String {
    format!(r#"{{"id":"resp_1","status":"completed","output":[{}]}}"#, items.join(","))
}

fn item_done(index: u64, item: &str) -> String {
    format!(r#"{{"type":"response.output_item.done","output_index":{index},"item":{item}}}"#)
}

fn summary(index: u64, text: &str) -> String {
    let kind = "response.reasoning_summary_text.delta";
    json!({ "type": kind, "output_index": 0, "summary_index": index, "delta": text }).to_string()
}

fn decode_stream(lines: &[String], prompt: &Prompt) -> Completion {
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    decode_data(&lines, prompt).unwrap()
}

fn signed(text: &str, item: &str) -> Part {
    let signature = Signature::new(Format::OpenaiResponses, item);
    Part::Reasoning(Reasoning::new(text).with_signature(signature))
}

#[test]
fn reasoning_is_decoded_alike_from_a_body_and_from_a_stream() {
    let whole = body(&[ITEM, CALL]);
    let completed = format!(r#"{{"type":"response.completed","response":{whole}}}"#);
    let expected =
        vec![signed("First.\n\nSecond.", ITEM), Part::ToolCall(ToolCall::new("a", "shelf_lookup", "{}"))];
    let prompt = prompt_with_tool();
    assert_eq!(decode_body(&whole, &prompt).unwrap().parts, expected);
    let deltas = [summary(0, "Fir"), summary(0, "st."), summary(1, "Second.")];
    let items = [item_done(0, ITEM), item_done(1, CALL)];
    for lines in [
        [&deltas[..], &items[..], std::slice::from_ref(&completed)].concat(),
        [&items[..], std::slice::from_ref(&completed)].concat(),
        vec![completed],
    ] {
        assert_eq!(decode_stream(&lines, &prompt).parts, expected, "{lines:?}");
    }
}

#[test]
fn reasoning_is_sent_back_unchanged() {
    let prompt = prompt_with_tool();
    let answer = decode_body(&body(&[ITEM, CALL]), &prompt).unwrap();
    let next = prompt.with_message(answer.message()).with_message(Message::tool([ToolResult::new("a", "3")]));
    let request =
        Format::OpenaiResponses.encode(&next, "m", "https://api.openai.com/v1", &Dialect::default());
    let sent: Value = serde_json::from_slice(&request.unwrap().body).unwrap();
    assert_eq!(sent["input"][1], serde_json::from_str::<Value>(ITEM).unwrap());
    assert_eq!(sent["input"][2]["call_id"], "a");
    assert_eq!(sent["input"][3], json!({ "type": "function_call_output", "call_id": "a", "output": "3" }));
}

#[test]
fn reasoning_that_the_vendor_does_not_accept_again_has_no_signature() {
    let plain = r#"{"type":"reasoning","summary":[{"text":"Hm."}],"encrypted_content":null}"#;
    let empty = r#"{"type":"reasoning","summary":[]}"#;
    let text = r#"{"type":"message","content":[{"type":"output_text","text":"Low tide."}]}"#;
    let whole = body(&[plain, empty, text]);
    let prompt = Prompt::text("x").with_keep_reasoning(true);
    let expected = vec![Part::Reasoning(Reasoning::new("Hm.")), Part::text("Low tide.")];
    assert_eq!(decode_body(&whole, &prompt).unwrap().parts, expected);
    let completion = decode_body(&whole, &Prompt::text("x")).unwrap();
    assert_eq!((&*completion.text, completion.parts.len()), ("Low tide.", 0));
}

#[test]
fn the_reasoning_of_an_open_model_is_text() {
    let delta = |text: &str| json!({ "type": "response.reasoning_text.delta", "delta": text }).to_string();
    let item = r#"{"type":"reasoning","summary":[],"content":[{"type":"reasoning_text","text":"Hm."}]}"#;
    let prompt = Prompt::text("x").with_keep_reasoning(true);
    let completed = r#"{"type":"response.completed"}"#.to_owned();
    let lines = [delta("H"), delta("m."), item_done(0, item), completed];
    let expected = [Part::Reasoning(Reasoning::new("Hm."))];
    assert_eq!(decode_stream(&lines, &prompt).parts, expected);
    assert_eq!(decode_body(&body(&[item]), &prompt).unwrap().parts, expected);
}

#[test]
fn several_items_have_their_own_signatures() {
    let other = r#"{"type":"reasoning","summary":[],"encrypted_content":"gBBB="}"#;
    let expected = vec![signed("First.\n\nSecond.", ITEM), signed("", other)];
    let prompt = Prompt::text("x").with_keep_reasoning(true);
    assert_eq!(decode_body(&body(&[ITEM, other]), &prompt).unwrap().parts, expected);
    let completed = r#"{"type":"response.completed"}"#.to_owned();
    for second in [1, 0] {
        let lines = [item_done(0, ITEM), item_done(second, other), completed.clone()];
        assert_eq!(decode_stream(&lines, &prompt).parts, expected, "index {second}");
    }
}

#[test]
fn a_lone_surrogate_in_reasoning_does_not_break_its_signature() {
    let item = r#"{"type":"reasoning","summary":[{"text":"cut \ud83c"}],"encrypted_content":"gAAA="}"#;
    let prompt = Prompt::text("x").with_keep_reasoning(true);
    let completed = r#"{"type":"response.completed"}"#.to_owned();
    let repaired = item.replace("\\ud83c", "\u{fffd}");
    let expected = [signed("cut \u{fffd}", &repaired)];
    assert_eq!(decode_stream(&[item_done(0, item), completed], &prompt).parts, expected);
    assert_eq!(decode_body(&body(&[item]), &prompt).unwrap().parts, expected);
}
