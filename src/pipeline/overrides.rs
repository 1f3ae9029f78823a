//! Settings in place of those of a pipeline, such as those of a command line.
//!
//! They are written into the text of the pipeline. So there is one pipeline for everything that reads its text: errors,
//! the stored run, and its changes.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use toml_edit::{Array, DocumentMut, Item, TableLike, value};

use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::types::RouteName;

use super::definition::Pipeline;
use super::{Defaults, FileUse};

/// The name of the step of a pipeline that has only overrides, and of that pipeline.
const STEP: &str = "answer";

/// What errors name a pipeline without a file.
const NO_FILE: &str = "the prompt";

/// Settings in place of those of a pipeline. Without a pipeline they make one of one step, `answer`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Overrides {
    /// The template of the prompt.
    pub prompt: Option<String>,
    /// The template of the system prompt, for every step with a prompt.
    pub system: Option<String>,
    /// The only answers.
    pub choice: Option<Vec<String>>,
    /// The schema of the answer.
    pub schema: Option<SchemaOverride>,
    /// The route, for every step with a prompt, or for all steps if none has one.
    pub route: Option<RouteName>,
    /// The temperature, for every step with a prompt.
    pub temperature: Option<f64>,
    /// Most output tokens of a response, for every step with a prompt.
    pub max_tokens: Option<NonZeroU32>,
}

/// A schema in place of that of a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SchemaOverride {
    /// That of a file. A relative path is relative to the working directory.
    File(PathBuf),
    /// The schema itself.
    Inline(Value),
}

/// Settings that do not fit the pipeline.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OverrideError {
    /// There is neither a pipeline nor a prompt.
    #[error("there is neither a pipeline nor a prompt")]
    NoPrompt,
    /// It is not known which step is meant.
    #[error(
        "the pipeline has {steps} steps with a prompt, so the {setting} of one of them can only be set in its file"
    )]
    SeveralSteps {
        /// The setting.
        setting: &'static str,
        /// How many steps have a prompt.
        steps: usize,
    },
    /// The steps make embeddings.
    #[error("no step of the pipeline has a prompt, so none has a {setting}: they make embeddings")]
    OnlyEmbeddings {
        /// The setting.
        setting: &'static str,
    },
    /// The schema cannot be written in the pipeline.
    #[error(
        "the schema contains null, which a pipeline cannot contain; put the schema into a file, and name that"
    )]
    NullInSchema,
    /// The path of the schema cannot be written in the pipeline.
    #[error("the path of the schema is not text: {0}")]
    SchemaPath(String),
}

impl Overrides {
    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns `text`, the text of a pipeline, with these settings; without a text, that of a pipeline with one step.
    fn apply(&self, text: Option<&str>) -> Result<String, OverrideError> {
        let Some(text) = text else { return self.new_text() };
        // The parser of pipelines reports the errors of a text that is no TOML, and those of steps that are no tables.
        let Ok(mut document) = text.parse::<DocumentMut>() else { return Ok(text.to_owned()) };
        self.write(document.get_mut("step"))?;
        Ok(document.to_string())
    }

    fn new_text(&self) -> Result<String, OverrideError> {
        if self.prompt.is_none() {
            return Err(OverrideError::NoPrompt);
        }
        let text = format!("name = \"{STEP}\"\n\n[[step]]\nname = \"{STEP}\"\nprompt = \"\"\n");
        self.apply(Some(&text))
    }

