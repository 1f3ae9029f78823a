//! Schemas are translated for each vendor: none is refused, and every answer is validated by the schema as
//! written.

use pointsman::simulator::Settings;
use serde_json::{Value, json};

use super::support::*;

/// Returns a step with this schema.
fn step(schema: &Value) -> String {
    let schema: toml::Value = serde_json::from_value(schema.clone()).unwrap();
    format!("[[step]]\nname = \"s\"\nprompt = \"Describe {{{{ item.id }}}}.\"\nschema = {schema}\n")
}

fn object(properties: &Value, required: &Value) -> Value {
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

/// Returns `count` properties with this schema.
fn properties(count: usize, schema: &Value) -> Value {
    (0..count).map(|number| (format!("p{number}"), schema.clone())).collect::<serde_json::Map<_, _>>().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_vendor_accepts_every_schema_and_answers_match_the_schema_as_written() {
    let word = json!({ "type": "string" });
    let words = |count: usize, length: usize| -> Value {
        (0..count).map(|number| Value::from(format!("{number:0length$}"))).collect()
    };
    let schemas = [
        // Optional and nullable properties, in every notation.
        object(
            &json!({
                "a": word, "b": word, "c": { "type": ["string", "null"] }, "d": { "anyOf": [word, { "type": "null" }] },
                "e": { "type": "string", "nullable": true }, "f": { "const": "x" },
            }),
            &json!(["a", "c", "e"]),
        ),
        object(&json!({ "a": { "type": "string", "enum": words(1_001, 4) } }), &json!(["a"])),
        object(&json!({ "a": { "type": "string", "enum": words(300, 60) } }), &json!(["a"])),
        object(&properties(30, &word), &json!(["p0"])),
        object(
            &properties(20, &json!({ "type": ["string", "null"] })),
            &json!((0..20).map(|n| format!("p{n}")).collect::<Vec<_>>()),
        ),
    ];
    for (format, vendor) in FORMATS {
        for (number, schema) in schemas.iter().enumerate() {
            let simulator = start_simulator(Settings::default());
            let more = format!("format = \"{format}\"\nkeys = [\"env:K1\"]{LONG_TIMEOUTS}");
            let config = provider_config_at("a", &simulator.base_url(vendor), &more);
            let finished =
                run_pipeline(&start_pointsman(&format!("{QUICK_RETRY}{config}")), &step(schema), 3).await;
            assert_eq!(simulator.counts().by_status.get(&400), None, "{format}, schema {number}");
            // The schema is part of the prompt, and the simulator ignores it.
            if format == "anthropic" && number >= 3 {
                assert!(finished.lines.iter().all(|line| line["error"]["class"] == "validation_error"));
                continue;
            }
            assert_eq!(finished.report.items.completed, 3, "{format}, schema {number}: {:?}", finished.lines);
            let validator = jsonschema::validator_for(schema).unwrap();
            for line in &finished.lines {
                assert!(validator.is_valid(&line["answers"]["s"]), "{format}, schema {number}: {line}");
            }
        }
    }
}
