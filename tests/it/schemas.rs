//! Schemas as each vendor takes them: none is refused, and every answer is held to the schema as it was written.

use pointsman::simulator::Settings;
use serde_json::{Value, json};

use super::stage::*;

/// A step of this schema.
fn step(schema: &Value) -> String {
    let schema: toml::Value = serde_json::from_value(schema.clone()).unwrap();
    format!("[[step]]\nname = \"s\"\nprompt = \"Describe {{{{ item.id }}}}.\"\nschema = {schema}\n")
}

fn object(properties: &Value, required: &Value) -> Value {
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

/// Many properties of this schema.
fn many(count: usize, schema: &Value) -> Value {
    (0..count).map(|number| (format!("p{number}"), schema.clone())).collect::<serde_json::Map<_, _>>().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_of_every_kind_are_taken_by_every_vendor_and_answered_as_they_were_written() {
    let word = json!({ "type": "string" });
    let words = |count: usize, length: usize| -> Value {
        (0..count).map(|number| Value::from(format!("{number:0length$}"))).collect()
    };
    let schemas = [
        // Some optional, some may be null, by every way to say so.
        object(
            &json!({
                "a": word, "b": word, "c": { "type": ["string", "null"] }, "d": { "anyOf": [word, { "type": "null" }] },
                "e": { "type": "string", "nullable": true }, "f": { "const": "x" },
            }),
            &json!(["a", "c", "e"]),
        ),
        object(&json!({ "a": { "type": "string", "enum": words(1_001, 4) } }), &json!(["a"])),
        object(&json!({ "a": { "type": "string", "enum": words(300, 60) } }), &json!(["a"])),
        object(&many(30, &word), &json!(["p0"])),
        object(
            &many(20, &json!({ "type": ["string", "null"] })),
            &json!((0..20).map(|n| format!("p{n}")).collect::<Vec<_>>()),
        ),
    ];
    for (format, vendor) in FORMATS {
        for (number, schema) in schemas.iter().enumerate() {
            let simulator = play(Settings::default());
            let more = format!("format = \"{format}\"\nkeys = [\"env:K1\"]{PATIENT}");
            let config = provider_at("a", &simulator.base_url(vendor), &more);
            let ran = run(&start(&format!("{QUICK_RETRY}{config}")), &step(schema), 3).await;
            assert_eq!(simulator.counts().by_status.get(&400), None, "{format}, schema {number}");
            // Asked for in words, which the simulator does not follow.
            if format == "anthropic" && number >= 3 {
                assert!(ran.lines.iter().all(|line| line["error"]["class"] == "validation_error"));
                continue;
            }
            assert_eq!(ran.report.items.completed, 3, "{format}, schema {number}: {:?}", ran.lines);
            let validator = jsonschema::validator_for(schema).unwrap();
            for line in &ran.lines {
                assert!(validator.is_valid(&line["answers"]["s"]), "{format}, schema {number}: {line}");
            }
        }
    }
}
