//! What the columns of a table of results are made from, besides the options: the fields of the input and the steps.
//!
//! Plain data. It is stored with a run, so that its results have the same columns later.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::types::{InputFields, StepName};

/// Most columns of one step. The answer of a step with more fields is one column.
const MAX_FIELDS_PER_STEP: usize = 500;

/// The fields of the input and the steps of the pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RowLayout {
    /// The fields of the input; `None` if they are not known.
    #[serde(default)]
    pub fields: Option<InputFields>,
    /// The steps, in the order of the pipeline.
    pub steps: Vec<StepColumns>,
    /// Whether answers may be simulated. A table then says so in each row.
    pub is_simulated: bool,
}

impl RowLayout {
    /// Creates the layout of a pipeline with these steps.
    pub fn new(steps: Vec<StepColumns>) -> Self {
        Self { fields: None, steps, is_simulated: false }
    }

    /// Sets the fields of the input.
    #[must_use]
    pub fn with_fields(self, fields: InputFields) -> Self {
        Self { fields: Some(fields), ..self }
    }

    /// Adds a column for what else the answer of a step may be, if it was of another form before. Items that finished
    /// before keep their answers until they are processed again.
    #[must_use]
    pub(crate) fn with_earlier(mut self, earlier: &Self) -> Self {
        for columns in &mut self.steps {
            let before = earlier.steps.iter().find(|before| before.step == columns.step);
            if before.is_some_and(|before| before != columns) && !columns.fields.is_empty() {
                columns.others = OtherFields::Allowed;
            }
        }
        self
    }

    /// Sets whether answers may be simulated.
    #[must_use]
    pub fn simulated(self, is_simulated: bool) -> Self {
        Self { is_simulated, ..self }
    }
}

/// The columns of the answer of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct StepColumns {
    /// The step.
    pub step: StepName,
    /// The fields of its answer, each of which is a column; empty if the answer is one column.
    pub fields: Vec<String>,
    /// Whether the answer may have other fields.
    pub others: OtherFields,
}

/// Whether an answer may have fields that its schema does not name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OtherFields {
    /// The schema forbids them.
    Forbidden,
    /// The schema does not say.
    Unspecified,
    /// The schema asks for them.
    Allowed,
}

impl StepColumns {
    /// Creates the column of a step whose answer is one value.
    pub fn new(step: StepName) -> Self {
        Self { step, fields: Vec::new(), others: OtherFields::Forbidden }
    }

    /// Creates the columns of a step whose answer has this JSON Schema: one for each field of an object.
    pub fn of_schema(step: StepName, schema: &Value) -> Self {
        let Some(object) = object_schema(schema) else { return Self::new(step) };
        let Some(Value::Object(properties)) = object.get("properties") else { return Self::new(step) };
        if properties.is_empty() || properties.len() > MAX_FIELDS_PER_STEP {
            return Self::new(step);
        }
        let others = match object.get("additionalProperties") {
            Some(Value::Bool(false)) => OtherFields::Forbidden,
            Some(_) => OtherFields::Allowed,
            None if object.contains_key("patternProperties") => OtherFields::Allowed,
            None => OtherFields::Unspecified,
        };
        Self { step, fields: properties.keys().cloned().collect(), others }
    }
}

/// Returns the schema of an object, which may be a definition that the schema refers to; `None` if values of other
/// types are valid too.
fn object_schema(schema: &Value) -> Option<&Map<String, Value>> {
    let object = schema.as_object()?;
    let object = match object.get("$ref").and_then(Value::as_str) {
        Some(reference) => schema.pointer(reference.strip_prefix('#')?)?.as_object()?,
        None => object,
    };
    // One alternative of several may have fields that another has not.
    let has_alternatives =
        ["anyOf", "oneOf", "allOf", "if", "$ref"].iter().any(|key| object.contains_key(*key));
    (object.get("type") == Some(&"object".into()) && !has_alternatives).then_some(object)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(schema: &Value) -> (Vec<String>, OtherFields) {
        let columns = StepColumns::of_schema("s".into(), schema);
        (columns.fields, columns.others)
    }

    #[test]
    fn the_fields_of_an_object_are_columns_in_the_order_of_the_schema() {
        let properties = json!({ "name": { "type": "string" }, "age": { "type": "integer" } });
        let mut schema = json!({ "type": "object", "properties": properties });
        let names = vec!["name".to_owned(), "age".to_owned()];
        assert_eq!(fields(&schema), (names.clone(), OtherFields::Unspecified));
        schema["additionalProperties"] = json!(false);
        assert_eq!(fields(&schema), (names.clone(), OtherFields::Forbidden));
        schema["additionalProperties"] = json!({ "type": "string" });
        assert_eq!(fields(&schema), (names.clone(), OtherFields::Allowed));
        let referred = json!({ "$ref": "#/$defs/reply", "$defs": { "reply": schema } });
        assert_eq!(fields(&referred), (names, OtherFields::Allowed));
    }

    #[test]
    fn an_answer_that_had_another_form_has_a_column_for_it() {
        let properties = json!({ "name": { "type": "string" } });
        let closed = json!({ "type": "object", "properties": properties, "additionalProperties": false });
        let now = RowLayout::new(vec![StepColumns::of_schema("s".into(), &closed)]);
        let text = RowLayout::new(vec![StepColumns::new("s".into())]);
        assert_eq!(now.clone().with_earlier(&now), now);
        assert_eq!(now.clone().with_earlier(&RowLayout::default()), now);
        assert_eq!(now.clone().with_earlier(&text).steps[0].others, OtherFields::Allowed);
        assert_eq!(text.clone().with_earlier(&now), text, "a column for the whole answer has any answer");
    }

    #[test]
    fn the_answer_is_one_column_if_it_need_not_be_an_object_with_known_fields() {
        let properties = json!({ "name": { "type": "string" } });
        for schema in [
            json!({ "type": "array", "items": { "type": "object", "properties": properties } }),
            json!({ "type": ["object", "null"], "properties": properties }),
            json!({ "type": "object" }),
            json!({ "type": "object", "properties": {} }),
            json!({ "type": "object", "properties": properties, "anyOf": [{ "required": ["name"] }] }),
            json!({ "$ref": "#/$defs/none" }),
            json!(true),
        ] {
            assert_eq!(fields(&schema), (Vec::new(), OtherFields::Forbidden), "{schema}");
        }
    }
}
