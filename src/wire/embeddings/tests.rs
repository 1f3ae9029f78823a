//! Tests against the recorded requests and responses.

use std::num::NonZeroU32;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;
use crate::types::{Cause, Charged, FailureScope, Tokens, Usage};
use crate::wire::{DropParameter, fixtures};

const OPENAI: &str = "https://api.openai.com/v1";
const LOCAL: &str = "http://localhost:11434/v1";

/// Returns the prompt of the recorded requests.
fn tides(dimensions: u32) -> Prompt {
    let options = EmbeddingOptions::new(NonZeroU32::new(dimensions));
    Prompt::embeddings(["low tide", "high tide"], options)
}

fn encoded(
    format: Format,
    prompt: &Prompt,
    model: &str,
    base_url: &str,
    dialect: &Dialect,
) -> (String, Value) {
    let request = format.encode(prompt, model, base_url, dialect).unwrap();
    assert!(request.headers.is_empty());
    (request.path, serde_json::from_slice(&request.body).unwrap())
}

fn decode(format: Format, prompt: &Prompt, body: &[u8]) -> Result<Completion, Failure> {
    let mut decoder = format.decoder(prompt, &Dialect::default());
    decoder.push_body(body)?;
    decoder.finish()
}

fn vectors(completion: &Completion) -> Vec<Vec<f32>> {
    completion.embeddings.iter().map(|vector| vector.to_vec()).collect()
}

#[test]
fn the_vendor_decides_how_many_inputs_are_joined() {
    let inputs = |format: Format, base_url| format.embedding_limits(base_url).map(|limits| limits.max_inputs);
    assert_eq!(inputs(Format::Openai, OPENAI), Some(2_048));
    assert_eq!(inputs(Format::Openai, LOCAL), Some(100));
    assert_eq!(inputs(Format::Gemini, ""), Some(100));
    assert_eq!(inputs(Format::Anthropic, ""), None);
    assert_eq!(inputs(Format::OpenaiResponses, OPENAI), None);
}

#[test]
fn a_request_is_sent_as_recorded() {
    let dialect = Dialect::default();
    let openai = encoded(Format::Openai, &tides(4), "text-embedding-3-small", OPENAI, &dialect);
    assert_eq!(openai, ("/embeddings".to_owned(), fixtures::json("openai_embeddings_request.json")));
    let gemini = encoded(Format::Gemini, &tides(4), "gemini-embedding-001", "", &dialect);
    let path = "/v1beta/models/gemini-embedding-001:batchEmbedContents".to_owned();
    assert_eq!(gemini, (path, fixtures::json("gemini_batch_embed_request.json")));
}

#[test]
fn a_server_that_is_not_openai_is_asked_for_numbers_and_only_for_what_is_set() {
    let dialect = Dialect::default();
    let (_, body) = encoded(Format::Openai, &tides(0).with_user("user-1"), "nomic", LOCAL, &dialect);
    let expected = json!({ "model": "nomic", "input": ["low tide", "high tide"], "encoding_format": "float",
        "user": "user-1" });
    assert_eq!(body, expected);
    let (_, body) = encoded(Format::Gemini, &tides(0), "tunedModels/mine", "", &dialect);
    let request = json!({ "model": "tunedModels/mine", "content": { "parts": [{ "text": "low tide" }] } });
    assert_eq!(body["requests"][0], request);
}

#[test]
fn fields_of_the_vendor_belong_to_each_input_at_gemini() {
    let extra: Map<String, Value> = json!({ "taskType": "RETRIEVAL_DOCUMENT" }).as_object().cloned().unwrap();
    let dialect = Dialect { extra: Some(extra.into()), ..Dialect::default() };
    let (_, body) = encoded(Format::Gemini, &tides(4), "gemini-embedding-001", "", &dialect);
    let recorded = fixtures::json("gemini_embed_request.json");
    assert_eq!(body["requests"][0], recorded);
    assert_eq!(body["requests"][1]["taskType"], recorded["taskType"]);
    let (_, body) = encoded(Format::Openai, &tides(4), "m", OPENAI, &dialect);
    assert_eq!(body["taskType"], recorded["taskType"]);
}

