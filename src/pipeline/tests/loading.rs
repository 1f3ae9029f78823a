//! Good pipelines, and what becomes of them.

use std::time::Duration;

use serde_json::json;

use crate::types::{RouteName, Shape};

use super::super::{Defaults, Pipeline};
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
reasks = 0
deadline = "1m 30s"
prompt = "One sentence for {{ item.name }}, {{ item.role }} at {{ item.company }}."
"#;

#[test]
fn what_a_step_mentions_is_what_it_needs() {
    let email = pipeline(EMAIL);
    assert_eq!(email.needs(3), [0, 2]);
    assert!((0..3).all(|step| email.needs(step).is_empty()));
    let accounts = pipeline(AD_ACCOUNTS);
    assert_eq!(accounts.needs(2), [0, 1]);
    let more =
        pipeline("name='x'\n[[step]]\nname='a'\nprompt='p'\n[[step]]\nname='b'\nprompt='p'\nneeds=['a']\n");
    assert_eq!(more.needs(1), [0]);
}

#[test]
fn a_steps_own_word_goes_before_the_pipelines_and_that_before_the_configurations() {
    let text = "name='x'\n[defaults]\nreasks=1\nroute='strong'\n[[step]]\nname='a'\nprompt='p'\nreasks=0\n\
        [[step]]\nname='b'\nprompt='p'\nroute='cheap'\n";
    let configured =
        Defaults { reasks: Some(5), deadline: Some(Duration::from_secs(7)), ..Defaults::default() };
    let routes = ["cheap", "strong"].map(RouteName::from);
    let read = Pipeline::parse("p.toml", text, "".as_ref(), &configured, &routes).unwrap();
    let [a, b] = read.steps() else { panic!("two steps") };
    assert_eq!((a.reasks, a.route.as_str(), a.deadline), (0, "strong", Duration::from_secs(7)));
    assert_eq!((b.reasks, b.route.as_str(), b.max_tokens), (1, "cheap", None));
    let leads = pipeline(LEADS);
    assert_eq!(leads.steps()[0].deadline, Duration::from_secs(90));
    assert_eq!(pipeline(AD_ACCOUNTS).steps()[1].reasks, Defaults::REASKS);
}

#[test]
fn an_item_is_checked_before_it_costs_anything() {
    let accounts = pipeline(AD_ACCOUNTS);
    assert_eq!(accounts.validate_item(&json!({ "id": "a", "spend": 1.5 })), Ok(()));
    let reason = accounts.validate_item(&json!({ "id": "a", "spend": -1 })).unwrap_err();
    assert_eq!(reason, "at /spend: -1 is less than the minimum of 0");
    assert_eq!(pipeline(EMAIL).validate_item(&json!("anything")), Ok(()));
}

#[test]
fn a_schema_may_stand_in_a_file_beside_the_pipeline() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("facts.json"), r#"{ "type": "array" }"#).unwrap();
    std::fs::write(directory.path().join("broken.json"), "{").unwrap();
    let file = directory.path().join("p.toml");
    let text =
        "name='x'\n[input]\nschema='facts.json'\n[[step]]\nname='a'\nprompt='p'\nschema='facts.json'\n";
    std::fs::write(&file, text).unwrap();
    let routes = [RouteName::from("only")];
    let read = Pipeline::load(&file, &Defaults::default(), &routes).unwrap();
    assert_eq!(read.steps()[0].shape(), Shape::Json(json!({ "type": "array" }).into()));
    assert!(read.validate_item(&json!({})).is_err());
    std::fs::write(&file, text.replace("facts", "broken")).unwrap();
    let faults = Pipeline::load(&file, &Defaults::default(), &routes).unwrap_err();
    assert_eq!(faults.0.len(), 2, "{faults}");
    assert!(faults.0[0].message.contains("broken.json is no JSON"), "{faults}");
}

#[test]
fn a_fault_on_a_single_line_needs_no_other_line() {
    let faults = parse("name = 'x' y").map(|read| read.name().to_owned()).unwrap_err();
    assert_eq!(faults.0.len(), 1, "{faults}");
}
