//! Adds the options of this program to the advice of the library.
//!
//! The library names an action, such as "simulate the answers", and this program the option for it: `--simulate`.
//! The options depend on the command: `resume` has no `--simulate`.

use std::error::Error;
use std::sync::OnceLock;

use crate::diagnostics::Diagnostics;
use crate::run::Report;
use crate::runtime;
use crate::sink;
use crate::source;
use crate::store;
use crate::types::{Advice, Remedy};

/// The command of this process. It is set once, before anything is printed.
static COMMAND: OnceLock<CommandOptions> = OnceLock::new();

/// The options of a command, as far as commands differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CommandOptions {
    /// `run`, which has every option.
    Run,
    /// `plan`, which writes no output and begins no new run.
    Plan,
    /// `check`, which has `--simulate` and `--config`.
    Check,
    /// `resume` and `retry`, which take the files and the input format from the stored run.
    StoredRun,
    /// Commands that process no items.
    Other,
}

impl CommandOptions {
    /// Declares the command of this process. Only the first call has an effect.
    pub(super) fn declare(self) {
        // The process has one command.
        let _ = COMMAND.set(self);
    }

    /// Returns the command of this process.
    fn of_process() -> Self {
        COMMAND.get().copied().unwrap_or(Self::Run)
    }

    /// Returns whether it has `--simulate`.
    fn has_simulate(self) -> bool {
        match self {
            Self::Run | Self::Plan | Self::Check => true,
            Self::StoredRun | Self::Other => false,
        }
    }

    /// Returns whether it has `--model`.
    fn has_model(self) -> bool {
        self.has_simulate()
    }

    /// Returns whether it has `--input-format`.
    fn has_input_format(self) -> bool {
        match self {
            Self::Run | Self::Plan | Self::Check => true,
            Self::StoredRun | Self::Other => false,
        }
    }

    /// Returns the option or the command for a remedy; `None` if this command has none.
    fn option(self, remedy: Remedy) -> Option<String> {
        match remedy {
            Remedy::Simulate => self.has_simulate().then(|| "--simulate".to_owned()),
            Remedy::UseRealAnswers => self.has_simulate().then(|| "without --simulate".to_owned()),
            Remedy::NameModel => self.has_model().then(|| "--model MODEL".to_owned()),
            Remedy::WriteConfiguration => Some("pointsman init".to_owned()),
            Remedy::NameConfiguration => Some("--config FILE".to_owned()),
            Remedy::AcceptChanges => Some("--accept-changes".to_owned()),
            Remedy::BeginNewRun => Some(self.new_run().to_owned()),
            Remedy::Overwrite => Some("--overwrite".to_owned()),
            Remedy::SetInputFormat(format) => Some(self.input_option(&format!("--input-format {format}"))),
            Remedy::SetDelimiter => Some(self.input_option("--delimiter CHARACTER")),
            Remedy::SetItemsKey => Some(self.input_option("--items-key KEY")),
            Remedy::OpenCopy => Some("--store sqlite:FILE".to_owned()),
            Remedy::ListRuns => Some("pointsman runs".to_owned()),
            Remedy::MinimalColumns => Some("--output-columns minimal".to_owned()),
            Remedy::WriteToFile => Some("--out FILE".to_owned()),
        }
    }

    /// Returns an option for the items, with its command if this one does not have it.
    fn input_option(self, option: &str) -> String {
        if self.has_input_format() { option.to_owned() } else { format!("pointsman run ... {option}") }
    }

    /// Returns the option that begins a new run, with its command if that is another one.
    fn new_run(self) -> &'static str {
        match self {
            Self::Run => "--new",
            Self::Plan | Self::Check | Self::StoredRun | Self::Other => "pointsman run ... --new",
        }
    }

    /// Returns the text of advice, with options. An alternative that this command does not have is left out.
    fn annotate(self, advice: &Advice) -> String {
        let mut offered = advice.clone();
        if !self.has_simulate() {
            offered = offered.without_last_alternative(Remedy::Simulate);
        }
        if !self.has_model() {
            offered = offered.without_last_alternative(Remedy::NameModel);
        }
        offered.annotated(|remedy| self.option(remedy))
    }

    /// Adds options to the advice with which a message ends.
    fn annotate_message(self, message: String, advice: Option<&Advice>) -> String {
        let Some(advice) = advice else { return message };
        let annotated = self.annotate(advice);
        match message.strip_suffix(&advice.to_string()) {
            Some(start) => format!("{start}{annotated}"),
            None => format!("{message}; {annotated}"),
        }
    }

    /// Adds options to the help of diagnostics.
    fn annotate_diagnostics(self, mut diagnostics: Diagnostics) -> Diagnostics {
        for diagnostic in &mut diagnostics.0 {
            diagnostic.help = diagnostic.help.take().map(|help| self.annotate(&help).into());
        }
        diagnostics
    }

    /// Returns the messages of an error and its causes, joined by `: `, with options.
    fn error_text(self, error: &anyhow::Error) -> String {
        error.chain().map(|error| self.message(error)).collect::<Vec<_>>().join(": ")
    }

    /// Returns the message of one error, with options.
    fn message(self, error: &(dyn Error + 'static)) -> String {
        if let Some(diagnostics) = diagnostics(error) {
            return self.annotate_diagnostics(diagnostics.clone()).to_string();
        }
        self.annotate_message(error.to_string(), advice(error).as_ref())
    }
}

