//! Compares templates with what Python's jinja2 makes of them.

use super::*;

/// What Python's jinja2 makes of templates; `tests/data/python/generate.py` writes it.
#[derive(serde::Deserialize)]
struct Golden {
    item: serde_json::Value,
    rendered: Vec<Rendered>,
}

#[derive(serde::Deserialize)]
struct Rendered {
    template: String,
    text: String,
}

/// Templates whose text differs, and why.
const DIFFERENT: [&str; 1] = [
    // The engine escapes the slash too, and writes other names for quotes. A prompt is not HTML.
    "{{ item.html | e }}",
];

#[test]
#[cfg_attr(not(feature = "exact-numbers"), ignore = "long whole numbers are read as floats")]
fn templates_write_what_they_write_in_python() {
    let golden = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/python/jinja2.json"));
    let golden: Golden = serde_json::from_str(golden).unwrap();
    let mut differences = Vec::new();
    for Rendered { template, text } in golden.rendered {
        let filled = fill(&template, golden.item.clone());
        if filled.as_ref() != Ok(&text) && !DIFFERENT.contains(&template.as_str()) {
            differences.push(format!("{template}\n  jinja2: {text:?}\n  here:   {filled:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
