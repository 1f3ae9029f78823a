//! Reasoning in every wire format, and the signatures that a client sends back.

use crate::simulator::wire_format::WireFormat;

use super::exchange::*;
use super::*;

const THOUGHT: &str = "[simulated] thinking about: Hello";

/// Asks for reasoning. `is_shown` is whether the answer contains it, where the vendor has a choice.
fn reasoning(format: WireFormat, mut body: Value, is_shown: bool) -> Value {
    match format {
        WireFormat::OpenAiChat => body["reasoning_effort"] = json!("low"),
        WireFormat::OpenAiResponses => {
            body["reasoning"] = json!({ "effort": "low" });
            if is_shown {
                body["reasoning"]["summary"] = json!("auto");
                body["include"] = json!(["reasoning.encrypted_content"]);
            }
        }
        WireFormat::Anthropic => {
            let display = if is_shown { "summarized" } else { "omitted" };
            body["thinking"] = json!({ "type": "adaptive", "display": display });
            body["output_config"] = json!({ "effort": "low" });
        }
        WireFormat::Gemini => {
            let config = json!({ "thinkingLevel": "LOW", "includeThoughts": is_shown });
            body["generationConfig"] = json!({ "thinkingConfig": config });
        }
    }
    body
}

#[tokio::test]
async fn reasoning_is_counted_and_shown_where_the_vendor_shows_it() {
    let simulator = start(Settings::default());
    for format in FORMATS {
        for stream in [false, true] {
            let plain = answer(&simulator, format, stream, &question(format, "Hello")).await;
            assert_eq!((plain.reasoning_tokens, plain.signature), (0, None), "{format:?}");
            for is_shown in [false, true] {
                let body = reasoning(format, question(format, "Hello"), is_shown);
                let read = answer(&simulator, format, stream, &body).await;
                assert_eq!(read.text, "[simulated] Hello", "{format:?}");
                assert_eq!((read.reasoning_tokens, read.output_tokens), (16, 16 + plain.output_tokens));
                let thought = if is_shown && format != WireFormat::OpenAiChat { THOUGHT } else { "" };
                assert_eq!(read.reasoning, thought, "{format:?}");
                let is_signed = match format {
                    WireFormat::OpenAiChat => false,
                    WireFormat::OpenAiResponses => is_shown,
                    WireFormat::Anthropic | WireFormat::Gemini => true,
                };
                assert_eq!(read.signature.is_some(), is_signed, "{format:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_request_can_ask_for_no_reasoning() {
    let simulator = start(Settings::default());
    for (format, key, value) in [
        (WireFormat::OpenAiChat, "reasoning_effort", json!("none")),
        (WireFormat::OpenAiResponses, "reasoning", json!({ "effort": "none" })),
        (WireFormat::Anthropic, "thinking", json!({ "type": "disabled" })),
        (WireFormat::Gemini, "generationConfig", json!({ "thinkingConfig": { "thinkingBudget": 0 } })),
    ] {
        let mut body = question(format, "Hello");
        body[key] = value;
        let read = answer(&simulator, format, false, &body).await;
        assert_eq!((read.reasoning_tokens, read.signature), (0, None), "{format:?}");
    }
}

#[tokio::test]
async fn the_vendors_responses_with_reasoning_have_the_same_structure() {
    let simulator = start(Settings::default());
    for (format, name) in [
        (WireFormat::OpenAiResponses, "openai_responses_response.json"),
        (WireFormat::Anthropic, "anthropic_messages_response_thinking.json"),
        (WireFormat::Gemini, "gemini_generate_response_thought_part.json"),
    ] {
        let body = reasoning(format, question(format, "Hello"), format != WireFormat::OpenAiResponses);
        let (_, response) = post(&simulator, format, false, &body).await;
        let mut simulated = shape(&serde_json::from_str(&response).unwrap());
        simulated.remove(".candidates[].content.parts[].thoughtSignature");
        let mut real = shape(&fixture_json(name));
        if format == WireFormat::Anthropic {
            real.insert(".content[].citations".to_owned());
        }
        assert_eq!(simulated, real, "{name}");
    }
}

#[tokio::test]
async fn a_signature_is_sent_back_unchanged() {
    let simulator = start(Settings::default());
    for format in [WireFormat::Anthropic, WireFormat::Gemini] {
        let body = with_tools(format, question(format, "Call the tools a and b"), &["a", "b"]);
        let body = reasoning(format, body, true);
        let mut read = answer(&simulator, format, true, &body).await;
        let complete = with_results(format, body.clone(), &read);
        let next = answer(&simulator, format, false, &complete).await;
        assert!(next.calls.is_empty() && next.text.starts_with("[simulated]"), "{format:?}");
        if format == WireFormat::Gemini {
            assert!(read.calls[0].signature.is_some() && read.calls[1].signature.is_none());
            read.calls[0].signature = Some("b3RoZXI=".to_owned());
        } else {
            read.signature = Some("b3RoZXI=".to_owned());
        }
        let changed = with_results(format, body.clone(), &read);
        let (status, response) = post(&simulator, format, false, &changed).await;
        assert!(status == 400 && response.to_lowercase().contains("signature"), "{format:?}: {response}");
        read.calls[0].signature = None;
        read.signature = None;
        let missing = answer(&simulator, format, false, &with_results(format, body, &read)).await;
        match format {
            WireFormat::Gemini => {
                assert_eq!(missing.finish, "MISSING_THOUGHT_SIGNATURE");
                assert_eq!((missing.text.as_str(), missing.calls.len()), ("", 0));
            }
            _ => assert_eq!(missing.finish, "end_turn"),
        }
    }
}

#[tokio::test]
async fn encrypted_reasoning_is_sent_back_unchanged() {
    let format = WireFormat::OpenAiResponses;
    let simulator = start(Settings::default());
    let body = reasoning(format, question(format, "Hello"), true);
    let (_, response) = post(&simulator, format, false, &body).await;
    let response: Value = serde_json::from_str(&response).unwrap();
    let mut next = body;
    let items = messages(format, &mut next);
    items.extend(response["output"].as_array().unwrap().clone());
    items.push(json!({ "role": "user", "content": "And now?" }));
    assert_eq!(answer(&simulator, format, false, &next).await.text, "[simulated] And now?");
    messages(format, &mut next)[1]["encrypted_content"] = json!("b3RoZXI=");
    let (status, response) = post(&simulator, format, false, &next).await;
    assert!(status == 400 && response.contains("invalid_encrypted_content"), "{response}");
}

#[tokio::test]
async fn a_summary_without_an_effort_asks_for_reasoning() {
    let format = WireFormat::OpenAiResponses;
    let simulator = start(Settings::default());
    let mut body = question(format, "Hello");
    body["reasoning"] = json!({ "summary": "auto" });
    let read = answer(&simulator, format, false, &body).await;
    assert_eq!((read.reasoning_tokens, read.reasoning.as_str()), (32, THOUGHT));
}