/// Returns the option that begins a new run, with its command if that is not the command of this process.
pub(super) fn new_run_option() -> &'static str {
    CommandOptions::of_process().new_run()
}

/// Returns the messages of an error and its causes, joined by `: `, with options.
pub(super) fn error_text(error: &anyhow::Error) -> String {
    CommandOptions::of_process().error_text(error)
}

/// Returns the diagnostics with options in their help.
pub(super) fn with_options(diagnostics: Diagnostics) -> Diagnostics {
    CommandOptions::of_process().annotate_diagnostics(diagnostics)
}

/// Adds options to the errors of a report.
pub(super) fn add_options(report: &mut Report) {
    let advice = report.input_advice.take();
    let command = CommandOptions::of_process();
    let annotate = |error| command.annotate_message(error, advice.as_ref());
    report.input_error = report.input_error.take().map(annotate);
}

fn diagnostics<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Diagnostics> {
    match error.downcast_ref() {
        Some(runtime::Error::Diagnostics(diagnostics)) => Some(diagnostics),
        Some(_) | None => error.downcast_ref(),
    }
}

/// Returns the advice of the errors that have some.
fn advice(error: &(dyn Error + 'static)) -> Option<Advice> {
    if let Some(error) = error.downcast_ref::<runtime::Error>() {
        return error.advice();
    }
    if let Some(error) = error.downcast_ref::<store::Error>() {
        return error.advice();
    }
    if let Some(error) = error.downcast_ref::<source::Error>() {
        return error.advice();
    }
    error.downcast_ref::<sink::Error>()?.advice()
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;
    use crate::diagnostics::Diagnostic;
    use crate::store::RunNumber;

    #[test]
    fn an_option_stands_after_the_words_of_its_remedy() {
        let diagnostic = |help: Advice| Diagnostics(vec![Diagnostic::new("no key").with_help(help)]);
        let help = Advice::from("set KEY, or ").with_remedy(Remedy::Simulate).with_text(" instead");
        let no_key = "no key; set KEY, or simulate the answers (--simulate) instead";
        assert_eq!(with_options(diagnostic(help.clone())).to_string(), no_key);
        let errors = [
            (anyhow::Error::new(runtime::Error::Diagnostics(diagnostic(help))), no_key),
            (
                anyhow::Error::new(runtime::Error::RealRun(RunNumber(3))),
                "run 3 has real answers and cannot be resumed with simulated ones: use real answers (without --simulate), \
                 or begin a new run (--new)",
            ),
            (
                anyhow::Error::new(runtime::Error::Store(store::Error::Manifest {
                    run: RunNumber(3),
                    why: "it is empty".to_owned(),
                })),
                "the manifest of run 3 cannot be read: it is empty. Use the version of pointsman that started it, or \
                 begin a new run (--new)",
            ),
        ];
        for (error, text) in errors {
            assert_eq!(error_text(&error), text);
            assert_eq!(error_text(&error.context("cannot begin")), format!("cannot begin: {text}"));
        }
        let not_owned = sink::Error::NotOwned { name: "o.jsonl".to_owned() };
        assert!(!not_owned.to_string().contains("--"), "{not_owned}");
        let refused = Err::<(), _>(not_owned).context("--out").unwrap_err();
        assert_eq!(
            error_text(&refused),
            "--out: o.jsonl exists and was not written by this run; name another file, or overwrite it (--overwrite)"
        );
    }

    #[test]
    fn advice_names_only_options_that_the_command_has() {
        let help = Advice::from("set KEY, or ").with_remedy(Remedy::Simulate);
        let no_key = Diagnostics(vec![Diagnostic::new("no key").with_help(help)]);
        let text = |command: CommandOptions| command.annotate_diagnostics(no_key.clone()).to_string();
        for command in [CommandOptions::Run, CommandOptions::Plan, CommandOptions::Check] {
            assert_eq!(text(command), "no key; set KEY, or simulate the answers (--simulate)");
        }
        for command in [CommandOptions::StoredRun, CommandOptions::Other] {
            assert_eq!(text(command), "no key; set KEY");
        }
        let real_run = anyhow::Error::new(runtime::Error::RealRun(RunNumber(3)));
        assert_eq!(
            CommandOptions::StoredRun.error_text(&real_run),
            "run 3 has real answers and cannot be resumed with simulated ones: use real answers, or begin a new run \
             (pointsman run ... --new)"
        );
        let format = Remedy::SetInputFormat("csv");
        assert_eq!(CommandOptions::Plan.option(format).as_deref(), Some("--input-format csv"));
        assert_eq!(
            CommandOptions::StoredRun.option(format).as_deref(),
            Some("pointsman run ... --input-format csv")
        );
    }

    #[test]
    fn advice_that_the_message_does_not_end_with_is_appended() {
        let advice = Advice::from(Remedy::SetInputFormat("json"));
        assert_eq!(
            CommandOptions::Run.annotate_message("it is an array".to_owned(), Some(&advice)),
            "it is an array; set the input format to json (--input-format json)"
        );
    }
}
