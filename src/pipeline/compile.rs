//! Compiles the templates and conditions of a pipeline, and puts their faults where they stand.
//!
//! Notes which steps each one needs; never fills one.

use std::ops::Range;

use crate::document::{Fault, Text};

use super::Defaults;
use super::definition::Filling;
use super::facts::Mentions;
use super::load::Loader;
use super::mentions::Known;
use super::quoted;
use super::raw::RawStep;
use super::template::Templates;

/// A template to compile: its source and where that stands in the file, if it does.
pub(super) struct Source<'s> {
    pub(super) text: &'s str,
    pub(super) path: Option<Vec<String>>,
    pub(super) is_condition: bool,
}

impl Loader<'_> {
    /// Compiles the system prompt of steps that have none of their own. It is the same for all of
    /// them, so it may not wait for one.
    pub(super) fn default_system(
        &mut self,
        own: &Defaults,
        all: &Defaults,
        known: &Known<'_>,
        templates: &mut Templates,
    ) -> Option<Filling> {
        let text = all.system.as_deref()?;
        let path = own.system.as_ref().map(|_| vec!["defaults".to_owned(), "system".to_owned()]);
        let source = Source { text, path, is_condition: false };
        let mentions = self.compile(templates, "defaults.system", &source, known)?;
        for name in known.steps_in(&mentions) {
            let message = format!("a default system prompt cannot use the answer of `{name}`");
            let fault = self.fault_in(&source, mentions.variables.get(name).cloned(), message);
            self.faults.push(
                fault.advise("it knows only `item`; give the steps that need it a `system` of their own"),
            );
        }
        self.faults.extend(known.faults(self, &source, &mentions));
        Some(Filling::new("defaults.system", text))
    }

    fn compile(
        &mut self,
        templates: &mut Templates,
        name: &str,
        source: &Source<'_>,
        known: &Known<'_>,
    ) -> Option<Mentions> {
        let compiled = match source.is_condition {
            true => templates.add_condition(name, source.text, known),
            false => templates.add(name, source.text, known),
        };
        let flaws = match compiled {
            Ok(mentions) => return Some(mentions),
            Err(flaws) => flaws,
        };
        let what = if source.is_condition { "condition" } else { "template" };
        for flaw in flaws {
            let message = format!("broken {what}: {}", flaw.message);
            self.faults.push(self.fault_in(source, flaw.range, message));
        }
        None
    }

    /// Makes a fault at the first of `range` in a template, as exactly as can be said.
    pub(super) fn fault_in(
        &self,
        source: &Source<'_>,
        range: Option<Range<usize>>,
        message: String,
    ) -> Fault {
        let Some(path) = &source.path else {
            return Fault::new(format!("in the configuration's [defaults]: {message}"));
        };
        let is_it = |text: &&Text| text.path == *path;
        let exact = self.places.strings().iter().find(is_it).zip(range).and_then(|(text, range)| {
            let raw = self.document.text().get(text.span.clone())?;
            let inside = quoted::locate(raw, &text.value, range)?;
            Some(text.span.start + inside.start..text.span.start + inside.end)
        });
        match exact {
            Some(span) => self.document.fault(span, message),
            None => self.places.fault(&path.iter().map(String::as_str).collect::<Vec<_>>(), message),
        }
    }
}

/// Compiles what one step is written with.
pub(super) struct Compiler<'c, 'd> {
    pub(super) loader: &'c mut Loader<'d>,
    pub(super) known: &'c Known<'c>,
    pub(super) templates: &'c mut Templates,
    pub(super) at: usize,
    pub(super) needs: Vec<usize>,
}

impl Compiler<'_, '_> {
    pub(super) fn prompt(&mut self, raw: &RawStep) -> Filling {
        let is_written = self.loader.places.has(&["step", &self.at.to_string(), "prompt"]);
        let prompt = raw.prompt.as_deref().unwrap_or_default();
        if prompt.trim().is_empty() && (raw.prompt.is_some() || !is_written) {
            let name =
                raw.name.as_deref().map_or_else(|| (self.at + 1).to_string(), |name| format!("`{name}`"));
            let message = format!("step {name} has no prompt");
            self.loader.step_fault(self.at, &["prompt"], message, "add prompt = \"..{{ item.FIELD }}..\"");
        }
        self.filling(&["prompt"], prompt)
    }

    pub(super) fn filling(&mut self, keys: &[&str], text: &str) -> Filling {
        Filling::new(&self.compile(keys, text, false), text)
    }

    pub(super) fn condition(&mut self, text: &str) -> Box<str> {
        self.compile(&["when"], text, true).into()
    }

    /// Compiles a template, notes whom it needs, and returns its name.
    fn compile(&mut self, keys: &[&str], text: &str, is_condition: bool) -> String {
        let at = self.at.to_string();
        let path = [&["step", at.as_str()], keys].concat();
        let name = path.join(".");
        let source = Source { text, path: Some(path.into_iter().map(str::to_owned).collect()), is_condition };
        if let Some(mentions) = self.loader.compile(self.templates, &name, &source, self.known) {
            self.needs.extend(self.known.steps_in(&mentions).filter_map(|step| self.known.step(step)));
            let faults = self.known.faults(self.loader, &source, &mentions);
            self.loader.faults.extend(faults);
        }
        name
    }

    pub(super) fn explicit_needs(&mut self, needs: &[String]) {
        for (number, need) in needs.iter().enumerate() {
            match self.known.step(need) {
                Some(step) => self.needs.push(step),
                None => {
                    let message = format!("there is no step `{need}`");
                    let advice = self.known.advice(need, false);
                    self.loader.step_fault(self.at, &["needs", &number.to_string()], message, &advice);
                }
            }
        }
    }
}