#[test]
fn the_end_user_is_refused_by_name_at_gemini_or_dropped() {
    let prompt = tides(0).with_user("user-1");
    let refused = Format::Gemini.encode(&prompt, "m", "", &Dialect::default()).unwrap_err();
    assert_eq!((refused.class, refused.scope), (Class::ApiError, FailureScope::Target));
    assert!(refused.message.contains("cannot express user"), "{}", refused.message);
    let dialect = Dialect { drop_parameters: vec![DropParameter::User], ..Dialect::default() };
    for format in [Format::Gemini, Format::Openai] {
        let (_, body) = encoded(format, &prompt, "m", OPENAI, &dialect);
        assert!(!body.to_string().contains("user-1"), "{body}");
    }
}

#[test]
fn a_format_without_embeddings_refuses_them_by_name() {
    for format in [Format::Anthropic, Format::OpenaiResponses] {
        let refused = format.encode(&tides(0), "m", OPENAI, &Dialect::default()).unwrap_err();
        assert_eq!((refused.class, refused.scope), (Class::ApiError, FailureScope::Target));
        let expected = format!("{} has no embeddings; use a ", format.title());
        assert!(refused.message.starts_with(&expected), "{}", refused.message);
    }
}

#[test]
fn a_recorded_response_is_read_in_both_notations() {
    let expected = vec![vec![0.0123, -0.0456, 0.0789, 0.5], vec![-0.0123, 0.0456, -0.0789, -0.5]];
    for name in ["openai_embeddings_response.json", "openai_embeddings_response_base64.json"] {
        for dimensions in [0, 4] {
            let completion = decode(Format::Openai, &tides(dimensions), &fixtures::bytes(name)).unwrap();
            assert_eq!(vectors(&completion), expected, "{name}");
            assert_eq!(completion.usage, Some(Usage::new(Tokens(4), Tokens(0))));
            assert_eq!((completion.model.as_str(), completion.text.as_str()), ("text-embedding-3-small", ""));
        }
    }
    let body = fixtures::bytes("gemini_batch_embed_response.json");
    let completion = decode(Format::Gemini, &tides(4), &body).unwrap();
    assert_eq!(vectors(&completion), [[0.01, -0.02, 0.03, 0.5], [-0.01, 0.02, -0.03, -0.5]]);
    assert_eq!(completion.usage, None);
}

#[test]
fn the_order_is_that_of_the_inputs_and_usage_metadata_is_used() {
    let body = json!({ "data": [
        { "index": 1, "embedding": [3.0] }, { "index": 0, "embedding": "AAAAPw==" },
    ] });
    let completion = decode(Format::Openai, &tides(0), body.to_string().as_bytes()).unwrap();
    assert_eq!(vectors(&completion), [[0.5], [3.0]]);
    assert_eq!((completion.usage, completion.model.as_str()), (None, ""));
    let body = json!({ "embeddings": [{ "values": [1.0] }, { "values": [2.0] }],
        "usageMetadata": { "promptTokenCount": 9 } });
    let completion = decode(Format::Gemini, &tides(0), body.to_string().as_bytes()).unwrap();
    assert_eq!(completion.usage, Some(Usage::new(Tokens(9), Tokens(0))));
}

#[test]
fn a_model_that_ignores_the_dimensions_fails_the_request_and_another_target_may_answer() {
    let mut body = fixtures::json("openai_embeddings_response.json");
    for item in body["data"].as_array_mut().unwrap() {
        item["embedding"] = json!([1, 2, 3]);
    }
    let failure = decode(Format::Openai, &tides(4), body.to_string().as_bytes()).unwrap_err();
    assert_eq!((failure.class, failure.scope), (Class::ApiError, FailureScope::Target));
    assert_eq!((failure.cause, failure.charged), (Some(Cause::DimensionsIgnored), Charged::Maybe));
    assert_eq!(failure.usage.as_deref(), Some(&Usage::new(Tokens(4), Tokens(0))));
    for advice in ["3 dimensions instead of the 4 requested", "remove `dimensions`"] {
        assert!(failure.message.contains(advice), "{}", failure.message);
    }
}

