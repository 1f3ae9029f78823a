//! Compiles a pipeline's templates and conditions once, and renders them for each item.
//!
//! An undefined name is an error, not an empty text. A template cannot read files, and its time and memory are
//! limited: it is [rewritten](super::rewrite) before it is compiled, and [metered](super::meter) while it is
//! rendered. A panic of the engine fails only the item.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use minijinja::value::{Object, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, escape_formatter};
use serde_json::Value as Json;

use crate::diagnostics::nearest;
use crate::types::{Class, Failure, StepName};

use super::meter::{self, Allowance, BoundedWriter, Excess, MeterGuard};
use super::rewrite::{self, Rewritten, SourceMap};
use super::symbols::{CompileError, References, SymbolInfo};
use super::values;
use super::{filters, operators};

/// Limit on the engine's instructions for one template. The meter limits what costs more than an instruction.
const MAX_INSTRUCTIONS: u64 = 10_000_000;

/// Longest template code that an error message shows, in bytes.
const MAX_SHOWN_CODE_BYTES: usize = 100;

/// Functions that every template can call.
pub(crate) const FUNCTIONS: [&str; 3] = ["range", "dict", "namespace"];

/// A pipeline's templates, by name.
#[derive(Debug)]
pub(crate) struct Templates {
    env: Environment<'static>,
    sources: BTreeMap<String, (Box<str>, SourceMap)>,
    /// What is the same for every item, of each template.
    constants: BTreeMap<String, ConstantPart>,
}

/// What of a template is the same for every item, and what it takes from the item and from steps.
#[derive(Debug)]
struct ConstantPart {
    beginning: Box<str>,
    /// The variables that the template does not define itself. Without any, all of the rendered text is the same.
    variables: Box<[String]>,
}

/// Why a template was not rendered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RenderError {
    /// It needs more than the allowance but a larger allowance may suffice, or it was cancelled.
    AllowanceExceeded,
    /// The error, with its line if that is known.
    Failed(String),
    /// It uses a value that does not exist.
    Undefined {
        /// The path of the value, such as `item.sender.name`.
        path: String,
        /// The error, with its line.
        reason: String,
    },
}

/// Options for rendering a template.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RenderOptions {
    pub(crate) allowance: Allowance,
    /// Longest text, in bytes.
    pub(crate) max_bytes: usize,
    /// Whether `none` is rendered as an empty text.
    pub(crate) none_is_empty: bool,
}

impl Templates {
    pub(crate) fn new() -> Self {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_fuel(Some(MAX_INSTRUCTIONS));
        env.set_auto_reload(false);
        // Errors have their position only in debug mode.
        env.set_debug(true);
        // `debug` would render all variables, without a limit on the size.
        env.remove_global("debug");
        env.set_formatter(|out, state, value| {
            if value.is_none() && meter::none_is_empty() {
                return Ok(());
            }
            let size = match value.as_str() {
                Some(text) => text.len(),
                None if value.as_object().is_some() => {
                    usize::try_from(values::extent(value)?.size).unwrap_or(usize::MAX)
                }
                None => 8,
            };
            meter::charge(size)?;
            escape_formatter(out, state, value)
        });
        operators::install(&mut env);
        filters::install(&mut env);
        Self { env, sources: BTreeMap::new(), constants: BTreeMap::new() }
    }

    /// Compiles a template.
    ///
    /// # Errors
    /// All errors of the template.
    pub(super) fn add(
        &mut self,
        name: &str,
        source: &str,
        symbols: &dyn SymbolInfo,
    ) -> Result<References, Vec<CompileError>> {
        self.compile(name, source, rewrite::template(source, symbols)?)
    }

    /// Compiles a condition: an expression that is true or false.
    ///
    /// # Errors
    /// All errors of the condition.
    pub(super) fn add_condition(
        &mut self,
        name: &str,
        source: &str,
        symbols: &dyn SymbolInfo,
    ) -> Result<References, Vec<CompileError>> {
        self.compile(name, source, rewrite::condition(source, symbols)?)
    }

