//! Reads the output of a run: results as JSON lines or as CSV, and rejects.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

/// CSV rows by their cells, each with the result line from which it was made.
pub(crate) type Rows = BTreeMap<Vec<String>, Value>;

/// Returns the cells of the CSV row of a result line that describe the outcome of its item.
pub(crate) fn row_cells(line: &Value) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let error = &line["error"];
    let mut row_cells = vec![
        text(&line["key"]),
        text(&line["status"]),
        text(&line["simulated"]),
        text(&error["class"]),
        text(&error["step"]),
        text(&error["message"]),
    ];
    for (name, step) in line["steps"].as_object().into_iter().flatten() {
        row_cells.push(format!(
            "{name}={} of {}/{}",
            answer_text(&line["answers"][name]),
            text(&step["provider"]),
            text(&step["model"])
        ));
    }
    row_cells
}

/// Returns an answer as text. An object is written as its fields, as its columns show them.
fn answer_text(answer: &Value) -> String {
    match answer {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Object(fields) => {
            fields_text(fields.iter().map(|(name, value)| (name.clone(), value.to_string())).collect())
        }
        other => other.to_string(),
    }
}

fn fields_text(fields: BTreeMap<String, String>) -> String {
    fields.into_iter().map(|(name, value)| format!("{name}={value};")).collect()
}

/// Returns the answer of a step in a row: its cell, or the fields in the cells of its columns.
fn answer_in_row(step: &str, header: &[String], cell: impl Fn(&str) -> String) -> String {
    if header.iter().any(|name| name == step) {
        return cell(step);
    }
    let mut fields = BTreeMap::new();
    for name in header {
        let Some(field) = name.strip_prefix(step).and_then(|rest| rest.strip_prefix('.')) else { continue };
        match (field, cell(name)) {
            ("provider" | "model", _) => {}
            (_, value) if value.is_empty() => {}
            ("more", others) => match serde_json::from_str(&others) {
                Ok(Value::Object(others)) => {
                    fields.extend(others.into_iter().map(|(name, value)| (name, value.to_string())));
                }
                Ok(_) | Err(_) => return others,
            },
            (field, value) => drop(fields.insert(field.to_owned(), value)),
        }
    }
    fields_text(fields)
}

/// Reads JSON lines. An incomplete last line, from a process that was killed, is left out.
pub(crate) fn read_json_lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    complete.lines().map(|line| serde_json::from_str(line).unwrap_or(Value::Null)).collect()
}

/// Reads CSV, and finds the result line of each row in `rows`. An unknown row is returned with its cells and
/// no key.
pub(crate) fn read_csv_lines(path: &Path, rows: &Rows) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(complete.as_bytes());
    let header: Vec<String> = reader.headers().unwrap().iter().map(str::to_owned).collect();
    let steps: Vec<&str> = header.iter().filter_map(|name| name.strip_suffix(".provider")).collect();
    let records = reader.records().map(|record| {
        let record = record.unwrap();
        let cell = |name: &str| {
            let position = header.iter().position(|column| column == name);
            position.and_then(|position| record.get(position)).unwrap_or("?").to_owned()
        };
        let columns = ["key", "status", "simulated", "error_class", "error_step", "error_message"];
        let mut row_cells: Vec<String> = columns.map(&cell).into();
        for step in &steps {
            let provider = cell(&format!("{step}.provider"));
            let model = cell(&format!("{step}.model"));
            let answer = answer_in_row(step, &header, cell);
            row_cells.push(format!("{step}={answer} of {provider}/{model}"));
        }
        let is_complete = record.len() == header.len();
        let Some(line) = rows.get(&row_cells).filter(|_| is_complete) else {
            return json!({ "row": record.iter().collect::<Vec<_>>(), "header": header });
        };
        let mut line = line.clone();
        line["line"] = json!(cell("line").parse::<u64>().unwrap());
        line
    });
    records.collect()
}
