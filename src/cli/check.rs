//! `pointsman check`: all problems of a configuration and pipelines at once.

use crate::config::Config;
use crate::diagnostics::Diagnostics;
use crate::provider::process_env;
use crate::runtime;

use super::args::Check;
use super::config::{load, scope_note};
use super::exit::Exit;
use super::progress::{Mode, eprint_line};

/// Checks a configuration, with the files that the daemon reads, and pipelines. Runs no key command and sends no request.
pub(super) fn check(args: &Check) -> Exit {
    let mode = Mode::Lines;
    let config = match load(args.config.as_deref(), args.simulate) {
        Ok(config) => config,
        Err(diagnostics) => return mode.report_diagnostics(&diagnostics),
    };
    let of_certificate = certificate_faults(&config);
    let checked = match runtime::check(&config, &args.pipelines, &process_env) {
        Ok(notes) => of_certificate.into_result(notes),
        Err(mut diagnostics) => {
            diagnostics.extend(of_certificate);
            Err(diagnostics)
        }
    };
    let notes = match checked {
        Ok(notes) => notes,
        Err(diagnostics) => return mode.report_diagnostics(&diagnostics),
    };
    notes.iter().map(String::as_str).chain(scope_note(&config)).for_each(eprint_line);
    let pipelines = match args.pipelines.len() {
        0 => String::new(),
        1 => " and 1 pipeline".to_owned(),
        count => format!(" and {count} pipelines"),
    };
    eprint_line(&format!("the configuration{pipelines}: no problems found"));
    Exit::Success
}

/// Returns why the daemon could not use the certificate of a configuration.
#[cfg(feature = "server")]
fn certificate_faults(config: &Config) -> Diagnostics {
    use crate::diagnostics::Diagnostic;
    use crate::types::error_chain;
    let fault = crate::server::check_certificate(config).err();
    Diagnostics(fault.iter().map(|error| Diagnostic::new(error_chain(error))).collect())
}

#[cfg(not(feature = "server"))]
fn certificate_faults(_: &Config) -> Diagnostics {
    Diagnostics::default()
}
