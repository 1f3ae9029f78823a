//! Lays a result out in the columns of a CSV file.
//!
//! The columns follow from the pipeline's steps alone, so every line has the same ones:
//! `key,line,status,practice`, one per step for its answer, `error_class,error_step,error_message`,
//! two per step for its `.provider` and `.model`, `input_tokens,output_tokens,cost_usd,seconds,attempts`.
//! A step with the name of another column has its answer in `answer.NAME`. JSON answers are JSON
//! text; no answer is an empty cell. Text is written as it is, also where it begins with `=`: a
//! spreadsheet that takes it for a formula has to be told not to.

use std::io;

use serde_json::Value;

use super::line::{Line, StepLine, seconds};
use crate::types::StepName;

const BEFORE: [&str; 4] = ["key", "line", "status", "practice"];
const ERROR: [&str; 3] = ["error_class", "error_step", "error_message"];
const AFTER: [&str; 5] = ["input_tokens", "output_tokens", "cost_usd", "seconds", "attempts"];

pub(super) struct Columns {
    steps: Vec<StepName>,
}

impl Columns {
    pub(super) fn new(steps: &[StepName]) -> Self {
        Self { steps: steps.to_vec() }
    }

    /// Returns the header row.
    pub(super) fn header(&self) -> io::Result<Vec<u8>> {
        let lanes = self.steps.iter().flat_map(|step| [format!("{step}.provider"), format!("{step}.model")]);
        let tail: Vec<String> =
            ERROR.map(String::from).into_iter().chain(lanes).chain(AFTER.map(String::from)).collect();
        let taken = |name: &String| BEFORE.contains(&name.as_str()) || tail.contains(name);
        let answers = self.steps.iter().map(|step| {
            let mut name = step.to_string();
            while taken(&name) {
                name.insert_str(0, "answer.");
            }
            name
        });
        let names = BEFORE.map(String::from).into_iter().chain(answers).chain(tail.clone());
        let mut out = Vec::new();
        write_row(&mut out, names)?;
        Ok(out)
    }

    /// Appends the row of `line`.
    pub(super) fn write(&self, line: &Line, out: &mut Vec<u8>) -> io::Result<()> {
        let before =
            [line.key.to_string(), line.line.to_string(), line.status.to_string(), line.practice.to_string()];
        let answers =
            self.steps.iter().map(|step| line.answers.get(step.as_str()).map(cell).unwrap_or_default());
        let error = line.error.as_ref();
        let error = [
            error.map(|error| error.class.to_string()),
            error.and_then(|error| error.step.as_ref()).map(ToString::to_string),
            error.map(|error| error.message.clone()),
        ];
        let lanes = self.steps.iter().flat_map(|name| {
            let step = line.steps.iter().find(|(step, _)| step == name).map(|(_, step)| step);
            let provider = |step: &StepLine| step.provider.as_ref().map(ToString::to_string);
            let model = |step: &StepLine| step.model.as_ref().map(ToString::to_string);
            [step.and_then(provider), step.and_then(model)]
        });
        let after = [
            line.tokens.input.to_string(),
            line.tokens.output.to_string(),
            line.cost.map(|cost| cost.dollars().to_string()).unwrap_or_default(),
            seconds(line.took).to_string(),
            line.attempts.to_string(),
        ];
        let optional = error.into_iter().chain(lanes).map(Option::unwrap_or_default);
        write_row(out, before.into_iter().chain(answers).chain(optional).chain(after))
    }
}

fn cell(answer: &Value) -> String {
    match answer {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => answer.to_string(),
    }
}

fn write_row(out: &mut Vec<u8>, cells: impl Iterator<Item = String>) -> io::Result<()> {
    let mut writer = csv::WriterBuilder::new().buffer_capacity(1024).flexible(true).from_writer(out);
    writer.write_record(cells.map(String::into_bytes))?;
    writer.flush()
}
