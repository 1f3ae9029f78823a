//! The columns of a table of results, and the cells of a row.
//!
//! They are the fields of the input, the answers of the steps, and how the item ended. They depend only on the options and
//! the [`RowLayout`], so every row has the same. The columns of the results keep their names: a field of the input with
//! the name of one is called `input.NAME`, and the answer of a step with the name of another one `answer.NAME`.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io;

use serde_json::{Map, Value, json};

use super::format::OutputColumns;
use super::layout::{OtherFields, RowLayout, StepColumns};
use super::line::{Line, StepLine, seconds};
use crate::types::{InputFields, StepName};

/// The fields that are not columns of their own.
const MORE: &str = "more";

/// Whether the answers are simulated. A simulated run recognizes real answers by it, which it never replaces.
const SIMULATED: &str = "simulated";

/// What a column contains.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Field(String),
    /// The fields of the item without a column, as an object.
    OtherFields,
    Answer(StepName),
    AnswerField(StepName, String),
    /// The fields of the answer without a column, as an object, or an answer that is none.
    OtherAnswerFields(StepName),
    Status,
    /// The class of the error, its step and its message as one text.
    Error,
    ErrorClass,
    ErrorStep,
    ErrorMessage,
    Key,
    Line,
    Simulated,
    Provider(StepName),
    Model(StepName),
    InputTokens,
    OutputTokens,
    Cost,
    Duration,
    Attempts,
}

#[derive(Debug)]
struct Column {
    name: String,
    content: Content,
}

/// The value of a cell.
#[derive(Debug)]
pub(super) enum Cell<'a> {
    /// A value of the item or of an answer, or one of the line. Null is an empty cell.
    Value(Cow<'a, Value>),
    /// A measured number.
    Float(f64),
}

/// The columns of a table.
#[derive(Debug)]
pub(super) struct Columns {
    columns: Vec<Column>,
    /// The fields of the input that have a column.
    fields: HashSet<String>,
    steps: Vec<StepColumns>,
    /// Whether each field of an item must have a column of its own.
    is_closed: bool,
}

impl Columns {
    pub(super) fn new(choice: OutputColumns, layout: &RowLayout) -> Self {
        let no_fields = InputFields::default();
        let fields = match choice {
            OutputColumns::Minimal => &no_fields,
            OutputColumns::Default | OutputColumns::Full => layout.fields.as_ref().unwrap_or(&no_fields),
        };
        let mut columns = result_columns(choice, layout, fields);
        let names: HashSet<String> = fields.names.iter().cloned().collect();
        let mut taken: HashSet<String> = columns.iter().map(|column| column.name.clone()).collect();
        // In the table of a real run, a column of this name would show its answers as simulated.
        taken.insert(SIMULATED.to_owned());
        let of_fields = fields.names.iter().map(|field| {
            let mut name = field.clone();
            while taken.contains(&name) || name != *field && names.contains(&name) {
                name.insert_str(0, "input.");
            }
            taken.insert(name.clone());
            Column { name, content: Content::Field(field.clone()) }
        });
        let of_fields: Vec<Column> = of_fields.collect();
        drop(columns.splice(..0, of_fields));
        let has_fields = match choice {
            OutputColumns::Minimal => false,
            OutputColumns::Default | OutputColumns::Full => layout.fields.is_some(),
        };
        let is_closed = has_fields && !fields.has_more;
        Self { columns, fields: names, steps: layout.steps.clone(), is_closed }
    }

    /// Returns the names of the columns.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    /// Fails if the item of a line has a field that is in no column.
    pub(super) fn check(&self, line: &Line) -> io::Result<()> {
        if !self.is_closed {
            return Ok(());
        }
        let fields = line.item.as_ref().and_then(Value::as_object).into_iter().flatten();
        match fields.map(|(name, _)| name).find(|name| !self.fields.contains(*name)) {
            None => Ok(()),
            Some(name) => Err(io::Error::other(format!(
                "item {} has the field {name:?}, and the table has no column for it: the input has changed",
                line.key
            ))),
        }
    }

    /// Returns the cells of a line, one for each column.
    pub(super) fn cells<'a>(&'a self, line: &'a Line) -> impl Iterator<Item = Cell<'a>> {
        self.columns.iter().map(|column| self.cell(&column.content, line))
    }

