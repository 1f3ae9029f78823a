//! Loading of valid pipelines.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::types::{EmbeddingOptions, Prompt, ReasoningEffort, ResponseFormat, RouteName};

use super::super::{Defaults, ItemState, Pipeline};
use super::{parse, pipeline};

const EMAIL: &str = r#"
name = "email"

[[step]]
name   = "category"
route  = "cheap"
prompt = "Subject: {{ item.subject }}\n\n{{ item.content }}"
choice = ["URGENT", "MEETING", "SUPPORT", "MARKETING", "PERSONAL", "OTHER"]

[[step]]
name   = "summary"
prompt = "Summarise in {{ item.target_language | default('English') }}.\n\n{{ item.content }}"

[[step]]
name   = "action_items"
prompt = "List the action items in this email.\n\n{{ item.content }}"
schema = { type = "array", items = { type = "string" } }

[[step]]
name   = "reply"                              # waits for what it mentions: category and action_items
when   = "category != 'MARKETING'"
prompt = "Draft three replies to {{ item.sender }}. To do: {{ action_items | join(', ') }}"
schema = { type = "array", items = { type = "string" }, minItems = 3, maxItems = 3 }
"#;

const AD_ACCOUNTS: &str = r#"
name = "ad_accounts"

[input.schema]
type = "object"
required = ["id", "spend"]
properties = { id = { type = "string" }, spend = { type = "number", minimum = 0 } }

[defaults]
system = "You analyse advertising accounts."
max_tokens = 400

[[step]]
name = "summary"
prompt = "Summarise: {{ item | tojson }}"

[[step]]
name = "anomalies"
prompt = "{% for day in item.days %}{{ loop.index }}: {{ day }}\n{% endfor %}"
schema = { type = "array", items = { type = "object", required = ["day", "what"], properties = { day = { type = "integer" }, what = { type = "string" } } } }

[[step]]
name = "recommendation"
route = "strong"
prompt = """
{{ summary }}

{% for anomaly in anomalies %}- day {{ anomaly.day }}: {{ anomaly.what }}
{% endfor %}"""
"#;

const LEADS: &str = r#"
name = "leads"

[[step]]
name = "opening"
temperature = 0.9
max_validation_retries = 0
deadline = "1m 30s"
prompt = "One sentence for {{ item.name }}, {{ item.role }} at {{ item.company }}."
"#;

#[test]
fn a_step_needs_the_steps_that_it_references() {
    let email = pipeline(EMAIL);
    assert_eq!(email.needs(3), [0, 2]);
    assert!((0..3).all(|step| email.needs(step).is_empty()));
    let accounts = pipeline(AD_ACCOUNTS);
    assert_eq!(accounts.needs(2), [0, 1]);
    let explicit =
        pipeline("name='x'\n[[step]]\nname='a'\nprompt='p'\n[[step]]\nname='b'\nprompt='p'\nneeds=['a']\n");
    assert_eq!(explicit.needs(1), [0]);
}

#[test]
fn a_setting_of_a_step_overrides_the_pipelines_default_and_that_the_configurations() {
    let text = "name='x'\n[defaults]\nmax_validation_retries=1\nroute='strong'\n[[step]]\nname='a'\nprompt='p'\nmax_validation_retries=0\n\
        [[step]]\nname='b'\nprompt='p'\nroute='cheap'\n";
    let configured = Defaults {
        max_validation_retries: Some(5),
        deadline: Some(Duration::from_secs(7)),
        ..Defaults::default()
    };
    let routes = ["cheap", "strong"].map(RouteName::from);
    let loaded = Pipeline::parse("p.toml", text, "".as_ref(), &configured, &routes).unwrap();
    let [a, b] = loaded.steps() else { panic!("two steps") };
    assert_eq!(
        (a.max_validation_retries, a.route.as_str(), a.deadline),
        (0, "strong", Duration::from_secs(7))
    );
    assert_eq!((b.max_validation_retries, b.route.as_str(), b.max_tokens), (1, "cheap", None));
    let leads = pipeline(LEADS);
    assert_eq!(leads.steps()[0].deadline, Duration::from_secs(90));
    assert_eq!(pipeline(AD_ACCOUNTS).steps()[1].max_validation_retries, Defaults::MAX_VALIDATION_RETRIES);
}