    fn compile(
        &mut self,
        name: &str,
        source: &str,
        rewritten: Rewritten,
    ) -> Result<References, Vec<CompileError>> {
        let Rewritten { text, source_map, references, constant_beginning } = rewritten;
        self.env.add_template_owned(name.to_owned(), text).map_err(|error| {
            let range = error.range().and_then(|range| source_map.source_of(&range));
            vec![CompileError { range, ..CompileError::of(&error) }]
        })?;
        self.sources.insert(name.to_owned(), (source.into(), source_map));
        let variables = references.variables.keys().cloned().collect();
        let constant = ConstantPart { beginning: constant_beginning.into(), variables };
        self.constants.insert(name.to_owned(), constant);
        Ok(references)
    }

    /// Returns the text with which every rendered text of a template begins.
    pub(super) fn constant_beginning(&self, name: &str) -> &str {
        self.constants.get(name).map_or("", |constant| &constant.beginning)
    }

    /// Returns the source of a template whose rendered text is the same for every item.
    pub(super) fn constant_source(&self, name: &str) -> Option<&str> {
        self.constants.get(name).filter(|constant| constant.variables.is_empty())?;
        self.sources.get(name).map(|(source, _)| &**source)
    }

    /// Returns the source of a template.
    pub(super) fn source(&self, name: &str) -> &str {
        self.sources.get(name).map_or("", |(source, _)| source)
    }

    /// Returns the variables that a template does not define itself.
    pub(super) fn variables(&self, name: &str) -> &[String] {
        self.constants.get(name).map_or(&[], |constant| &constant.variables)
    }

    /// Renders a template.
    ///
    /// # Errors
    /// Why it was not rendered.
    pub(crate) fn render(
        &self,
        name: &str,
        scope: &Value,
        options: RenderOptions,
    ) -> Result<String, RenderError> {
        let meter = MeterGuard::start(options.allowance, options.none_is_empty);
        let mut out = BoundedWriter::new(options.max_bytes);
        let result = catch_unwind(AssertUnwindSafe(|| {
            let template = self.env.get_template(name)?;
            template.render_captured_to(scope.clone(), &mut out).map(drop)
        }));
        match (result, meter.excess()) {
            (_, Some(Excess::Cancelled)) => Err(RenderError::AllowanceExceeded),
            (_, Some(Excess::Steps | Excess::Memory | Excess::Time)) if options.allowance.is_below_max() => {
                Err(RenderError::AllowanceExceeded)
            }
            (_, Some(excess)) => Err(RenderError::Failed(excess.message().to_owned())),
            (Ok(Ok(())), None) => String::from_utf8(out.text)
                .map_err(|_| RenderError::Failed("the text is not UTF-8".to_owned())),
            (Ok(Err(error)), None) => Err(self.describe_error(name, &error, scope)),
            (Err(_), None) => Err(RenderError::Failed("the template engine panicked".to_owned())),
        }
    }

