//! Property tests: no input causes a panic or is accepted as an answer by mistake.

use std::time::SystemTime;

use http::HeaderMap;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::types::Prompt;
use crate::wire::{Dialect, Format};

use super::{decode_body, decode_events, read};

/// JSON that resembles a response and is not valid.
fn near_miss_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "stop|length|error|\\PC{0,8}".prop_map(Value::from),
    ];
    let key = prop_oneof![
        Just("choices"),
        Just("delta"),
        Just("message"),
        Just("content"),
        Just("finish_reason"),
        Just("index"),
        Just("error"),
        Just("code"),
        Just("type"),
        Just("detail"),
        Just("loc"),
        Just("usage"),
        Just("status"),
        Just("prompt_tokens"),
        Just("total_tokens"),
        Just("reasoning"),
        Just("refusal"),
        Just("text"),
    ]
    .prop_map(str::to_owned);
    leaf.prop_recursive(5, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..6)
                .prop_map(|all| Value::Object(all.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_event_causes_a_panic(name in prop::option::of("error|message|\\PC*"), data in "\\PC*|data: .*|\\{\"choices\":\\PC*\\}") {
        // Only the absence of a panic is tested.
        let _ = decode_events(&[(name, data)]);
    }

    #[test]
    fn no_json_causes_a_panic(all in prop::collection::vec(near_miss_json(), 1..4), status in 0u16..1000) {
        let texts: Vec<_> = all.iter().map(Value::to_string).collect();
        // Without a finish reason the result is a failure.
        let events: Vec<_> = texts.iter().map(|data| (None, data.clone())).collect();
        let is_finished = texts.iter().any(|data| data.contains("\"finish_reason\""));
        prop_assert!(decode_events(&events).1.is_err() || is_finished);
        for text in &texts {
            // Only the absence of a panic is tested.
            let _ = decode_body(text, &Prompt::text("x"));
            prop_assert!(!read(status, text).message.is_empty());
        }
    }

    #[test]
    fn no_body_causes_a_panic(body: Vec<u8>, status in 0u16..1000) {
        let mut decoder = Format::Openai.decoder(&Prompt::text("x"), &Dialect::default());
        prop_assert!(decoder.push_body(&body).is_err() || decoder.finish().is_err());
        let failure = Format::Openai.read_error(status, &HeaderMap::new(), &body, SystemTime::UNIX_EPOCH);
        prop_assert!(!failure.message.is_empty());
    }

    #[test]
    fn a_text_is_decoded_unchanged_from_a_stream(pieces in prop::collection::vec("\\PC{0,20}|[\"\\\\\n\u{2028}]{1,3}", 1..8)) {
        let text = pieces.concat();
        prop_assume!(!text.trim().is_empty());
        let mut data: Vec<_> =
            pieces.iter().map(|piece| json!({ "choices": [{ "index": 0, "delta": { "content": piece } }] }).to_string()).collect();
        data.push(r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#.to_owned());
        data.push("[DONE]".to_owned());
        let events: Vec<_> = data.into_iter().map(|data| (None, data)).collect();
        prop_assert_eq!(decode_events(&events).1.unwrap().text, text);
    }
}
