//! Compiles a pipeline's templates and conditions once, and fills them for each item.
//!
//! A name that an item lacks is an error, not an empty text. A template has no way to read a file, to run for ever
//! or to take memory: it is [rewritten](super::rewrite) before it is compiled, and [metered](super::meter) while it
//! is filled. A panic of the engine fails the item and nothing else.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use minijinja::value::{Object, Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, escape_formatter};
use serde_json::Value as Json;

use crate::document::nearest;
use crate::types::{Class, Failure, StepName};

use super::facts::{Facts, Flaw, Mentions};
use super::meter::{self, Allowance, Bounded, Excess, Metered};
use super::rewrite::{self, Origins, Rewritten};
use super::values;
use super::{filters, operators};

/// Instructions that one filling may take. The meter counts what costs more than an instruction.
const FUEL: u64 = 10_000_000;

/// Bytes of code that an error shows.
const LONGEST_CODE: usize = 100;

/// Functions that every template knows.
pub(crate) const FUNCTIONS: [&str; 3] = ["range", "dict", "namespace"];

/// A pipeline's templates, by name.
#[derive(Debug)]
pub(crate) struct Templates {
    env: Environment<'static>,
    sources: BTreeMap<String, (Box<str>, Origins)>,
}

/// Why a template was not filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unfilled {
    /// It needs more than the allowance, and a larger one may do; or it was cancelled.
    TooLong,
    /// What it needed and did not find, and on which line.
    Failed(String),
}

/// How a template is filled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filled {
    pub(crate) allowance: Allowance,
    /// Bytes that the text may have.
    pub(crate) most: usize,
    /// Whether `none` is written as nothing.
    pub(crate) none_is_empty: bool,
}

impl Templates {
    pub(crate) fn new() -> Self {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_fuel(Some(FUEL));
        env.set_auto_reload(false);
        // So that errors name their place.
        env.set_debug(true);
        // It shows everything that a template knows, at any length.
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
            meter::take(size)?;
            escape_formatter(out, state, value)
        });
        operators::install(&mut env);
        filters::install(&mut env);
        Self { env, sources: BTreeMap::new() }
    }

    /// Adds a template.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(super) fn add(&mut self, name: &str, source: &str, facts: &dyn Facts) -> Result<Mentions, Vec<Flaw>> {
        self.compile(name, source, rewrite::template(source, facts)?)
    }

    /// Adds a condition: an expression that is true or false.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(super) fn add_condition(
        &mut self,
        name: &str,
        source: &str,
        facts: &dyn Facts,
    ) -> Result<Mentions, Vec<Flaw>> {
        self.compile(name, source, rewrite::condition(source, facts)?)
    }

    fn compile(&mut self, name: &str, source: &str, rewritten: Rewritten) -> Result<Mentions, Vec<Flaw>> {
        let Rewritten { text, origins, mentions } = rewritten;
        self.env.add_template_owned(name.to_owned(), text).map_err(|error| {
            let range = error.range().and_then(|range| origins.of(&range));
            vec![Flaw { range, ..Flaw::of(&error) }]
        })?;
        self.sources.insert(name.to_owned(), (source.into(), origins));
        Ok(mentions)
    }

    /// Fills a template.
    ///
    /// # Errors
    /// Why it was not filled.
    pub(crate) fn fill(&self, name: &str, scope: &Value, how: Filled) -> Result<String, Unfilled> {
        let metered = Metered::begin(how.allowance, how.none_is_empty);
        let mut out = Bounded::new(how.most);
        let filled = catch_unwind(AssertUnwindSafe(|| {
            let template = self.env.get_template(name)?;
            template.render_captured_to(scope.clone(), &mut out).map(drop)
        }));
        match (filled, metered.excess()) {
            (_, Some(Excess::Cancelled)) => Err(Unfilled::TooLong),
            (_, Some(Excess::Steps | Excess::Memory | Excess::Time)) if how.allowance.is_brief() => {
                Err(Unfilled::TooLong)
            }
            (_, Some(excess)) => Err(Unfilled::Failed(excess.message().to_owned())),
            (Ok(Ok(())), None) => {
                String::from_utf8(out.text).map_err(|_| Unfilled::Failed("the text is not UTF-8".to_owned()))
            }
            (Ok(Err(error)), None) => Err(Unfilled::Failed(self.explain(name, &error, scope))),
            (Err(_), None) => Err(Unfilled::Failed("the template engine panicked".to_owned())),
        }
    }

    fn explain(&self, name: &str, error: &Error, scope: &Value) -> String {
        let place = self.sources.get(name).and_then(|(source, origins)| {
            let range = origins.of(&error.range()?)?;
            let line = source.get(..range.start)?.matches('\n').count() + 1;
            Some((line, source.get(range)?))
        });
        let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<Error>());
        let told = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        let told = match cause.and_then(Error::detail) {
            Some(cause) => format!("{told}: {cause}"),
            None => told,
        };
        let is_missing = error.kind() == ErrorKind::UndefinedError;
        match place {
            // The engine names what was missing within a path.
            Some((line, _)) if is_missing && names_what_is_missing(&told) => {
                let path = told.split('`').nth(1).unwrap_or_default();
                format!("line {line}: {told}{}", meant(path, scope))
            }
            Some((line, code)) if is_missing && code.len() <= LONGEST_CODE => {
                format!("line {line}: `{code}` is undefined{}", meant(code, scope))
            }
            Some((line, code)) if (1..=LONGEST_CODE).contains(&code.len()) => {
                format!("line {line}: {told}, in `{code}`")
            }
            Some((line, _)) => format!("line {line}: {told}"),
            None => told,
        }
    }

    /// Returns whether a condition holds.
    ///
    /// # Errors
    /// Why that cannot be known.
    pub(crate) fn holds(&self, name: &str, scope: &Value, allowance: Allowance) -> Result<bool, Unfilled> {
        let how = Filled { allowance, most: 1, none_is_empty: false };
        self.fill(name, scope, how).map(|text| text == "1")
    }
}

