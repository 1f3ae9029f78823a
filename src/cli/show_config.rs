//! `pointsman config`: the configuration in use, with the source of every value.

use serde_json::json;

use crate::provider::process_env;

use super::config::load_beside;
use super::config_args::ShowConfig;
use super::exit::Exit;
use super::open_store::fail;
use super::print::{print, print_json};
use super::progress::{Mode, eprint_line};

/// Shows the configuration. Secrets are masked.
pub(super) fn show_config(args: &ShowConfig) -> Exit {
    let config = match load_beside(args.pipeline.as_deref(), args.config.as_deref(), false) {
        Ok(config) => config,
        Err(diagnostics) => return Mode::Lines.report_diagnostics(&diagnostics),
    };
    // A configuration without a provider is shown, too.
    let notes = config.preview(&process_env).map_or_else(|_| config.notes().to_vec(), |usable| usable.notes);
    let file = config.file().map(|file| file.display().to_string());
    let shown = if args.json {
        let values = config.effective();
        let view = json!({ "file": file, "notes": notes, "values": values });
        serde_json::to_string_pretty(&view)
            .map_err(Into::into)
            .and_then(|text| print_json(&text).map_err(Into::into))
    } else {
        notes.iter().for_each(|note| eprint_line(note));
        if file.is_none() {
            eprint_line("no configuration file was found; `pointsman init` writes one");
        }
        print(config.effective_toml().trim_end()).map_err(Into::into)
    };
    shown.map_or_else(|error: anyhow::Error| fail(Mode::Lines, error), |()| Exit::Success)
}