#[test]
fn the_settings_of_a_step_are_those_of_its_prompt() {
    let text = "name='x'\n[defaults]\ntop_p=0.9\nstop=['{{ item.x }}', 'END']\nreasoning_effort='low'\n\
        [[step]]\nname='a'\nprompt='p'\nseed=-7\nkeep_reasoning=true\n\
        [[step]]\nname='b'\nprompt='p'\nstop='b'\nreasoning_effort='xhigh'\n";
    let configured: Defaults = toml::from_str("seed = 3\ntop_p = 0.1\nstop = 'never'").unwrap();
    let loaded =
        Pipeline::parse("p.toml", text, "".as_ref(), &configured, &[RouteName::from("only")]).unwrap();
    let requests = ItemState::new(Arc::new(loaded), &json!({})).ready_steps();
    let prompts: Vec<_> = requests.iter().map(|request| &*request.prompt).collect();
    let plain = Prompt::text("p").with_top_p(0.9);
    let first = plain.clone().with_stop(["{{ item.x }}", "END"]).with_seed(-7).with_keep_reasoning(true);
    let second = plain.with_stop(["b"]).with_seed(3).with_reasoning_effort(ReasoningEffort::XHigh);
    assert_eq!(prompts, [&first.with_reasoning_effort(ReasoningEffort::Low), &second]);
}

#[test]
fn the_defaults_for_answers_do_not_apply_to_a_step_with_embed() {
    let text = "name='x'\n[defaults]\nsystem='s'\nmax_tokens=5\ntemperature=1\ntop_p=0.9\nseed=1\n\
        max_validation_retries=3\ndeadline='7s'\nroute='strong'\n\
        [[step]]\nname='v'\nembed='{{ item.text }}'\ndimensions=256\n";
    let loaded = pipeline(text);
    let step = &loaded.steps()[0];
    assert_eq!((step.route.as_str(), step.deadline), ("strong", Duration::from_secs(7)));
    assert_eq!((step.max_validation_retries, step.max_tokens, step.temperature), (0, None, None));
    let options = EmbeddingOptions::new(NonZeroU32::new(256));
    let request = ItemState::new(loaded.clone(), &json!({ "text": "low tide" })).ready_steps().remove(0);
    assert_eq!(*request.prompt, Prompt::embeddings(["low tide"], options));
    let fingerprint = |text: &str| pipeline(text).steps()[0].fingerprint;
    for (old, new, changes) in [
        ("dimensions=256", "dimensions=512", true),
        ("item.text", "item.title", true),
        ("name='v'\n", "name='v'\nwhen='item.text'\n", true),
        ("name='v'\n", "name='v'\noptional=true\n", true),
        ("system='s'", "system='other'", false),
        ("deadline='7s'", "deadline='8s'", false),
    ] {
        assert_eq!(fingerprint(&text.replace(old, new)) != step.fingerprint, changes, "{new}");
    }
}

#[test]
fn an_item_is_checked_against_the_input_schema() {
    let accounts = pipeline(AD_ACCOUNTS);
    assert_eq!(accounts.validate_item(&json!({ "id": "a", "spend": 1.5 })), Ok(()));
    let reason = accounts.validate_item(&json!({ "id": "a", "spend": -1 })).unwrap_err();
    assert_eq!(reason, "at /spend: -1 is less than the minimum of 0");
    assert_eq!(pipeline(EMAIL).validate_item(&json!("anything")), Ok(()));
}

#[test]
fn a_schema_may_be_in_a_file() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("facts.json"), r#"{ "type": "array" }"#).unwrap();
    std::fs::write(directory.path().join("broken.json"), "{").unwrap();
    let file = directory.path().join("p.toml");
    let text =
        "name='x'\n[input]\nschema='facts.json'\n[[step]]\nname='a'\nprompt='p'\nschema='facts.json'\n";
    std::fs::write(&file, text).unwrap();
    let routes = [RouteName::from("only")];
    let loaded = Pipeline::load(&file, &Defaults::default(), &routes).unwrap();
    assert_eq!(loaded.steps()[0].response_format(), ResponseFormat::Json(json!({ "type": "array" }).into()));
    assert!(loaded.validate_item(&json!({})).is_err());
    std::fs::write(&file, text.replace("facts", "broken")).unwrap();
    let diagnostics = Pipeline::load(&file, &Defaults::default(), &routes).unwrap_err();
    assert_eq!(diagnostics.0.len(), 2, "{diagnostics}");
    assert!(diagnostics.0[0].message.contains("broken.json is not JSON"), "{diagnostics}");
}

#[test]
fn an_error_in_a_file_of_one_line_is_reported() {
    let diagnostics = parse("name = 'x' y").map(|loaded| loaded.name().to_owned()).unwrap_err();
    assert_eq!(diagnostics.0.len(), 1, "{diagnostics}");
}