    fn describe_error(&self, name: &str, error: &Error, scope: &Value) -> RenderError {
        let position = self.sources.get(name).and_then(|(source, source_map)| {
            let range = source_map.source_of(&error.range()?)?;
            let line = source.get(..range.start)?.matches('\n').count() + 1;
            Some((line, source.get(range)?))
        });
        let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<Error>());
        let message = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        let message = match cause.and_then(Error::detail) {
            Some(cause) => format!("{message}: {cause}"),
            None => message,
        };
        let is_missing = error.kind() == ErrorKind::UndefinedError;
        let undefined = |path: &str, reason: String| RenderError::Undefined { path: path.to_owned(), reason };
        match position {
            // The engine names the undefined value within a path.
            Some((line, _)) if is_missing && names_missing_value(&message) => {
                let path = message.split('`').nth(1).unwrap_or_default();
                undefined(path, format!("line {line}: {message}{}", suggestion(path, scope)))
            }
            Some((line, code)) if is_missing && code.len() <= MAX_SHOWN_CODE_BYTES => {
                undefined(code, format!("line {line}: `{code}` is undefined{}", suggestion(code, scope)))
            }
            Some((line, code)) if (1..=MAX_SHOWN_CODE_BYTES).contains(&code.len()) => {
                RenderError::Failed(format!("line {line}: {message}, in `{code}`"))
            }
            Some((line, _)) => RenderError::Failed(format!("line {line}: {message}")),
            None => RenderError::Failed(message),
        }
    }

    /// Returns whether a condition is true.
    ///
    /// # Errors
    /// Why it could not be evaluated.
    pub(crate) fn evaluate_condition(
        &self,
        name: &str,
        scope: &Value,
        allowance: Allowance,
    ) -> Result<bool, RenderError> {
        let options = RenderOptions { allowance, max_bytes: 1, none_is_empty: false };
        self.render(name, scope, options).map(|text| text == "1")
    }
}

/// Returns whether the detail of an undefined value contains its name. The engine reports the name only in this
/// text; tests check the wording.
fn names_missing_value(detail: &str) -> bool {
    detail.contains("` is undefined")
}

/// Maximum number of an item's fields that an undefined name is compared with.
const MAX_COMPARED_FIELDS: usize = 1_000;

/// Maximum number of fields that an error lists.
const MAX_LISTED_FIELDS: usize = 10;

/// Longest name of a field that an error shows, in characters.
const MAX_SHOWN_NAME_CHARS: usize = 60;

/// Returns `; did you mean ..?` with the field that the last name of a path such as `item.nmae` probably means, or else
/// the fields that there are. Empty if the value that should have the field is no map, or has none.
fn suggestion(path: &str, scope: &Value) -> String {
    let find = || {
        let (parent, wrong) = last_name(path)?;
        let view = scope.downcast_object_ref::<StepScope>()?;
        let mut names = parent.split('.');
        let root = view.json(names.next()?)?;
        let fields = names.try_fold(root, |value, name| value.get(name))?.as_object()?;
        let known = fields.keys().take(MAX_COMPARED_FIELDS).map(String::as_str);
        Some(match nearest(wrong, known) {
            Some(name) => format!("; did you mean `{}`?", shown_name(name)),
            None if fields.is_empty() => String::new(),
            None => {
                let owner = if parent == "item" { "the item".to_owned() } else { format!("`{parent}`") };
                let listed = fields.keys().take(MAX_LISTED_FIELDS);
                let listed: Vec<String> = listed.map(|name| format!("`{}`", shown_name(name))).collect();
                let more = match fields.len() - listed.len() {
                    0 => String::new(),
                    more => format!(", and {more} more"),
                };
                format!("; {owner} has {}{more}", listed.join(", "))
            }
        })
    };
    find().unwrap_or_default()
}

/// Returns the last name of a path such as `item.name` or `item["name"]`, and the path before it.
fn last_name(path: &str) -> Option<(&str, &str)> {
    let subscript = |end: &str, start: &str| path.strip_suffix(end)?.rsplit_once(start);
    let is_name = |name: &str| name.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
    let attribute = || path.rsplit_once('.').filter(|(_, name)| is_name(name));
    subscript("\"]", "[\"").or_else(|| subscript("']", "['")).or_else(attribute)
}

/// Returns the name of a field for an error.
fn shown_name(name: &str) -> String {
    match name.char_indices().nth(MAX_SHOWN_NAME_CHARS) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

/// Longest reason in a failure message, in bytes.
const MAX_REASON_BYTES: usize = 1000;

/// Creates the failure of an item for which a step's template cannot be rendered.
pub(crate) fn template_failure(step: &StepName, key: &str, reason: &str) -> Failure {
    // The reason may contain a value of the item, of any length.
    let shown = &reason[..reason.floor_char_boundary(MAX_REASON_BYTES)];
    let reason = if shown.len() < reason.len() { &format!("{shown}…") } else { reason };
    Failure::new(Class::TemplateError, format!("the `{key}` of step `{step}` cannot be rendered: {reason}"))
}

/// Holds an item while its templates are rendered.
pub(crate) trait ItemHolder: Send + Sync {
    /// Returns the item.
    fn item(&self) -> &Json;
}

impl std::fmt::Debug for dyn ItemHolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ItemHolder")
    }
}

