//! Random changes of the bodies of requests, for the property tests of all formats.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

/// The name of a field that no vendor has.
pub(in crate::wire) const UNKNOWN_FIELD: &str = "x_unknown_field";

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
    let objects = objects(&body, opaque);
    let mut values = pointers(&body, opaque);
    // The body itself stays.
    values.remove(0);
    let original = body.clone();
    prop_oneof![
        prop::sample::select(values).prop_map(move |pointer| without(original.clone(), &pointer)),
        (prop::sample::select(objects), prop::sample::select(added), small_value())
            .prop_map(move |(pointer, name, value)| with(body.clone(), &pointer, name, value)),
    ]
}

fn without(mut body: Value, pointer: &str) -> Mutation {
    assert!(remove(&mut body, pointer), "{body} has no value at {pointer}");
    let is_name = |part: &&str| part.parse::<usize>().is_err();
    let name = pointer.rsplit('/').find(is_name).unwrap_or_default().to_owned();
    Mutation { body, name }
}

fn with(mut body: Value, pointer: &str, name: &str, value: Value) -> Mutation {
    body.pointer_mut(pointer).unwrap().as_object_mut().unwrap().insert(name.to_owned(), value);
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

/// Adds a field that no vendor has to one of the objects of a body.
pub(in crate::wire) fn add_field(body: &mut Value, at: Index) {
    let all = objects(body, &[]);
    let pointer: &String = at.get(&all);
    if let Some(Value::Object(fields)) = body.pointer_mut(pointer) {
        fields.insert(UNKNOWN_FIELD.to_owned(), 7.into());
    }
}

/// Removes one of the values of a body, or replaces it.
pub(in crate::wire) fn change(body: &mut Value, at: Index, value: Option<Value>) {
    let all = pointers(body, &[]);
    let pointer = at.get(&all);
    match value {
        None => {
            remove(body, pointer);
        }
        Some(value) => {
            if let Some(changed) = body.pointer_mut(pointer) {
                *changed = value;
            }
        }
    }
}

/// Removes the value at a pointer. Returns whether there was one. The body itself stays.
fn remove(body: &mut Value, pointer: &str) -> bool {
    let Some((parent, name)) = pointer.rsplit_once('/') else { return false };
    match body.pointer_mut(parent) {
        Some(Value::Object(fields)) => fields.shift_remove(name).is_some(),
        Some(Value::Array(all)) => {
            let index = name.parse::<usize>().ok().filter(|index| *index < all.len());
            index.map(|index| all.remove(index)).is_some()
        }
        Some(_) | None => false,
    }
}

/// Returns the pointers to the objects of a body, without those to and in the fields in `opaque`.
fn objects(body: &Value, opaque: &[&str]) -> Vec<String> {
    let mut all = pointers(body, opaque);
    all.retain(|pointer| {
        let name = pointer.rsplit('/').next().unwrap_or_default();
        !opaque.contains(&name) && body.pointer(pointer).is_some_and(Value::is_object)
    });
    all
}

/// Returns the pointers to a value and to all values inside of it, without those in the fields in `opaque`. Names are not
/// escaped: a pointer may lead to no value.
fn pointers(value: &Value, opaque: &[&str]) -> Vec<String> {
    fn add(value: &Value, pointer: &str, opaque: &[&str], all: &mut Vec<String>) {
        let inner: Vec<(String, &Value)> = match value {
            Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), value)).collect(),
            Value::Array(values) => {
                values.iter().enumerate().map(|(index, value)| (index.to_string(), value)).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
        };
        let is_opaque = pointer.rsplit('/').next().is_some_and(|name| opaque.contains(&name));
        all.push(pointer.to_owned());
        if !is_opaque {
            for (name, value) in inner {
                add(value, &format!("{pointer}/{name}"), opaque, all);
            }
        }
    }
    let mut all = Vec::new();
    add(value, "", opaque, &mut all);
    all
}

/// Returns random JSON whose names and texts are mostly these.
pub(in crate::wire) fn json(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,6}".prop_map(Value::from),
        prop::sample::select(names).prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        let fields = prop::collection::vec((prop::sample::select(names), inner.clone()), 0..6);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            fields.prop_map(|fields| {
                fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
            }),
        ]
    })
}