    fn write(&self, steps: Option<&mut Item>) -> Result<(), OverrideError> {
        let mut steps: Vec<&mut dyn TableLike> = match steps {
            Some(Item::ArrayOfTables(tables)) => {
                tables.iter_mut().map(|table| table as &mut dyn TableLike).collect()
            }
            Some(Item::Value(toml_edit::Value::Array(tables))) => {
                let tables = tables.iter_mut().filter_map(toml_edit::Value::as_inline_table_mut);
                tables.map(|table| table as &mut dyn TableLike).collect()
            }
            Some(_) | None => return Ok(()),
        };
        if steps.is_empty() {
            return Ok(());
        }
        let has_prompt = |step: &dyn TableLike| !step.contains_key("embed");
        let with_prompt = steps.iter().filter(|step| has_prompt(&***step)).count();
        let of_one = [
            ("prompt", self.prompt.is_some()),
            ("choice", self.choice.is_some()),
            ("schema", self.schema.is_some()),
        ];
        let of_each = [
            ("system prompt", self.system.is_some()),
            ("temperature", self.temperature.is_some()),
            ("max_tokens", self.max_tokens.is_some()),
        ];
        let set = |settings: &[(&'static str, bool)]| {
            settings.iter().find(|(_, is_set)| *is_set).map(|(setting, _)| *setting)
        };
        match (with_prompt, set(&of_one), set(&of_each)) {
            (0, Some(setting), _) | (0, None, Some(setting)) => {
                return Err(OverrideError::OnlyEmbeddings { setting });
            }
            (2.., Some(setting), _) => {
                return Err(OverrideError::SeveralSteps { setting, steps: with_prompt });
            }
            _ => {}
        }
        for step in &mut steps {
            let step = &mut **step;
            if has_prompt(step) {
                self.write_step(step)?;
            } else if let (0, Some(route)) = (with_prompt, &self.route) {
                step.insert("route", value(route.as_str()));
            }
        }
        Ok(())
    }

    fn write_step(&self, step: &mut dyn TableLike) -> Result<(), OverrideError> {
        let texts = [
            ("prompt", self.prompt.as_deref()),
            ("system", self.system.as_deref()),
            ("route", self.route.as_ref().map(RouteName::as_str)),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                step.insert(key, value(text));
            }
        }
        if let Some(choice) = &self.choice {
            step.remove("schema");
            step.insert("choice", value(choice.iter().map(String::as_str).collect::<Array>()));
        }
        if let Some(schema) = &self.schema {
            step.remove("choice");
            step.insert("schema", schema.to_toml()?);
        }
        if let Some(temperature) = self.temperature {
            step.insert("temperature", value(temperature));
        }
        if let Some(max_tokens) = self.max_tokens {
            step.insert("max_tokens", value(i64::from(max_tokens.get())));
        }
        Ok(())
    }
}

impl SchemaOverride {
    fn to_toml(&self) -> Result<Item, OverrideError> {
        match self {
            Self::File(path) => {
                // A path in a pipeline is relative to its folder.
                let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                let text = absolute.to_str();
                text.map(value).ok_or_else(|| OverrideError::SchemaPath(path.display().to_string()))
            }
            Self::Inline(schema) => toml_value(schema).map(Item::Value).ok_or(OverrideError::NullInSchema),
        }
    }
}

/// Returns a value as TOML; `None` if it contains null.
fn toml_value(from: &Value) -> Option<toml_edit::Value> {
    Some(match from {
        Value::Null => return None,
        Value::Bool(truth) => (*truth).into(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(whole), _) => whole.into(),
            (None, Some(float)) => float.into(),
            (None, None) => return None,
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(values) => values.iter().map(toml_value).collect::<Option<Array>>()?.into(),
        Value::Object(fields) => {
            let mut table = toml_edit::InlineTable::new();
            for (name, field) in fields {
                table.insert(name, toml_value(field)?);
            }
            table.into()
        }
    })
}

impl Pipeline {
    /// Loads a pipeline from its file, with `overrides` in place of its settings; without a file, the pipeline that they
    /// make.
    ///
    /// # Errors
    /// All errors of the pipeline, or that the overrides do not fit it.
    #[doc(hidden)]
    pub fn load_with(
        path: Option<&Path>,
        overrides: &Overrides,
        defaults: &Defaults,
        routes: &[RouteName],
    ) -> Result<Self, Diagnostics> {
        let Some(path) = path else {
            let text = overrides.apply(None).map_err(|error| of_override(&error))?;
            return Self::parse(NO_FILE, &text, Path::new(""), defaults, routes);
        };
        if overrides.is_empty() {
            return Self::load(path, defaults, routes);
        }
        let file = path.display().to_string();
        let text = super::load::read(path)?;
        let text = overrides.apply(Some(&text)).map_err(|error| of_override(&error))?;
        let mut pipeline =
            Self::parse(&file, &text, path.parent().unwrap_or(Path::new("")), defaults, routes)?;
        pipeline.protect(FileUse::Pipeline, path);
        Ok(pipeline)
    }
}

