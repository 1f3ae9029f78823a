//! Reads what a run has written: results as JSON lines or as CSV, and rejects.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

/// Rows of CSV by what they say, each with the line of which it is a part.
pub(crate) type Rows = BTreeMap<Vec<String>, Value>;

/// The cells of a CSV row that say what became of an item, made of its line.
pub(crate) fn cells(line: &Value) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let error = &line["error"];
    let mut cells = vec![
        text(&line["key"]),
        text(&line["status"]),
        text(&line["practice"]),
        text(&error["class"]),
        text(&error["step"]),
        text(&error["message"]),
    ];
    for (name, step) in line["steps"].as_object().into_iter().flatten() {
        cells.push(format!(
            "{name}={} of {}/{}",
            text(&line["answers"][name]),
            text(&step["provider"]),
            text(&step["model"])
        ));
    }
    cells
}

/// Reads JSON lines; one that was being written when the process died has no end and is left out.
pub(crate) fn json_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).unwrap_or(Value::Null)).collect()
}

/// Reads CSV, and finds the line of each row among `rows`. A row of none has its cells in place of a key.
pub(crate) fn csv_lines(path: &Path, rows: &Rows) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(whole.as_bytes());
    let header: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let steps: Vec<&str> = header.iter().filter_map(|name| name.strip_suffix(".provider")).collect();
    let records = reader.records().map(|record| {
        let record = record.unwrap();
        let cell = |name: &str| {
            let at = header.iter().position(|column| column == name);
            at.and_then(|at| record.get(at)).unwrap_or("?").to_owned()
        };
        let head = ["key", "status", "practice", "error_class", "error_step", "error_message"];
        let mut cells: Vec<String> = head.map(&cell).into();
        for step in &steps {
            let provider = cell(&format!("{step}.provider"));
            let model = cell(&format!("{step}.model"));
            cells.push(format!("{step}={} of {provider}/{model}", cell(step)));
        }
        let is_whole = record.len() == header.len();
        let Some(line) = rows.get(&cells).filter(|_| is_whole) else {
            return json!({ "row": record.iter().collect::<Vec<_>>(), "header": header });
        };
        let mut line = line.clone();
        line["line"] = json!(cell("line").parse::<u64>().unwrap());
        line
    });
    records.collect()
}
