//! Adds the options of this program to the advice of the library.
//!
//! The library names an action, such as "simulate the answers", and this program the option for it: `--simulate`.

use std::error::Error;

use crate::diagnostics::Diagnostics;
use crate::run::Report;
use crate::runtime;
use crate::sink;
use crate::source;
use crate::store;
use crate::types::{Advice, Remedy};

/// Returns the option for a remedy.
fn option(remedy: Remedy) -> String {
    match remedy {
        Remedy::Simulate => "--simulate".to_owned(),
        Remedy::UseRealAnswers => "without --simulate".to_owned(),
        Remedy::NameConfiguration => "--config FILE".to_owned(),
        Remedy::AcceptChanges => "--accept-changes".to_owned(),
        Remedy::BeginNewRun => "--new".to_owned(),
        Remedy::Overwrite => "--overwrite".to_owned(),
        Remedy::SetInputFormat(format) => format!("--input-format {format}"),
        Remedy::OpenCopy => "--store sqlite:FILE".to_owned(),
    }
}

/// Returns the messages of an error and its causes, joined by `: `, with options.
pub(super) fn error_text(error: &anyhow::Error) -> String {
    error.chain().map(message).collect::<Vec<_>>().join(": ")
}

/// Returns the diagnostics with options in their help.
pub(super) fn with_options(mut diagnostics: Diagnostics) -> Diagnostics {
    for diagnostic in &mut diagnostics.0 {
        diagnostic.help = diagnostic.help.take().map(|help| help.annotated(option).into());
    }
    diagnostics
}

/// Adds options to the errors of a report.
pub(super) fn add_options(report: &mut Report) {
    let advice = report.input_advice.take();
    report.input_error = report.input_error.take().map(|error| annotate(error, advice.as_ref()));
}

/// Returns the message of one error, with options.
fn message(error: &(dyn Error + 'static)) -> String {
    if let Some(diagnostics) = diagnostics(error) {
        return with_options(diagnostics.clone()).to_string();
    }
    annotate(error.to_string(), advice(error).as_ref())
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

/// Adds options to the advice with which a message ends.
fn annotate(message: String, advice: Option<&Advice>) -> String {
    let Some(advice) = advice else { return message };
    let annotated = advice.annotated(option);
    match message.strip_suffix(&advice.to_string()) {
        Some(start) => format!("{start}{annotated}"),
        None => format!("{message}; {annotated}"),
    }
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
    fn advice_that_the_message_does_not_end_with_is_appended() {
        let advice = Advice::from(Remedy::SetInputFormat("json"));
        assert_eq!(
            annotate("it is an array".to_owned(), Some(&advice)),
            "it is an array; set the input format to json (--input-format json)"
        );
    }
}