    fn cell<'a>(&self, content: &Content, line: &'a Line) -> Cell<'a> {
        let error = line.error.as_ref();
        let of_step =
            |name: &StepName| line.steps.iter().find(|(step, _)| step == name).map(|(_, step)| step);
        let provider = |step: &StepLine| step.provider.as_ref().map(ToString::to_string);
        let model = |step: &StepLine| step.model.as_ref().map(ToString::to_string);
        let answer = |step: &StepName| line.answers.get(step.as_str());
        Cell::Value(Cow::Owned(match content {
            Content::Field(name) => return borrowed(line.item.as_ref().and_then(|item| item.get(name))),
            Content::Answer(step) => return borrowed(answer(step)),
            Content::AnswerField(step, field) => {
                return borrowed(answer(step).and_then(|answer| answer.get(field)));
            }
            Content::OtherFields => others(line.item.as_ref(), |name| self.fields.contains(name)),
            Content::OtherAnswerFields(step) => {
                let columns = self.steps.iter().find(|columns| columns.step == *step);
                let has_column = |name: &String| columns.is_some_and(|columns| columns.fields.contains(name));
                match answer(step) {
                    // An answer of an earlier version of the pipeline.
                    Some(answer) if !answer.is_object() => return borrowed(Some(answer)),
                    answer => others(answer, has_column),
                }
            }
            Content::Status => json!(line.status.as_str()),
            Content::Error => json!(error.map(|error| {
                let step = error.step.as_ref().filter(|_| self.steps.len() > 1);
                let step = step.map_or_else(String::new, |step| format!(" in step {step}"));
                format!("{}{step}: {}", error.class, error.message)
            })),
            Content::ErrorClass => json!(error.map(|error| error.class.as_str())),
            Content::ErrorStep => json!(error.and_then(|error| error.step.as_ref())),
            Content::ErrorMessage => json!(error.map(|error| &error.message)),
            Content::Key => json!(line.key),
            Content::Line => json!(line.line),
            Content::Simulated => json!(line.simulated),
            Content::Provider(step) => json!(of_step(step).and_then(provider)),
            Content::Model(step) => json!(of_step(step).and_then(model)),
            Content::InputTokens => json!(line.tokens.input),
            Content::OutputTokens => json!(line.tokens.output),
            Content::Cost => match line.cost {
                Some(cost) => return Cell::Float(cost.dollars()),
                None => Value::Null,
            },
            Content::Duration => return Cell::Float(seconds(line.duration)),
            Content::Attempts => json!(line.attempts),
        }))
    }
}

fn borrowed(value: Option<&Value>) -> Cell<'_> {
    Cell::Value(value.map_or(Cow::Owned(Value::Null), Cow::Borrowed))
}

/// Returns the fields of an object that have no column; null without any.
fn others(object: Option<&Value>, has_column: impl Fn(&String) -> bool) -> Value {
    let fields = object.and_then(Value::as_object).into_iter().flatten();
    let others: Map<String, Value> = fields
        .filter(|(name, _)| !has_column(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if others.is_empty() { Value::Null } else { Value::Object(others) }
}

/// Returns the columns besides the fields of the input.
fn result_columns(choice: OutputColumns, layout: &RowLayout, fields: &InputFields) -> Vec<Column> {
    let is_full = choice == OutputColumns::Full;
    let column = |name: &str, content: Content| Column { name: name.to_owned(), content };
    let mut before = Vec::new();
    let mut after = Vec::new();
    match choice {
        OutputColumns::Minimal => {
            before.push(column("key", Content::Key));
            if layout.is_simulated {
                after.push(column(SIMULATED, Content::Simulated));
            }
        }
        OutputColumns::Default | OutputColumns::Full => {
            if fields.has_more {
                before.push(column(MORE, Content::OtherFields));
            }
            after.push(column("status", Content::Status));
            after.push(column("error", Content::Error));
            if is_full {
                after.push(column("error_class", Content::ErrorClass));
                after.push(column("error_step", Content::ErrorStep));
                after.push(column("error_message", Content::ErrorMessage));
            }
            if is_full || !fields.has_key {
                after.push(column("key", Content::Key));
            }
            if is_full {
                after.push(column("line", Content::Line));
            }
            if is_full || layout.is_simulated {
                after.push(column(SIMULATED, Content::Simulated));
            }
        }
    }
    if is_full {
        for StepColumns { step, .. } in &layout.steps {
            after.push(column(&format!("{step}.provider"), Content::Provider(step.clone())));
            after.push(column(&format!("{step}.model"), Content::Model(step.clone())));
        }
        after.push(column("input_tokens", Content::InputTokens));
        after.push(column("output_tokens", Content::OutputTokens));
        after.push(column("cost_usd", Content::Cost));
        after.push(column("duration_seconds", Content::Duration));
        after.push(column("attempts", Content::Attempts));
    }
    let mut taken: HashSet<String> = before.iter().chain(&after).map(|column| column.name.clone()).collect();
    for columns in &layout.steps {
        for (name, content) in answer_columns(columns, is_full) {
            let mut name = name;
            while !taken.insert(name.clone()) {
                name.insert_str(0, "answer.");
            }
            before.push(Column { name, content });
        }
    }
    before.extend(after);
    before
}

/// Returns the columns of the answer of a step, without the guarantee that no other column has the name.
fn answer_columns(columns: &StepColumns, is_full: bool) -> Vec<(String, Content)> {
    let StepColumns { step, fields, others } = columns;
    if fields.is_empty() {
        return vec![(step.to_string(), Content::Answer(step.clone()))];
    }
    let of_field =
        |field: &String| (format!("{step}.{field}"), Content::AnswerField(step.clone(), field.clone()));
    let mut all: Vec<_> = fields.iter().map(of_field).collect();
    let has_others = match others {
        OtherFields::Forbidden => false,
        // They are rare: only a table with everything has a column for them.
        OtherFields::Unspecified => is_full,
        OtherFields::Allowed => true,
    };
    if has_others {
        all.push((format!("{step}.{MORE}"), Content::OtherAnswerFields(step.clone())));
    }
    all
}
