//! The settings of a step on the command line: with a pipeline in place of its own, without one a pipeline of one step.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use anyhow::{bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::Config;
use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::files::read_text_at_most;
use crate::pipeline::{Overrides, Pipeline, SchemaOverride, short_schema};
use crate::types::Fingerprint;

use super::progress_text::counted;
use super::shell_word::shell_word;

/// The largest file that `@FILE` may name.
const MAX_TEXT_BYTES: u64 = 4 << 20;

/// The longest prompt that may be meant as the name of a file.
const MAX_FILE_NAME_BYTES: usize = 1_000;

/// Settings of steps.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Step")]
pub(super) struct StepArgs {
    /// The template of the prompt, such as "Classify: {{ item.text }}", or @FILE with it. It replaces that of PIPELINE;
    /// without PIPELINE it makes a pipeline of one step, `answer`.
    #[arg(long, value_name = "TEMPLATE", value_parser = text)]
    pub(super) prompt: Option<String>,
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) answer: AnswerArgs,
    /// Most requests in flight at each provider [default: the limits of the configuration].
    #[arg(long, value_name = "REQUESTS")]
    #[serde(skip)]
    pub(super) concurrency: Option<NonZeroU32>,
}

/// The settings of answers, which a single request has, too.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Step")]
pub(super) struct AnswerArgs {
    /// The system prompt, a template if the prompt is one, or @FILE with it.
    #[arg(long, value_name = "TEMPLATE", value_parser = text)]
    pub(super) system: Option<String>,
    /// The only answers, separated by commas, such as "bug,question,praise".
    #[arg(long, value_name = "ANSWERS", value_delimiter = ',', value_parser = one_choice, conflicts_with = "schema")]
    pub(super) choice: Option<Vec<String>>,
    /// The schema of the answer: a file, the JSON Schema itself, or its fields such as "name, age int, tags list".
    #[arg(long, value_name = "SCHEMA", value_parser = schema)]
    pub(super) schema: Option<SchemaOverride>,
    /// The only model: PROVIDER/MODEL, or the name of a model whose vendor has its key in the environment, such as
    /// claude-haiku-4-5 [default: the routes of the pipeline, else the default route].
    #[arg(long, value_name = "MODEL")]
    pub(super) model: Option<String>,
    /// The temperature.
    #[arg(long, value_name = "NUMBER", value_parser = temperature, allow_negative_numbers = true)]
    pub(super) temperature: Option<f64>,
    /// Most output tokens of an answer.
    #[arg(long, value_name = "TOKENS")]
    pub(super) max_tokens: Option<NonZeroU32>,
}

impl StepArgs {
    /// Returns the settings in place of those of the pipeline.
    pub(super) fn overrides(&self, config: &Config) -> Overrides {
        let AnswerArgs { system, choice, schema, model, temperature, max_tokens } = &self.answer;
        let mut overrides = Overrides::default();
        overrides.prompt.clone_from(&self.prompt);
        overrides.system.clone_from(system);
        overrides.choice.clone_from(choice);
        overrides.schema.clone_from(schema);
        // The route of the only model is the default one.
        overrides.route = model.as_ref().and_then(|_| config.default_route().cloned());
        overrides.temperature = *temperature;
        overrides.max_tokens = *max_tokens;
        overrides
    }

    /// Returns a note if a prompt is the same for every item; `None` if each depends on the item.
    pub(super) fn constant_prompt_note(&self, pipeline: &Pipeline) -> Option<String> {
        let constant = pipeline.constant_prompts();
        let first = constant.first()?;
        let mut note = first.to_string();
        if constant.len() > 1 {
            let others = counted(constant.len() as u64 - 1, "other step");
            note.push_str(&format!("; the same is true of {others}"));
        }
        let file = self.prompt.as_deref().map(str::trim).filter(|prompt| is_file_name(prompt));
        if let Some(file) = file {
            let argument = shell_word(&format!("@{file}"));
            note.push_str(&format!("; {file} is a file, and --prompt {argument} reads it"));
        }
        Some(note)
    }

