//! Finds steps that send the same request for every item, which is rarely meant: the prompt names no field, or names it
//! as in another program.
//!
//! Renders nothing.

use std::fmt;

use crate::types::StepName;

use super::definition::{Pipeline, Step};
use super::starter::field_expression;

/// Longest field between single braces that is recognised, in bytes.
const MAX_FIELD_BYTES: usize = 100;

/// A step that sends the same request for every item.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConstantPrompt {
    /// The step.
    pub step: StepName,
    /// The expression of the field that its template has between single braces, such as `item.text`.
    pub meant: Option<String>,
    /// Whether it is the only step of its pipeline.
    is_only_step: bool,
}

impl fmt::Display for ConstantPrompt {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the prompt")?;
        if !self.is_only_step {
            write!(out, " of step {}", self.step)?;
        }
        out.write_str(" uses no field of the item: every item gets the same request")?;
        match &self.meant {
            Some(field) => write!(out, "; write {{{{ {field} }}}} with two braces"),
            None => Ok(()),
        }
    }
}

/// What of a step differs between items.
#[derive(Debug, Clone, Copy, Default)]
struct ItemUse {
    request: bool,
    /// Also whether it has an answer.
    answer: bool,
}

impl Pipeline {
    /// Returns whether the requests of a step depend on the item: one of its templates uses the item, or the answer of a
    /// step that depends on it. `step` is the index of the step.
    pub fn depends_on_item(&self, step: usize) -> bool {
        self.item_uses().get(step).is_some_and(|uses| uses.request)
    }

    /// Returns the steps whose requests are the same for every item, in the order of the file.
    pub fn constant_prompts(&self) -> Vec<ConstantPrompt> {
        let is_only_step = self.steps.len() == 1;
        let constant = self.steps.iter().zip(self.item_uses()).filter(|(_, uses)| !uses.request);
        let to_prompt = |(step, _): (&Step, ItemUse)| {
            let meant = field_in_single_braces(step.prompt.source(&self.templates));
            ConstantPrompt { step: step.name.clone(), meant, is_only_step }
        };
        constant.map(to_prompt).collect()
    }

    fn item_uses(&self) -> Vec<ItemUse> {
        let mut uses = vec![ItemUse::default(); self.steps.len()];
        // The order has each step after those that it needs.
        for index in self.graph.order().iter().copied() {
            let Some(step) = self.steps.get(index) else { continue };
            let differs = |variable: &String| {
                let is_named =
                    |need: &&usize| self.names.get(**need).is_some_and(|name| name.as_str() == variable);
                let need = self.graph.needs(index).iter().find(is_named);
                variable == "item" || need.and_then(|need| uses.get(*need)).is_some_and(|uses| uses.answer)
            };
            let mut texts = [&step.prompt].into_iter().chain(&step.system).chain(&step.attachments);
            let request = texts.any(|text| text.variables(&self.templates).iter().any(differs));
            let condition = step.condition.as_deref().map(|name| self.templates.variables(name));
            let answer = request || condition.unwrap_or_default().iter().any(differs);
            if let Some(of_step) = uses.get_mut(index) {
                *of_step = ItemUse { request, answer };
            }
        }
        uses
    }
}

/// Returns the expression of the first name between single braces, as in `{text}` or `{item.text}`.
fn field_in_single_braces(text: &str) -> Option<String> {
    text.match_indices('{').find_map(|(at, _)| {
        let (inner, after) = text[at + 1..].split_once('}')?;
        if text[..at].ends_with('{') || after.starts_with('}') || inner.len() > MAX_FIELD_BYTES {
            return None;
        }
        let path = inner.trim();
        let path = path.strip_prefix("item.").unwrap_or(path);
        let is_name = |name: &str| {
            name.starts_with(|letter: char| letter.is_alphabetic() || letter == '_')
                && name.chars().all(|letter| letter.is_alphanumeric() || letter == '_')
        };
        if is_name(path) {
            return Some(field_expression(path));
        }
        path.split('.').all(is_name).then(|| format!("item.{path}"))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::pipeline::Defaults;

    fn pipeline(steps: &str, system: Option<&str>) -> Pipeline {
        let defaults = Defaults { system: system.map(str::to_owned), ..Defaults::default() };
        let text = format!("name = 'p'\n{steps}");
        let parsed = Pipeline::parse("p", &text, Path::new(""), &defaults, &["r".into()]);
        parsed.unwrap_or_else(|diagnostics| panic!("{text}\n{diagnostics}"))
    }

    fn uses(steps: &str) -> Vec<bool> {
        let pipeline = pipeline(steps, None);
        (0..pipeline.steps().len()).map(|step| pipeline.depends_on_item(step)).collect()
    }

    fn step(name: &str, prompt: &str, more: &str) -> String {
        format!("[[step]]\nname = '{name}'\nprompt = '{prompt}'\n{more}\n")
    }

    #[test]
    fn a_step_depends_on_the_item_through_any_template_and_through_the_answers_that_it_uses() {
        for (steps, expected) in [
            (step("a", "{{ item.text }}", ""), vec![true]),
            (step("a", "x", ""), vec![false]),
            (step("a", "{{ \"x\" }}{# item #}", ""), vec![false]),
            (step("a", "x {item.text}", ""), vec![false]),
            (step("a", "x", "system = '{{ item.role }}'"), vec![true]),
            (step("a", "x", "attach = ['{{ item.file }}']"), vec![true]),
            (step("a", "{% for tag in item.tags %}{{ tag }}{% endfor %}", ""), vec![true]),
            ("[[step]]\nname = 'a'\nembed = '{{ item.text }}'\n".to_owned(), vec![true]),
            // A condition decides whether a request is sent, and not which.
            (step("a", "x", "when = \"item.kind == 'b'\""), vec![false]),
            (step("a", "x", "") + &step("b", "{{ a }}", ""), vec![false, false]),
            (step("b", "{{ a }}", "") + &step("a", "{{ item.text }}", ""), vec![true, true]),
            (step("a", "x", "when = \"item.kind == 'b'\"") + &step("b", "{{ a }}", ""), vec![false, true]),
            (step("a", "{{ item.text }}", "") + &step("b", "x", "needs = ['a']"), vec![true, false]),
        ] {
            assert_eq!(uses(&steps), expected, "{steps}");
        }
        assert!(pipeline(&step("a", "x", ""), Some("{{ item.role }}")).depends_on_item(0));
    }

    #[test]
    fn the_note_on_a_constant_prompt_names_the_step_and_the_field_that_is_meant() {
        let note = |steps: &str| pipeline(steps, None).constant_prompts().first().map(ToString::to_string);
        assert_eq!(note(&step("a", "{{ item.text }}", "")), None);
        let constant = "uses no field of the item: every item gets the same request";
        assert_eq!(note(&step("a", "x", "")), Some(format!("the prompt {constant}")));
        let two = step("a", "{{ item.text }}", "") + &step("b", "x {text} y", "");
        let braces = format!("the prompt of step b {constant}; write {{{{ item.text }}}} with two braces");
        assert_eq!(note(&two), Some(braces));
    }

    #[test]
    fn a_name_between_single_braces_is_a_field() {
        for (text, field) in [
            ("x {text}", Some("item.text")),
            ("{ item.text }", Some("item.text")),
            ("{item.sender.name}", Some("item.sender.name")),
            ("{größe}", Some("item[\"größe\"]")),
            ("a {\"b\": 1} {} {3} {text", None),
            ("{{ text }}", None),
            ("{% raw %}", None),
            ("{", None),
        ] {
            assert_eq!(field_in_single_braces(text).as_deref(), field, "{text}");
        }
    }
}
