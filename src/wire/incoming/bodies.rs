//! Bodies of requests with one named change, for the property tests of all formats.

use proptest::prelude::*;
use serde_json::{Value, json};

/// A body with one change.
#[derive(Debug, Clone)]
pub(in crate::wire) struct Mutation {
    pub(in crate::wire) body: Value,
    /// The name of the field that was removed or added, or of the list that lost an element.
    pub(in crate::wire) name: String,
}

/// Returns `body` without one of its values, or with one of the fields `added`. Below a field in `opaque`, which may
/// contain any JSON, nothing changes.
pub(in crate::wire) fn mutation(
    body: Value,
    opaque: &'static [&'static str],
    added: &'static [&'static str],
) -> impl Strategy<Value = Mutation> {
    let mut objects = Vec::new();
    let mut values = Vec::new();
    list_paths(&body, "", opaque, &mut objects, &mut values);
    let original = body.clone();
    prop_oneof![
        prop::sample::select(values).prop_map(move |path| without(original.clone(), &path)),
        (prop::sample::select(objects), prop::sample::select(added), small_value())
            .prop_map(move |(path, name, value)| with(body.clone(), &path, name, value)),
    ]
}

/// Lists the paths of all objects and of all values inside of objects and lists.
fn list_paths(
    value: &Value,
    path: &str,
    opaque: &[&str],
    objects: &mut Vec<String>,
    values: &mut Vec<String>,
) {
    let mut inner: Vec<(String, &Value)> = Vec::new();
    match value {
        Value::Object(fields) => {
            objects.push(path.to_owned());
            inner.extend(fields.iter().map(|(name, value)| (name.clone(), value)));
        }
        Value::Array(all) => inner.extend((0..).zip(all).map(|(index, value)| (format!("{index}"), value))),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    for (name, value) in inner {
        let path = format!("{path}/{name}");
        if !opaque.contains(&&*name) {
            list_paths(value, &path, opaque, objects, values);
        }
        values.push(path);
    }
}

fn without(mut body: Value, path: &str) -> Mutation {
    let (parent, last) = path.rsplit_once('/').unwrap();
    match body.pointer_mut(parent).unwrap() {
        Value::Object(fields) => fields.shift_remove(last).map(|_| ()).unwrap(),
        Value::Array(all) => drop(all.remove(last.parse().unwrap())),
        other => panic!("{other} has no inner values"),
    }
    let is_name = |part: &&str| part.parse::<usize>().is_err();
    let name = path.rsplit('/').find(is_name).unwrap_or_default().to_owned();
    Mutation { body, name }
}

fn with(mut body: Value, path: &str, name: &str, value: Value) -> Mutation {
    body.pointer_mut(path).unwrap().as_object_mut().unwrap().insert(name.to_owned(), value);
    Mutation { body, name: name.to_owned() }
}

fn small_value() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(2),
        json!("x"),
        json!("auto"),
        json!([]),
        json!(["x"]),
        json!({}),
        json!({ "a": 1 }),
    ])
}

/// Returns whether all of `part` is in `whole`. `null` and what is empty count as missing.
pub(in crate::wire) fn contains(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (_, Value::Null) => true,
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(name, value)| match whole.get(name) {
                Some(known) => contains(known, value),
                None => is_empty(value),
            })
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| contains(whole, part))
        }
        (Value::Number(whole), Value::Number(part)) => whole.as_f64() == part.as_f64(),
        (whole, part) => whole == part,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(fields) => fields.values().all(is_empty),
        Value::Array(all) => all.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_field_and_another_value_are_noticed() {
        let whole = json!({ "a": [1, { "b": "x" }], "c": 2 });
        for part in [json!({}), json!({ "a": [1.0, {}], "d": [], "e": null }), whole.clone()] {
            assert!(contains(&whole, &part), "{part}");
        }
        for part in [json!({ "a": [1] }), json!({ "a": [1, { "b": "y" }] }), json!({ "d": [1] }), json!([])] {
            assert!(!contains(&whole, &part), "{part}");
        }
    }
}
