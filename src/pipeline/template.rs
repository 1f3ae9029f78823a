//! Compiles a pipeline's templates and conditions once, and fills them for each item.
//!
//! A name that an item lacks is an error, not an empty text. A template has no way to read a file or
//! to run for ever.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use minijinja::value::{Object, Serde, Value};
use minijinja::{AutoEscape, Environment, Error, UndefinedBehavior};

use crate::types::{Class, Failure, StepName};

use super::code::{self, Name, Role};

/// Instructions that one filling may take: far more than any prompt needs, well under a second.
const FUEL: u64 = 10_000_000;

/// Bytes of code that an error shows.
const LONGEST_CODE: usize = 100;

/// What wraps a condition; a condition alone is an expression, and only templates are kept compiled.
const CONDITION: (&str, &str) = ("{% if (", ") %}1{% endif %}");

/// Functions that every template knows.
pub(super) const FUNCTIONS: [&str; 4] = ["range", "dict", "namespace", "debug"];

/// A pipeline's templates, by name.
#[derive(Debug)]
pub(super) struct Templates {
    env: Environment<'static>,
}

/// What a template's source says, found while it was compiled.
#[derive(Debug, Default)]
pub(super) struct Mentions {
    /// Variables that the template does not set itself.
    pub(super) variables: BTreeSet<String>,
    /// Paths like `item.sender.name`.
    pub(super) paths: BTreeSet<String>,
}

/// Why a template does not compile, and where in its source.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Flaw {
    pub(super) message: String,
    pub(super) range: Option<Range<usize>>,
}

impl Templates {
    pub(super) fn new() -> Self {
        let mut env = Environment::new();
        env.set_undefined_behavior(UndefinedBehavior::Strict);
        env.set_auto_escape_callback(|_| AutoEscape::None);
        env.set_fuel(Some(FUEL));
        env.set_auto_reload(false);
        // So that errors name the value that was missing.
        env.set_debug(true);
        Self { env }
    }

    /// Adds a template.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(super) fn add(&mut self, name: &str, source: &str) -> Result<Mentions, Vec<Flaw>> {
        self.env
            .add_template_owned(name.to_owned(), source.to_owned())
            .map_err(|error| vec![flaw(&error)])?;
        self.mentions(name, &code::names(source))
    }

    /// Adds a condition: an expression that is true or false.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub(super) fn add_condition(&mut self, name: &str, source: &str) -> Result<Mentions, Vec<Flaw>> {
        // Alone first: what is no expression of its own could close the wrapping.
        self.env.compile_expression(source).map_err(|error| vec![flaw(&error)])?;
        let wrapped = format!("{}{source}{}", CONDITION.0, CONDITION.1);
        self.env.add_template_owned(name.to_owned(), wrapped).map_err(|error| vec![flaw(&error)])?;
        self.mentions(name, &code::names_of_expression(source))
    }

    /// The engine finds an unknown filter only when it meets it, which is too late.
    fn mentions(&self, template: &str, names: &[Name<'_>]) -> Result<Mentions, Vec<Flaw>> {
        let flaws: Vec<Flaw> = names.iter().filter_map(|name| self.unknown(name)).collect();
        if !flaws.is_empty() {
            return Err(flaws);
        }
        let Ok(template) = self.env.get_template(template) else { return Ok(Mentions::default()) };
        Ok(Mentions {
            variables: template.undeclared_variables(false).into_iter().collect(),
            paths: template.undeclared_variables(true).into_iter().collect(),
        })
    }

    fn unknown(&self, name: &Name<'_>) -> Option<Flaw> {
        let kind = match name.role {
            Role::Filter => "filter",
            Role::Test => "test",
            Role::Statement if ["include", "import", "from", "extends"].contains(&name.text) => {
                let message = format!("`{}` does not work here: a template stands alone", name.text);
                return Some(Flaw { message, range: Some(name.range.clone()) });
            }
            Role::Statement | Role::Variable | Role::Attribute => return None,
        };
        let asked = self.env.compile_expression_owned(format!("'{}' is {kind}", name.text));
        let known = asked.and_then(|asked| asked.eval(())).is_ok_and(|answer| answer.is_true());
        (!known).then(|| Flaw {
            message: format!("unknown {kind} `{}`", name.text),
            range: Some(name.range.clone()),
        })
    }

    /// Fills a template.
    ///
    /// # Errors
    /// What it needed and did not find, and on which line.
    pub(super) fn fill(&self, name: &str, scope: &Value) -> Result<String, String> {
        let filled = self.env.get_template(name).and_then(|template| template.render(scope.clone()));
        filled.map_err(|error| explain(&error))
    }

    /// Returns whether a condition holds.
    ///
    /// # Errors
    /// What it needed and did not find.
    pub(super) fn holds(&self, name: &str, scope: &Value) -> Result<bool, String> {
        self.fill(name, scope).map(|text| text == "1")
    }
}

fn flaw(error: &Error) -> Flaw {
    let message = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    Flaw { message, range: error.range() }
}

fn explain(error: &Error) -> String {
    let said = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    let code = error.template_source().zip(error.range()).and_then(|(source, range)| source.get(range));
    let line = error.line().map_or_else(String::new, |line| format!("line {line}: "));
    match code {
        // What is undefined is named already.
        Some(code) if !said.contains("is undefined") && (1..=LONGEST_CODE).contains(&code.len()) => {
            format!("{line}{said}, in `{code}`")
        }
        _ => format!("{line}{said}"),
    }
}

/// Makes the failure of an item that lacks what a step's template needs.
pub(super) fn failure(step: &StepName, key: &str, why: &str) -> Failure {
    Failure::new(Class::TemplateError, format!("the `{key}` of step `{step}` cannot be filled: {why}"))
}

