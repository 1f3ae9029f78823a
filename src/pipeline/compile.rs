//! Compiles the templates and conditions of a pipeline, and reports their errors at their positions in the file.
//!
//! Collects which steps each of them needs. Renders nothing.

use super::Defaults;
use super::definition::TextTemplate;
use super::field_advice::{dashed_field_advice, syntax_advice};
use super::raw::RawStep;
use super::resolve::SymbolTable;
use super::source_diagnostics::{SourceDiagnostics, TemplateSource};
use super::symbols::References;
use super::template::Templates;

/// Compiles the templates of a pipeline.
pub(super) struct Compiler<'c, 'd> {
    pub(super) diagnostics: &'c mut SourceDiagnostics<'d>,
    pub(super) symbols: &'c SymbolTable<'c>,
    pub(super) templates: &'c mut Templates,
}

impl Compiler<'_, '_> {
    /// Compiles the system prompt of steps that set none. All of them share it, so it cannot use the answer of a
    /// step.
    pub(super) fn default_system(&mut self, own: &Defaults, all: &Defaults) -> Option<TextTemplate> {
        let text = all.system.as_deref()?;
        let path = own.system.as_ref().map(|_| vec!["defaults".to_owned(), "system".to_owned()]);
        let source = TemplateSource { text, path, is_condition: false };
        let references = self.compile("defaults.system", &source)?;
        for name in self.symbols.referenced_steps(&references) {
            let message = format!("a default system prompt cannot use the answer of `{name}`");
            let range = references.variables.get(name).cloned();
            let diagnostic = self.diagnostics.in_template(&source, range, message);
            self.diagnostics.push(
                diagnostic
                    .with_help("it can use only `item`; set `system` in the steps that need the answer"),
            );
        }
        self.check_references(&source, &references, None);
        Some(TextTemplate::new("defaults.system", text))
    }

    fn compile(&mut self, name: &str, source: &TemplateSource<'_>) -> Option<References> {
        let compiled = match source.is_condition {
            true => self.templates.add_condition(name, source.text, self.symbols),
            false => self.templates.add(name, source.text, self.symbols),
        };
        let errors = match compiled {
            Ok(references) => return Some(references),
            Err(errors) => errors,
        };
        let what = if source.is_condition { "condition" } else { "template" };
        let advice = syntax_advice(source.text, source.is_condition);
        // Braces in a condition are one fault, however many follow from it.
        let room = if source.is_condition && advice.is_some() { 1 } else { self.diagnostics.found.room() };
        for error in errors.into_iter().take(room) {
            let message = format!("invalid {what}: {}", error.message);
            let diagnostic = self.diagnostics.in_template(source, error.range, message);
            self.diagnostics.push(match &advice {
                Some(advice) => diagnostic.with_help(advice.as_str()),
                None => diagnostic,
            });
        }
        None
    }

    /// Reports names that step `own` references and that do not exist.
    fn check_references(&mut self, source: &TemplateSource<'_>, references: &References, own: Option<usize>) {
        for error in self.symbols.check_references(references, own, self.diagnostics.found.room()) {
            let help = dashed_field_advice(source.text, &error.range).unwrap_or(error.help);
            let diagnostic = self.diagnostics.in_template(source, Some(error.range), error.message);
            self.diagnostics.push(diagnostic.with_help(help));
        }
    }
}

/// Compiles the templates of one step.
pub(super) struct StepCompiler<'s, 'c, 'd> {
    compiler: &'s mut Compiler<'c, 'd>,
    step: usize,
    needs: Vec<usize>,
}

impl<'s, 'c, 'd> StepCompiler<'s, 'c, 'd> {
    pub(super) fn new(compiler: &'s mut Compiler<'c, 'd>, step: usize) -> Self {
        Self { compiler, step, needs: vec![] }
    }

    pub(super) fn prompt(&mut self, raw: &RawStep) -> TextTemplate {
        let index = self.step.to_string();
        let is_key_written = |key: &str| self.compiler.diagnostics.is_written(&["step", &index, key]);
        let is_written = is_key_written("prompt") || is_key_written("embed");
        let prompt = raw.prompt.as_deref().unwrap_or_default();
        if prompt.trim().is_empty() && (raw.prompt.is_some() || !is_written) {
            let name =
                raw.name.as_deref().map_or_else(|| (self.step + 1).to_string(), |name| format!("`{name}`"));
            let message = format!("step {name} has no prompt");
            self.compiler.diagnostics.push_at_step(
                self.step,
                &["prompt"],
                message,
                "add prompt = \"..{{ item.FIELD }}..\"",
            );
        }
        self.template(&["prompt"], prompt)
    }

    /// Compiles the template of the text whose embedding is the answer.
    pub(super) fn embed(&mut self, text: &str) -> TextTemplate {
        if text.trim().is_empty() {
            let help = "add embed = \"{{ item.FIELD }}\"";
            self.compiler.diagnostics.push_at_step(self.step, &["embed"], "`embed` is empty", help);
        }
        self.template(&["embed"], text)
    }

    pub(super) fn template(&mut self, keys: &[&str], text: &str) -> TextTemplate {
        TextTemplate::new(&self.compile(keys, text, false), text)
    }

    pub(super) fn condition(&mut self, text: &str) -> Box<str> {
        self.compile(&["when"], text, true).into()
    }

    /// Compiles a template, records the steps that it needs, and returns its name.
    fn compile(&mut self, keys: &[&str], text: &str, is_condition: bool) -> String {
        let index = self.step.to_string();
        let path = [&["step", index.as_str()], keys].concat();
        let name = path.join(".");
        let source =
            TemplateSource { text, path: Some(path.into_iter().map(str::to_owned).collect()), is_condition };
        if let Some(references) = self.compiler.compile(&name, &source) {
            let symbols = self.compiler.symbols;
            let needs = symbols.referenced_steps(&references).filter_map(|step| symbols.step_index(step));
            self.needs.extend(needs);
            self.compiler.check_references(&source, &references, Some(self.step));
        }
        name
    }

    /// Records the steps that the step's `needs` names.
    pub(super) fn explicit_needs(&mut self, needs: &[String]) {
        for (number, need) in needs.iter().enumerate() {
            match self.compiler.symbols.step_index(need) {
                Some(step) => self.needs.push(step),
                None if self.compiler.diagnostics.found.room() == 0 => return,
                None => {
                    let message = format!("there is no step `{need}`");
                    let help = self.compiler.symbols.unknown_step_help(need, self.step);
                    let keys = ["needs", &number.to_string()];
                    self.compiler.diagnostics.push_at_step(self.step, &keys, message, &help);
                }
            }
        }
    }

    /// Returns the indices of the steps whose answers the step needs.
    pub(super) fn into_needs(self) -> Vec<usize> {
        self.needs
    }
}