fn of_override(error: &OverrideError) -> Diagnostics {
    Diagnostics(vec![Diagnostic::new(error.to_string())])
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use serde_json::json;

    use super::*;

    const TWO_STEPS: &str = "\
# A comment stays.
name = 'email'

[[step]]
name = 'summary'   # this too
prompt = 'Summarise {{ item.text }}'
temperature = 0.5

[[step]]
name = 'reply'
prompt = 'Reply to {{ summary }}'

[[step]]
name = 'vector'
embed = '{{ item.text }}'
";

    fn routes() -> [RouteName; 2] {
        ["only", "other"].map(RouteName::from)
    }

    fn parse(text: &str) -> Pipeline {
        let defaults = Defaults { route: Some("only".into()), ..Defaults::default() };
        let parsed = Pipeline::parse("p", text, Path::new(""), &defaults, &routes());
        parsed.unwrap_or_else(|diagnostics| panic!("{text}\n{diagnostics}"))
    }

    fn prompt() -> Overrides {
        Overrides {
            prompt: Some("Say \"{{ item.text }}\"\nin '''one''' \\ word".into()),
            ..Overrides::default()
        }
    }

    #[test]
    fn a_prompt_alone_is_a_pipeline_of_one_step() {
        let text = prompt().apply(None).unwrap();
        let pipeline = parse(&text);
        assert_eq!((pipeline.name(), pipeline.steps().len()), ("answer", 1));
        assert_eq!(pipeline.steps()[0].name.as_str(), "answer");
        let document: toml::Table = toml::from_str(&text).unwrap();
        assert_eq!(document["step"][0]["prompt"].as_str(), prompt().prompt.as_deref(), "every character");
        assert_eq!(Overrides::default().apply(None), Err(OverrideError::NoPrompt));
    }

    #[test]
    fn settings_of_every_step_with_a_prompt_replace_those_of_the_file() {
        let overrides = Overrides {
            system: Some("Be brief".into()),
            route: Some("other".into()),
            temperature: Some(0.0),
            max_tokens: NonZeroU32::new(9),
            ..Overrides::default()
        };
        let text = overrides.apply(Some(TWO_STEPS)).unwrap();
        assert!(text.contains("# A comment stays.") && text.contains("# this too"), "{text}");
        let document: toml::Table = toml::from_str(&text).unwrap();
        for step in [0, 1] {
            let step = &document["step"][step];
            assert_eq!(step["system"].as_str(), Some("Be brief"));
            assert_eq!((step["route"].as_str(), step["max_tokens"].as_integer()), (Some("other"), Some(9)));
            assert_eq!(step["temperature"].as_float(), Some(0.0));
        }
        let vector = document["step"][2].as_table().unwrap();
        assert_eq!(vector.keys().collect::<Vec<_>>(), ["name", "embed"], "embeddings have none of these");
        parse(&text);
    }

    #[test]
    fn the_setting_of_one_step_is_refused_if_it_is_not_known_which_step_is_meant() {
        let error = prompt().apply(Some(TWO_STEPS)).unwrap_err();
        assert_eq!(error, OverrideError::SeveralSteps { setting: "prompt", steps: 2 });
        let only_vectors = "name = 'v'\n[[step]]\nname = 'vector'\nembed = '{{ item.text }}'\n";
        let error = prompt().apply(Some(only_vectors)).unwrap_err();
        assert_eq!(error, OverrideError::OnlyEmbeddings { setting: "prompt" });
        let temperature = Overrides { temperature: Some(1.0), ..Overrides::default() };
        let error = temperature.apply(Some(only_vectors)).unwrap_err();
        assert_eq!(error, OverrideError::OnlyEmbeddings { setting: "temperature" });
        let route = Overrides { route: Some("other".into()), ..Overrides::default() };
        assert!(route.apply(Some(only_vectors)).unwrap().contains("route = \"other\""));
    }

    #[test]
    fn choices_and_a_schema_replace_each_other() {
        let choice = Overrides { choice: Some(vec!["a \"b\"".into(), "c".into()]), ..prompt() };
        let of_file = "name = 'p'\nstep = [{ name = 's', prompt = 'x', schema = { type = 'object' } }]\n";
        let text = choice.apply(Some(of_file)).unwrap();
        let document: toml::Table = toml::from_str(&text).unwrap();
        let step = document["step"][0].as_table().unwrap();
        assert!(!step.contains_key("schema"), "{text}");
        assert_eq!(step["choice"].as_array().unwrap()[0].as_str(), Some("a \"b\""));
        parse(&text);
        let schema =
            json!({ "type": "object", "properties": { "a.b": { "type": "integer", "minimum": 1.5 } } });
        let schema = Overrides { schema: Some(SchemaOverride::Inline(schema)), ..Overrides::default() };
        let text = schema.apply(Some(&text)).unwrap();
        let document: toml::Table = toml::from_str(&text).unwrap();
        assert!(!document["step"][0].as_table().unwrap().contains_key("choice"), "{text}");
        assert_eq!(document["step"][0]["schema"]["properties"]["a.b"]["minimum"].as_float(), Some(1.5));
        parse(&text);
        let null = Overrides { schema: Some(SchemaOverride::Inline(json!({ "enum": [null] }))), ..prompt() };
        assert_eq!(null.apply(None), Err(OverrideError::NullInSchema));
    }

    #[test]
    fn a_text_that_is_no_pipeline_is_left_to_its_parser() {
        for text in ["name = ", "step = 7\n", "name = 'p'\n", "step = [7]\n"] {
            assert_eq!(prompt().apply(Some(text)).unwrap(), text);
        }
    }
}
