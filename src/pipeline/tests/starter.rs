//! The pipeline that is made from the fields of items.

use serde_json::{Map, Value};

use super::super::{ItemState, starter};
use super::{parse, pipeline};
use crate::types::Part;

const HARD_NAMES: [&str; 12] = [
    "id",
    "text",
    "E-Mail",
    "2nd line",
    "größe",
    "a \"quoted\" 'name'",
    "back\\slash",
    "{{ item.text }}",
    "{% if %}",
    "}} # \"\"\"",
    "tab\there",
    "not",
];

#[test]
fn its_prompt_has_the_value_of_every_field() {
    let fields: Vec<String> = HARD_NAMES.iter().map(|field| (*field).to_owned()).collect();
    let text = starter("a \"b\"", &fields);
    let pipeline = pipeline(&text);
    assert_eq!(pipeline.name(), "a \"b\"");
    let values = fields.iter().enumerate();
    let item: Map<String, Value> =
        values.map(|(number, field)| (field.clone(), format!("value{number}.").into())).collect();
    let mut item = ItemState::new(pipeline, &Value::Object(item));
    let requests = item.ready_steps();
    let Some(Part::Text(prompt)) = requests[0].prompt.messages[0].parts.last() else { panic!("no text") };
    for number in 1..fields.len() {
        assert!(prompt.contains(&format!("value{number}.")), "{number}: {prompt}\n{text}");
    }
    assert!(!prompt.contains("value0."), "the key is not asked about: {prompt}");
    assert!(prompt.contains("\nE-Mail: value2."), "{prompt}");
}

#[test]
fn it_is_valid_without_fields_and_bounded_with_very_many() {
    for count in [0, 1, 5_000] {
        let fields: Vec<String> = (0..count).map(|number| format!("column {number}")).collect();
        let text = starter("p", &fields);
        let parsed = parse(&text);
        assert!(parsed.is_ok(), "{}\n{text}", parsed.unwrap_err());
        assert!(text.len() < 20_000, "{}", text.len());
    }
}

#[test]
fn every_example_in_its_comments_is_valid() {
    let text = starter("p", &["text".to_owned()]);
    let example = |marker: &str| {
        let start = text.find(marker).unwrap();
        let lines = text[start..].lines().take_while(|line| *line != "#");
        lines.map(|line| format!("{}\n", line.trim_start_matches("# "))).collect::<String>()
    };
    let step =
        |more: &str| format!("name = 'p'\n[[step]]\nname = 'answer'\nprompt = '{{{{ item.text }}}}'\n{more}");
    for more in [
        example("# choice = "),
        example("# [step.schema]"),
        format!("choice = ['negative', 'other']\n{}", example("# [[step]]")),
    ] {
        pipeline(&step(&more));
    }
}
