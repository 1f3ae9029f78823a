//! Holds `docs/pipelines.md` to what the code really does.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::pipeline::Defaults;
use crate::pipeline::attach::KNOWN;
use crate::pipeline::raw::{Raw, RawInput, RawStep};
use crate::sink::{Line, LineError, RejectLine, StepError, StepLine};
use crate::types::{Class, ItemStatus};

use super::parse;

const DOCS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/pipelines.md"));

/// The rows of the page's tables, by heading.
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

/// Asks serde which keys a `T` has, by setting one that it cannot have.
fn keys<T: DeserializeOwned + Debug>() -> BTreeSet<String> {
    let error = toml::from_str::<T>("no-such-key = 1").unwrap_err();
    let (_, known) = error.message().split_once("expected ").unwrap();
    known.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Asks serde which fields a value is written with.
fn fields(value: impl Serialize) -> BTreeSet<String> {
    serde_json::to_value(value).unwrap().as_object().unwrap().keys().cloned().collect()
}

#[test]
fn every_key_and_field_is_documented_and_every_documented_one_exists() {
    let line = Line::new("key".into(), 1, ItemStatus::Skipped, Duration::ZERO, Vec::new());
    let error = LineError { class: Class::Auth, step: None, message: String::new() };
    let reject = RejectLine { line: 1, reason: String::new(), key: None, text: String::new() };
    let known = BTreeMap::from([
        ("The file", keys::<Raw>()),
        ("[input]", keys::<RawInput>()),
        ("[defaults]", keys::<Defaults>()),
        ("[[step]]", keys::<RawStep>()),
        ("line", fields(line)),
        ("error", fields(error)),
        ("steps", fields(StepLine::skipped())),
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
fn a_row_of_keys_has_type_default_and_meaning() {
    let tables = tables();
    for heading in ["The file", "[input]", "[defaults]", "[[step]]"] {
        for row in &tables[heading] {
            assert_eq!(row.len(), 4, "{heading}: {row:?}");
        }
    }
}

#[test]
fn every_documented_default_is_the_real_one() {
    fn check<T: DeserializeOwned + Debug + Default>(rows: &[Vec<&str>]) -> usize {
        let given = rows.iter().filter(|row| row[2].starts_with('`'));
        let line = |row: &Vec<&str>| format!("{} = {}", row[0].trim_matches('`'), row[2].trim_matches('`'));
        let lines: Vec<String> = given.map(line).collect();
        let read: T = toml::from_str(&lines.join("\n")).unwrap();
        assert_eq!(format!("{read:?}"), format!("{:?}", T::default()), "{lines:?}");
        lines.len()
    }
    let tables = tables();
    assert_eq!(check::<Raw>(&tables["The file"]), 2);
    assert_eq!(check::<RawStep>(&tables["[[step]]"]), 3);
}

#[test]
fn the_parts_of_an_error_and_of_tokens_are_as_the_rows_say() {
    let error = StepError { class: Class::Auth, message: String::new() };
    assert_eq!(fields(error), ["class", "message"].map(str::to_owned).into());
    let tokens = serde_json::to_value(StepLine::skipped()).unwrap()["tokens"].clone();
    assert_eq!(fields(tokens), ["input", "output"].map(str::to_owned).into());
}

#[test]
fn every_ending_that_can_be_attached_is_listed() {
    let endings: Vec<String> = KNOWN.iter().map(|(ending, _)| format!("`{ending}`")).collect();
    assert!(DOCS.contains(&format!("\nfollows from its ending: {}.\n", endings.join(", "))));
}

#[test]
fn every_example_is_accepted() {
    let examples: Vec<&str> =
        DOCS.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(examples.len(), 3);
    for example in examples {
        if let Err(faults) = parse(example) {
            panic!("{}", faults.render(false));
        }
    }
}
