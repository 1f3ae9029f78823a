//! `pointsman check`: all problems of a configuration and pipelines at once.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use crate::config::Config;
use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::provider::process_env;
use crate::runtime::{self, Error, ItemCheck, Pointsman};
use crate::types::error_chain;

use super::args::Check;
use super::check_items::{CheckedItems, Failed, check_items, exit_code, show_items};
use super::config::{load_for, scope_note};
use super::exit::Exit;
use super::open_store::fail;
use super::print::print_json;
use super::progress::{Mode, eprint_line, problems_as_json};

/// Checks a configuration, with the files that the daemon reads, and pipelines. Runs no key command and sends no request.
pub(super) fn check(args: &Check) -> Exit {
    let mode = Mode::Lines;
    let pipeline = args.pipelines.first().map(PathBuf::as_path);
    let has_one = args.pipelines.len() == 1 || args.pipelines.is_empty() && args.step.prompt.is_some();
    if args.items.is_some() && !has_one {
        let error = anyhow::anyhow!(
            "--items needs one pipeline or a prompt, as in `pointsman check PIPELINE --items FILE`"
        );
        return mode.fail(&error, Exit::Usage);
    }
    let config = match load_for(&args.step, pipeline, args.config.as_deref(), args.simulate) {
        Ok(config) => config,
        Err(diagnostics) => return report(args, &diagnostics),
    };
    if let Err(diagnostics) = check_overrides(args, &config) {
        return report(args, &diagnostics);
    }
    let of_certificate = certificate_faults(&config);
    let checked = match runtime::check(&config, &args.pipelines, &process_env) {
        Ok(notes) => of_certificate.into_result(notes),
        Err(mut diagnostics) => {
            diagnostics.extend(of_certificate);
            Err(diagnostics)
        }
    };
    let mut notes = match checked {
        Ok(notes) => notes,
        Err(diagnostics) => return report(args, &diagnostics),
    };
    let items = match &args.items {
        Some(items) => match check_items(args, &config, pipeline, items) {
            Ok(CheckedItems { checked, note }) => {
                notes.extend(note);
                Some((checked, items))
            }
            Err(Failed::Faulty(diagnostics)) if args.json => return report(args, &diagnostics),
            Err(failed) => {
                if !args.json {
                    show_notes(args, &config, &notes);
                }
                return failed.show();
            }
        },
        None => None,
    };
    if args.json {
        let notes = notes.into_iter().chain(scope_note(&config).map(str::to_owned)).collect();
        let exit = items.as_ref().map_or(Exit::Success, |(checked, _)| exit_code(checked));
        let items = items.map(|(checked, _)| checked);
        return CheckView { valid: true, problems: Vec::new(), notes, items }.print(exit);
    }
    show_notes(args, &config, &notes);
    items.map_or(Exit::Success, |(checked, items)| show_items(args, &checked, items))
}

/// Checks the pipelines with the settings of the command line, if there are any.
fn check_overrides(args: &Check, config: &Config) -> Result<(), Diagnostics> {
    if args.step.identity().is_none() {
        return Ok(());
    }
    let pointsman = Pointsman::start_to_plan(config).map_err(|error| match error {
        Error::Diagnostics(diagnostics) => diagnostics,
        error => Diagnostics(vec![Diagnostic::new(error_chain(&error))]),
    })?;
    let overrides = args.step.overrides(config);
    if args.pipelines.is_empty() && args.step.prompt.is_some() {
        pointsman.pipeline_with(None, &overrides)?;
    }
    for pipeline in &args.pipelines {
        pointsman.pipeline_with(Some(pipeline), &overrides)?;
    }
    Ok(())
}

/// What was found, as JSON.
#[derive(Serialize)]
struct CheckView {
    /// Whether the configuration and the pipelines have no problem.
    valid: bool,
    problems: Vec<Value>,
    notes: Vec<String>,
    /// What was found in the items, if they were checked.
    items: Option<ItemCheck>,
}

impl CheckView {
    fn print(&self, exit: Exit) -> Exit {
        let text = serde_json::to_string_pretty(self).map_err(Into::into);
        let printed = text.and_then(|text| print_json(&text).map_err(anyhow::Error::from));
        printed.map_or_else(|error| fail(Mode::Lines, error), |()| exit)
    }
}

/// Shows what is wrong with a configuration or a pipeline.
fn report(args: &Check, diagnostics: &Diagnostics) -> Exit {
    if !args.json {
        return Mode::Lines.report_diagnostics(diagnostics);
    }
    let problems = problems_as_json(diagnostics);
    CheckView { valid: false, problems, notes: Vec::new(), items: None }.print(Exit::Configuration)
}

/// Shows the notes, and that there are no problems.
fn show_notes(args: &Check, config: &Config, notes: &[String]) {
    notes.iter().map(String::as_str).chain(scope_note(config)).for_each(eprint_line);
    let pipelines = match args.pipelines.len() {
        0 => String::new(),
        1 => " and 1 pipeline".to_owned(),
        count => format!(" and {count} pipelines"),
    };
    eprint_line(&format!("the configuration{pipelines}: no problems found"));
}

/// Returns why the daemon could not use the certificate of a configuration.
#[cfg(feature = "server")]
fn certificate_faults(config: &Config) -> Diagnostics {
    let fault = crate::server::check_certificate(config).err();
    Diagnostics(fault.iter().map(|error| Diagnostic::new(error_chain(error))).collect())
}

#[cfg(not(feature = "server"))]
fn certificate_faults(_: &Config) -> Diagnostics {
    Diagnostics::default()
}
