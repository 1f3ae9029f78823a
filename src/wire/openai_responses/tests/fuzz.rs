//! Property tests: no input causes a panic or is accepted as an answer by mistake.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::types::{Format, Prompt};
use crate::wire::Dialect;

use super::{decode_body, decode_events, prompt_with_tool};

/// JSON that resembles a response and is not valid.
fn near_miss_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "response\\.(output_item\\.(added|done)|output_text\\.delta|failed|created)".prop_map(Value::from),
        "message|function_call|reasoning|failed|incomplete|\\PC{0,8}".prop_map(Value::from),
    ];
    let key = prop::sample::select(vec![
        "type",
        "response",
        "output",
        "item",
        "content",
        "summary",
        "encrypted_content",
        "text",
        "refusal",
        "delta",
        "arguments",
        "name",
        "call_id",
        "output_index",
        "summary_index",
        "status",
        "incomplete_details",
        "reason",
        "error",
        "code",
        "usage",
        "input_tokens",
    ])
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
    fn no_event_causes_a_panic(name in prop::option::of("error|response.completed|\\PC*"), data in "\\PC*|\\{\"type\":\\PC*\\}") {
        // Only the absence of a panic is tested.
        let _ = decode_events(&[(name, data)], &Prompt::text("x"));
    }

    #[test]
    fn no_json_causes_a_panic_or_ends_an_answer_by_mistake(all in prop::collection::vec(near_miss_json(), 1..4)) {
        let events: Vec<_> = all.iter().map(|data| (None, data.to_string())).collect();
        prop_assert!(decode_events(&events, &prompt_with_tool()).1.is_err());
        for (_, text) in &events {
            prop_assert!(decode_body(text, &prompt_with_tool()).is_err());
        }
    }

    #[test]
    fn no_body_causes_a_panic(body: Vec<u8>) {
        let mut decoder = Format::OpenaiResponses.decoder(&Prompt::text("x"), &Dialect::default());
        prop_assert!(decoder.push_body(&body).is_err() || decoder.finish().is_err());
    }

    #[test]
    fn a_text_is_decoded_unchanged_from_a_stream(pieces in prop::collection::vec("\\PC{0,20}|[\"\\\\\n\u{2028}]{1,3}", 1..8)) {
        let text = pieces.concat();
        let delta = |piece: &String| json!({ "type": "response.output_text.delta", "delta": piece });
        let mut events: Vec<_> = pieces.iter().map(|piece| (None, delta(piece).to_string())).collect();
        let item = json!({ "type": "message", "content": [{ "type": "output_text", "text": text }] });
        let response = json!({ "status": "completed", "output": [item] });
        events.push((None, json!({ "type": "response.completed", "response": response }).to_string()));
        prop_assert_eq!(&decode_events(&events, &Prompt::text("x")).1.unwrap().text, &text);
        prop_assert_eq!(decode_body(&response.to_string(), &Prompt::text("x")).unwrap().text, text);
    }
}