    /// Returns what distinguishes runs with these settings from others of the same pipeline; `None` without any.
    pub(super) fn identity(&self) -> Option<String> {
        let plain = Self { concurrency: None, ..self.clone() };
        if plain == Self::default() {
            return None;
        }
        // Serializing texts and numbers cannot fail.
        let text = serde_json::to_vec(&plain).unwrap_or_default();
        Some(Fingerprint::of([text.as_slice()]).to_string())
    }

    /// Returns the same settings with the paths that they have from every directory.
    pub(super) fn with_absolute_paths(mut self) -> Self {
        if let Some(SchemaOverride::File(path)) = &mut self.answer.schema
            && let Ok(absolute) = std::path::absolute(&path)
        {
            *path = absolute;
        }
        self
    }
}

/// Refuses a command for items that has no step, or whose step cannot be meant.
pub(super) fn check_step(step: &StepArgs, pipeline: Option<&Path>, items: &Path) -> anyhow::Result<()> {
    ensure!(
        pipeline.is_some() || step.prompt.is_some(),
        "there is no prompt: name a pipeline, or write the prompt, as in --prompt \"Classify: {{{{ item.text }}}}\""
    );
    if let Some([only]) = step.answer.choice.as_deref() {
        bail!(
            "--choice has one answer, {only:?}, so nothing is to be chosen; write the answers with commas between them"
        );
    }
    let Some(pipeline) = pipeline else { return Ok(()) };
    let shown = pipeline.display();
    if !pipeline.exists() && shown.to_string().contains("{{") {
        bail!("{shown:?} is no pipeline, which is a file; write a prompt after --prompt");
    }
    let is_like_items =
        pipeline.extension().is_some_and(|own| items.extension() == Some(own) && own != "toml");
    ensure!(
        !is_like_items,
        "{shown} is no pipeline, which is a TOML file; a pattern of items needs quotes, as in --items \"scans/*.txt\""
    );
    Ok(())
}

/// Returns that there is no such pipeline, if that is so: it says more than that the configuration is incomplete.
pub(super) fn missing_pipeline(pipeline: Option<&Path>) -> Option<Diagnostics> {
    let path = pipeline?;
    let error = std::fs::metadata(path).err()?;
    let message = format!("cannot read the pipeline {}: {error}", path.display());
    Some(Diagnostics(vec![Diagnostic::new(message)]))
}

/// Returns whether a prompt is the name of a file.
fn is_file_name(prompt: &str) -> bool {
    prompt.len() <= MAX_FILE_NAME_BYTES && !prompt.contains('\n') && Path::new(prompt).is_file()
}

/// Returns the text of an argument: the argument itself, or the content of the file after `@`.
fn text(argument: &str) -> Result<String, String> {
    let Some(path) = argument.strip_prefix('@') else { return Ok(argument.to_owned()) };
    if path.is_empty() {
        return Err("name a file after @".to_owned());
    }
    let path = Path::new(path);
    let shown = path.display();
    let text = read_text_at_most(path, MAX_TEXT_BYTES);
    let text = text.map_err(|error| format!("cannot read {shown}: {error}"))?;
    // The line end with which an editor ends a file is no part of the prompt.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

fn one_choice(argument: &str) -> Result<String, String> {
    match argument.trim() {
        "" => Err("an answer is empty; write the answers with commas between them".to_owned()),
        answer => Ok(answer.to_owned()),
    }
}

fn temperature(argument: &str) -> Result<f64, String> {
    match argument.trim().parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        Ok(_) | Err(_) => Err("a temperature is a number such as 0 or 0.7".to_owned()),
    }
}