#[test]
fn a_response_that_does_not_fit_the_request_is_unreadable_and_possibly_charged() {
    let recorded = |change: &dyn Fn(&mut Value)| {
        let mut body = fixtures::json("openai_embeddings_response.json");
        change(&mut body);
        decode(Format::Openai, &tides(4), body.to_string().as_bytes()).unwrap_err()
    };
    /// A change of the recorded response, and what is then wrong with it.
    type Case<'a> = (&'a dyn Fn(&mut Value), &'a str);
    let cases: [Case<'_>; 6] = [
        (&|body| body["data"] = json!([body["data"][0]]), "1 embeddings for 2 inputs"),
        (&|body| body["data"][1]["index"] = json!(0), "two embeddings with the number 0"),
        (&|body| body["data"][1]["index"] = json!(null), "without the number"),
        (&|body| body["data"][1]["embedding"] = json!([1, 2, 3]), "3 dimensions instead of the 4"),
        (&|body| body["data"][1]["embedding"] = json!("AADAfwAAwH8AAMB/AADAfw=="), "not finite"),
        (&|body| body["data"][1]["embedding"] = json!("AADA"), "not the base64"),
    ];
    for (change, problem) in cases {
        let failure = recorded(change);
        assert_eq!((failure.class, failure.charged), (Class::Unreadable, Charged::Maybe));
        assert!(failure.message.contains(problem), "{}", failure.message);
    }
    let failure = recorded(&|body| body["data"] = json!([]));
    assert_eq!(failure.usage.as_deref(), Some(&Usage::new(Tokens(4), Tokens(0))));
    for format in [Format::Openai, Format::Gemini] {
        for body in ["", "[]", "null", "{}", "x", r#"{"data":7,"embeddings":7}"#] {
            let failure = decode(format, &tides(0), body.as_bytes()).unwrap_err();
            assert_eq!((failure.class, failure.charged), (Class::Unreadable, Charged::Maybe), "{body}");
        }
        let failure = format.decoder(&tides(0), &Dialect::default()).push_event(None, "{}").unwrap_err();
        assert_eq!(failure.class, Class::Unreadable);
        let unread = format.decoder(&tides(0), &Dialect::default());
        assert_eq!(unread.finish().unwrap_err().class, Class::Unreadable);
    }
}

#[test]
fn an_error_in_a_body_with_a_success_status_is_classified() {
    for (format, name) in [
        (Format::Openai, "openai_error_429_rate_limit_requests.json"),
        (Format::Gemini, "gemini_error_429_retryinfo.json"),
    ] {
        let failure = decode(format, &tides(0), &fixtures::bytes(name)).unwrap_err();
        assert_eq!(failure.class, Class::RateLimit, "{name}");
    }
}

proptest! {
    #[test]
    fn a_changed_body_is_read_or_refused(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()) {
        for (format, name) in [
            (Format::Openai, "openai_embeddings_response.json"),
            (Format::Openai, "openai_embeddings_response_base64.json"),
            (Format::Gemini, "gemini_batch_embed_response.json"),
        ] {
            let mut body = fixtures::bytes(name);
            let at = at.index(body.len());
            if cut {
                body.truncate(at);
            } else {
                body[at] = byte;
            }
            if let Ok(completion) = decode(format, &tides(4), &body) {
                prop_assert_eq!(completion.embeddings.len(), 2);
                let numbers = completion.embeddings.concat();
                prop_assert!(numbers.len() == 8 && numbers.iter().all(|number| number.is_finite()));
            }
        }
    }
}