/// What the templates of one item know: the item, and the answers as they come.
#[derive(Debug)]
pub(super) struct Scope {
    names: Arc<[StepName]>,
    item: Value,
    answers: Box<[OnceLock<Value>]>,
}

impl Scope {
    pub(super) fn new(names: Arc<[StepName]>, item: &serde_json::Value) -> Self {
        let answers = names.iter().map(|_| OnceLock::new()).collect();
        Self { names, item: Value::from(Serde(item)), answers }
    }

    /// Makes a step's answer known; the first one stays.
    pub(super) fn answer(&self, step: usize, answer: &serde_json::Value) {
        if let Some(slot) = self.answers.get(step) {
            // A second answer is refused by the walk before it comes here.
            let _ = slot.set(Value::from(Serde(answer)));
        }
    }
}

impl Object for Scope {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.get_value_by_str(key.as_str()?)
    }

    fn get_value_by_str(self: &Arc<Self>, key: &str) -> Option<Value> {
        if key == "item" {
            return Some(self.item.clone());
        }
        let step = self.names.iter().position(|name| name.as_str() == key)?;
        self.answers.get(step)?.get().cloned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn scope(item: serde_json::Value) -> (Arc<Scope>, Value) {
        let scope = Arc::new(Scope::new([StepName::from("category")].into(), &item));
        (scope.clone(), Value::from_dyn_object(scope))
    }

    fn fill(source: &str, item: serde_json::Value) -> Result<String, String> {
        let mut templates = Templates::new();
        templates.add("t", source).unwrap();
        templates.fill("t", &scope(item).1)
    }

    #[test]
    fn an_item_and_answers_fill_a_template() {
        let mut templates = Templates::new();
        templates
            .add("t", "{{ item.a.b }} {{ item.list | join(', ') }} {{ category }} <{{ item | tojson }}>")
            .unwrap();
        let (answers, value) = scope(json!({ "a": { "b": 1 }, "list": ["x", "y"] }));
        answers.answer(0, &json!("URGENT"));
        assert_eq!(
            templates.fill("t", &value).unwrap(),
            r#"1 x, y URGENT <{"a": {"b": 1}, "list": ["x", "y"]}>"#
        );
    }

    #[test]
    fn what_is_missing_is_named_with_its_line() {
        assert_eq!(
            fill("a\n{{ item.nickname }}", json!({})).unwrap_err(),
            "line 2: `item.nickname` is undefined"
        );
        assert_eq!(fill("{{ item.a.b }}", json!({})).unwrap_err(), "line 1: `item.a` is undefined");
        assert_eq!(
            fill("{{ item.a + 1 }}", json!({ "a": {} })).unwrap_err(),
            "line 1: tried to use + operator on unsupported types map and number, in `item.a + 1`"
        );
        assert!(fill("{{ category }}", json!({})).unwrap_err().contains("`category`"));
    }

    #[test]
    fn a_missing_field_may_have_a_default_or_be_asked_for() {
        assert_eq!(fill("[{{ item.nickname | default('-') }}]", json!({})).unwrap(), "[-]");
        assert_eq!(fill("{% if item.x is defined %}a{% else %}b{% endif %}", json!({})).unwrap(), "b");
    }

    #[test]
    fn none_is_compared_joined_and_looked_at_without_an_error() {
        let mut templates = Templates::new();
        templates.add_condition("c", "category != 'MARKETING' and category is none").unwrap();
        templates.add("t", "{{ category | join(', ') }}").unwrap();
        let (answers, value) = scope(json!({}));
        answers.answer(0, &json!(null));
        assert_eq!(templates.holds("c", &value), Ok(true));
        assert_eq!(templates.fill("t", &value), Ok(String::new()));
    }

    #[test]
    fn a_condition_is_one_expression_and_nothing_else() {
        for wrong in ["a %}x{% if b", "a) or (b", "a =", "", "{{ a }}", "set a = 1"] {
            assert!(Templates::new().add_condition("c", wrong).is_err(), "{wrong}");
        }
        for right in
            ["item.a == '%}'", "not (item.a or item.b)", "'x' if item.a else 'y'", "item.a\n  and item.b"]
        {
            assert!(Templates::new().add_condition("c", right).is_ok(), "{right}");
        }
    }

    #[test]
    fn what_the_engine_would_find_too_late_is_found_while_compiling() {
        let flaws = Templates::new().add("t", "{{ item | jion(',') }} {{ 1 is od }}").unwrap_err();
        let said: Vec<&str> = flaws.iter().map(|flaw| flaw.message.as_str()).collect();
        assert_eq!(said, ["unknown filter `jion`", "unknown test `od`"]);
        assert_eq!(flaws[0].range, Some(10..14));
        assert!(Templates::new().add("t", "{% include 'x' %}").is_err());
        assert!(Templates::new().add("t", "{% if 1 is not in [2] and 1 is eq 1 %}{% endif %}").is_ok());
    }

    #[test]
    fn a_template_cannot_run_for_ever() {
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}";
        assert!(fill(endless, json!({})).unwrap_err().contains("fuel"));
    }

    #[test]
    fn mentions_leave_out_what_the_template_sets_itself() {
        let mut templates = Templates::new();
        let mentions =
            templates.add("t", "{% set x = item.a.b %}{{ x }}{% for y in item.l %}{{ y }}{% endfor %}");
        let mentions = mentions.unwrap();
        assert_eq!(mentions.variables, BTreeSet::from(["item".to_owned()]));
        assert_eq!(mentions.paths, ["item.a.b", "item.l"].map(str::to_owned).into());
    }
}