/// Returns a schema for its argument. What is no JSON and no file is the short form, unless it looks like the path of a
/// file.
fn schema(argument: &str) -> Result<SchemaOverride, String> {
    let trimmed = argument.trim();
    if trimmed.starts_with('{') {
        return match serde_json::from_str::<Value>(trimmed) {
            Ok(schema) => Ok(SchemaOverride::Inline(schema)),
            Err(error) => Err(format!("the JSON Schema cannot be read: {error}")),
        };
    }
    let path = Path::new(argument);
    if path.is_file() {
        return Ok(SchemaOverride::File(PathBuf::from(path)));
    }
    let looks_like_path =
        path.extension().is_some_and(|extension| extension == "json") || argument.contains(['/', '\\']);
    if looks_like_path {
        return Err(format!("there is no file {argument}"));
    }
    short_schema(argument).map(SchemaOverride::Inline).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_json_a_file_or_its_short_form() {
        let inline = schema(" {\"type\": \"object\"} ").unwrap();
        assert!(matches!(inline, SchemaOverride::Inline(_)), "{inline:?}");
        let short = schema("name, age int").unwrap();
        let SchemaOverride::Inline(short) = short else { panic!("{short:?}") };
        assert_eq!(short["properties"]["age"]["type"], "integer");
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        assert_eq!(schema(path).unwrap(), SchemaOverride::File(path.into()));
        for (argument, words) in [
            ("reply.schema.json", "there is no file"),
            ("no/such", "there is no file"),
            ("{", "cannot be read"),
            ("age itn", "did you mean"),
            ("", "no fields"),
        ] {
            assert!(schema(argument).unwrap_err().contains(words), "{argument:?}: {:?}", schema(argument));
        }
    }

    #[test]
    fn a_text_may_be_in_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "Say \"{{ item.text }}\"\r\n").unwrap();
        assert_eq!(text(&format!("@{}", file.path().display())).unwrap(), "Say \"{{ item.text }}\"");
        assert_eq!(text("a@b").unwrap(), "a@b");
        assert!(text("@").unwrap_err().contains("name a file"));
        assert!(text("@/no/such/file").unwrap_err().contains("cannot read /no/such/file"));
    }

    #[test]
    fn a_step_that_cannot_be_meant_is_refused() {
        let items = Path::new("items.csv");
        let check = |step: &StepArgs, pipeline: Option<&str>| {
            check_step(step, pipeline.map(Path::new), items).map_err(|error| error.to_string())
        };
        let prompt = StepArgs { prompt: Some("x".into()), ..StepArgs::default() };
        assert_eq!(check(&prompt, None), Ok(()));
        assert_eq!(check(&StepArgs::default(), Some("p.toml")), Ok(()));
        let mut one = prompt.clone();
        one.answer.choice = Some(vec!["bug|question".into()]);
        for (step, pipeline, words) in [
            (&StepArgs::default(), None, "--prompt \"Classify: {{ item.text }}\""),
            (&one, None, "with commas"),
            (&StepArgs::default(), Some("Say {{ item.text }}"), "write a prompt after --prompt"),
            (&prompt, Some("other.csv"), "needs quotes"),
        ] {
            assert!(check(step, pipeline).unwrap_err().contains(words), "{pipeline:?}");
        }
    }

    #[test]
    fn the_identity_has_every_setting_except_the_concurrency() {
        assert_eq!(StepArgs::default().identity(), None);
        let concurrency = StepArgs { concurrency: NonZeroU32::new(4), ..StepArgs::default() };
        assert_eq!(concurrency.identity(), None);
        let prompt = StepArgs { prompt: Some("x".into()), ..StepArgs::default() };
        let cold = AnswerArgs { temperature: Some(0.0), ..AnswerArgs::default() };
        let cold = StepArgs { answer: cold, ..prompt.clone() };
        assert!(prompt.identity().is_some());
        assert_ne!(prompt.identity(), cold.identity());
        let saved: StepArgs = serde_json::from_value(serde_json::to_value(&cold).unwrap()).unwrap();
        assert_eq!(saved.identity(), cold.identity());
    }
}
