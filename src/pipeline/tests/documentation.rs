//! Checks `docs/pipelines.md` against the code.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::pipeline::Defaults;
use crate::pipeline::attach::MEDIA_TYPES;
use crate::pipeline::raw::{RawInput, RawPipeline, RawStep};
use crate::sink::{Line, LineError, RejectLine, StepError, StepLine};
use crate::types::{Class, ItemStatus};

use super::parse;

const DOCS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/pipelines.md"));

/// The rows of the tables in the page, by heading.
fn tables() -> BTreeMap<&'static str, Vec<Vec<&'static str>>> {
    let mut tables = BTreeMap::new();
    let mut heading = "";
    for line in DOCS.lines() {
        if let Some(text) = line.strip_prefix('#') {
            heading = text.trim_matches(['#', ' ', '`']);
        } else if line.starts_with("| `") {
            let cells = line.trim_matches('|').split(" | ").map(str::trim).collect();
            tables.entry(heading).or_insert_with(Vec::new).push(cells);
        }
    }
    tables
}

/// Returns the keys of `T`, from serde's error for an unknown key.
fn keys<T: DeserializeOwned + Debug>() -> BTreeSet<String> {
    let error = toml::from_str::<T>("no-such-key = 1").unwrap_err();
    let (_, known) = error.message().split_once("expected ").unwrap();
    known.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Returns the fields with which a value is serialized.
fn fields(value: impl Serialize) -> BTreeSet<String> {
    serde_json::to_value(value).unwrap().as_object().unwrap().keys().cloned().collect()
}

#[test]
fn every_key_and_field_is_documented_and_every_documented_key_exists() {
    let mut line = Line::new("key".into(), 1, ItemStatus::Skipped, Duration::ZERO, Vec::new());
    line.item = Some(serde_json::Value::Null);
    let error = LineError { class: Class::Auth, step: None, message: String::new() };
    let reject = RejectLine { line: 1, reason: String::new(), key: None, text: String::new() };
    let known = BTreeMap::from([
        ("The file", keys::<RawPipeline>()),
        ("[input]", keys::<RawInput>()),
        ("[defaults]", keys::<Defaults>()),
        ("[[step]]", keys::<RawStep>()),
        ("line", fields(line)),
        ("error", fields(error)),
        ("steps", fields(StepLine { reasoning: Some("x".into()), ..StepLine::skipped() })),
        ("--rejects", fields(reject)),
        ("Classes", Class::ALL.iter().map(Class::to_string).collect()),
    ]);
    let documented: BTreeMap<&str, BTreeSet<String>> = tables()
        .into_iter()
        .map(|(heading, rows)| {
            (heading, rows.iter().map(|row| row[0].trim_matches('`').to_owned()).collect())
        })
        .collect();
    assert_eq!(documented, known);
}

#[test]
fn the_row_of_a_key_has_type_default_and_meaning() {
    let tables = tables();
    for heading in ["The file", "[input]", "[defaults]", "[[step]]"] {
        for row in &tables[heading] {
            assert_eq!(row.len(), 4, "{heading}: {row:?}");
        }
    }
}

#[test]
fn every_documented_default_is_the_default_in_the_code() {
    fn check<T: DeserializeOwned + Debug + Default>(rows: &[Vec<&str>]) -> usize {
        let with_default = rows.iter().filter(|row| row[2].starts_with('`'));
        let line = |row: &Vec<&str>| format!("{} = {}", row[0].trim_matches('`'), row[2].trim_matches('`'));
        let lines: Vec<String> = with_default.map(line).collect();
        let parsed: T = toml::from_str(&lines.join("\n")).unwrap();
        assert_eq!(format!("{parsed:?}"), format!("{:?}", T::default()), "{lines:?}");
        lines.len()
    }
    let tables = tables();
    assert_eq!(check::<RawPipeline>(&tables["The file"]), 2);
    assert_eq!(check::<RawStep>(&tables["[[step]]"]), 3);
}

#[test]
fn the_fields_of_errors_and_tokens_are_as_documented() {
    let error = StepError { class: Class::Auth, message: String::new() };
    assert_eq!(fields(error), ["class", "message"].map(str::to_owned).into());
    let tokens = serde_json::to_value(StepLine::skipped()).unwrap()["tokens"].clone();
    assert_eq!(fields(tokens), ["input", "output"].map(str::to_owned).into());
}

#[test]
fn every_attachable_file_extension_is_listed() {
    let extensions: Vec<String> = MEDIA_TYPES.iter().map(|(extension, _)| format!("`{extension}`")).collect();
    assert!(DOCS.contains(&format!("\nfollows from its ending: {}.\n", extensions.join(", "))));
}

#[test]
fn every_example_is_accepted() {
    let examples: Vec<&str> =
        DOCS.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 5);
    for example in examples {
        // The tests know other routes.
        let example = example.replace("\"embeddings\"", "\"cheap\"");
        if let Err(diagnostics) = parse(&example) {
            panic!("{}", diagnostics.render(false));
        }
    }
}