impl ItemHolder for Json {
    fn item(&self) -> &Json {
        self
    }
}

/// The variables of one item's templates: the item, and the answers of its steps as they are recorded.
#[derive(Debug)]
pub(crate) struct Scope {
    names: Arc<[StepName]>,
    item: Arc<dyn ItemHolder>,
    /// The item whose fields errors name, if it is another: `item` may have placeholders for fields that it lacks.
    original: Option<Arc<dyn ItemHolder>>,
    /// The item as a template value, converted on first use.
    item_value: OnceLock<Value>,
    answers: Box<[OnceLock<Arc<Json>>]>,
    answer_values: Box<[OnceLock<Value>]>,
}

impl Scope {
    pub(crate) fn new(names: Arc<[StepName]>, item: Arc<dyn ItemHolder>) -> Self {
        let answers = names.iter().map(|_| OnceLock::new()).collect();
        let answer_values = names.iter().map(|_| OnceLock::new()).collect();
        Self { names, item, original: None, item_value: OnceLock::new(), answers, answer_values }
    }

    /// Sets the item whose fields errors name.
    pub(crate) fn with_original(self, original: Arc<dyn ItemHolder>) -> Self {
        Self { original: Some(original), ..self }
    }

    /// Records a step's answer. A second answer is ignored.
    pub(crate) fn set_answer(&self, step: usize, answer: &Json) {
        if let Some(slot) = self.answers.get(step) {
            // Discarded: only the first answer counts, and `ItemState` records no second one.
            let _ = slot.set(Arc::new(answer.clone()));
        }
    }

    /// Returns the variables of a step that needs the steps `needs`: the item and their answers.
    pub(crate) fn view(self: &Arc<Self>, needs: &[usize]) -> Value {
        Value::from_object(StepScope { scope: self.clone(), needs: needs.into() })
    }

    fn item(&self) -> Value {
        cached_value(&self.item_value, self.item.item())
    }

    fn answer_value(&self, step: usize) -> Option<Value> {
        Some(cached_value(self.answer_values.get(step)?, self.answers.get(step)?.get()?))
    }
}

/// Returns the value in `slot`, converted from `json` on first use. If the conversion exceeds the allowance, the
/// value is an error wherever it is used.
fn cached_value(slot: &OnceLock<Value>, json: &Json) -> Value {
    if let Some(value) = slot.get() {
        return value.clone();
    }
    match values::from_json(json) {
        Ok(value) => slot.get_or_init(|| value).clone(),
        Err(error) => Value::from(error),
    }
}

/// The part of a [`Scope`] that is visible to one step.
#[derive(Debug)]
struct StepScope {
    scope: Arc<Scope>,
    needs: Box<[usize]>,
}

impl StepScope {
    /// Returns the step of this name, if it is visible.
    fn step(&self, name: &str) -> Option<usize> {
        let has_name = |step: &usize| self.scope.names.get(*step).is_some_and(|step| step.as_str() == name);
        self.needs.iter().copied().find(has_name)
    }

    /// Returns the value of a variable as JSON.
    fn json(&self, name: &str) -> Option<&Json> {
        if name == "item" {
            return Some(self.scope.original.as_ref().unwrap_or(&self.scope.item).item());
        }
        self.scope.answers.get(self.step(name)?)?.get().map(|answer| &**answer)
    }
}

impl Object for StepScope {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        if key == "item" {
            return Some(self.scope.item());
        }
        self.scope.answer_value(self.step(key)?)
    }
}

#[cfg(test)]
mod tests;