/// Returns whether the detail of an undefined value names it. The engine says that in its text alone; the tests pin it.
fn names_what_is_missing(detail: &str) -> bool {
    detail.contains("` is undefined")
}

/// Most fields of an item that a misspelt one is compared with.
const MAX_FIELDS: usize = 1_000;

/// Returns which field was probably meant by the last name of a path such as `item.nmae`; nothing where no field is
/// alike.
fn meant(path: &str, scope: &Value) -> String {
    let find = || {
        let (parent, wrong) = path.rsplit_once('.')?;
        let is_name = |name: &str| name.chars().all(|letter| letter.is_alphanumeric() || letter == '_');
        let mut value = scope.clone();
        for name in parent.split('.') {
            value = value.get_attr(name).ok().filter(|_| is_name(name))?;
        }
        let is_object = is_name(wrong) && value.kind() == ValueKind::Map;
        let fields: Vec<Value> = value.try_iter().ok().filter(|_| is_object)?.take(MAX_FIELDS).collect();
        nearest(wrong, fields.iter().filter_map(Value::as_str)).map(str::to_owned)
    };
    find().map_or_else(String::new, |name| format!("; did you mean `{name}`?"))
}

/// Most bytes of a reason that a message holds.
const MAX_WHY: usize = 1000;

/// Makes the failure of an item that lacks what a step's template needs.
pub(crate) fn failure(step: &StepName, key: &str, why: &str) -> Failure {
    // It may hold an item's value.
    let shown = &why[..why.floor_char_boundary(MAX_WHY)];
    let why = if shown.len() < why.len() { &format!("{shown}…") } else { why };
    Failure::new(Class::TemplateError, format!("the `{key}` of step `{step}` cannot be filled: {why}"))
}

/// Holds an item for as long as its templates are filled.
pub(crate) trait Input: Send + Sync {
    /// Returns the item.
    fn item(&self) -> &Json;
}

impl std::fmt::Debug for dyn Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Input")
    }
}

impl Input for Json {
    fn item(&self) -> &Json {
        self
    }
}

/// What the templates of one item know: the item, and the answers as they come.
#[derive(Debug)]
pub(crate) struct Scope {
    names: Arc<[StepName]>,
    item: Arc<dyn Input>,
    /// The item as templates see it, made when the first one asks.
    seen: OnceLock<Value>,
    answers: Box<[OnceLock<Arc<Json>>]>,
    known: Box<[OnceLock<Value>]>,
}

impl Scope {
    pub(crate) fn new(names: Arc<[StepName]>, item: Arc<dyn Input>) -> Self {
        let answers = names.iter().map(|_| OnceLock::new()).collect();
        let known = names.iter().map(|_| OnceLock::new()).collect();
        Self { names, item, seen: OnceLock::new(), answers, known }
    }

    /// Makes a step's answer known; the first one stays.
    pub(crate) fn answer(&self, step: usize, answer: &Json) {
        if let Some(slot) = self.answers.get(step) {
            // A second answer is refused by the walk before it comes here.
            let _ = slot.set(Arc::new(answer.clone()));
        }
    }

    /// Returns what a step sees that needs the steps `needs`: the item and their answers.
    pub(crate) fn view(self: &Arc<Self>, needs: &[usize]) -> Value {
        Value::from_object(View { scope: self.clone(), needs: needs.into() })
    }

    fn item(&self) -> Value {
        lazily(&self.seen, self.item.item())
    }

    fn known(&self, step: usize) -> Option<Value> {
        Some(lazily(self.known.get(step)?, self.answers.get(step)?.get()?))
    }
}

/// Returns the value in `slot`, made of `json` if it is not there yet. What takes more than the filling may is an
/// error wherever it is used.
fn lazily(slot: &OnceLock<Value>, json: &Json) -> Value {
    if let Some(value) = slot.get() {
        return value.clone();
    }
    match values::of_json(json) {
        Ok(value) => slot.get_or_init(|| value).clone(),
        Err(error) => Value::from(error),
    }
}

/// What one step sees of a [`Scope`].
#[derive(Debug)]
struct View {
    scope: Arc<Scope>,
    needs: Box<[usize]>,
}

impl Object for View {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        if key == "item" {
            return Some(self.scope.item());
        }
        let is_it = |step: &&usize| self.scope.names.get(**step).is_some_and(|name| name.as_str() == key);
        self.scope.known(*self.needs.iter().find(is_it)?)
    }
}

#[cfg(test)]
mod tests;
