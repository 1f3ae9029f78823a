//! `pointsman init`: writes a first configuration and, for a file of items, a first pipeline.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use tokio::runtime::Builder;

use crate::config::{Config, FILE_NAMES, LoadOptions, Starter};
use crate::pipeline;
use crate::provider::process_env;
use crate::runtime::Error;
use crate::source::{Entry, FileSelection, Source};

use super::config_args::Init;
use super::exit::Exit;
use super::open_store::fail;
use super::progress::{Mode, eprint_line};
use super::saved_args::is_dash;
use super::shell_word::shell_word;

/// The name of the pipeline.
const PIPELINE: &str = "pipeline.toml";

/// Writes the files.
pub(super) fn init(args: &Init) -> Exit {
    write_files(args).map_or_else(|error| fail(Mode::Lines, error), |()| Exit::Success)
}

fn write_files(args: &Init) -> anyhow::Result<()> {
    let starter = Config::starter(Path::new(""), &process_env).map_err(Error::Diagnostics)?;
    let existing = existing_configuration();
    // With items, the pipeline is meant: a configuration that was edited stays.
    let writes_configuration = existing.is_none() || args.overwrite && args.items.is_none();
    // Everything that can fail is done before anything is written.
    let pipeline = args.items.as_deref().map(|items| pipeline_of(items, args)).transpose()?;
    if let Some(existing) = existing.as_ref().filter(|_| !writes_configuration) {
        let existing = existing.display();
        ensure!(
            pipeline.is_some(),
            "{existing} is a configuration already and stays as it is: correct it, or write {} (--overwrite)",
            FILE_NAMES[0]
        );
        eprint_line(&format!("{existing} is a configuration already and stays as it is"));
    }
    if pipeline.is_some() && !args.overwrite && Path::new(PIPELINE).exists() {
        bail!("{PIPELINE} exists; rename it, or overwrite it (--overwrite)");
    }
    if writes_configuration {
        write(FILE_NAMES[0], &starter.text, args.overwrite)?;
        eprint_line(&format!("wrote {} with {}", FILE_NAMES[0], starter.providers.join(", ")));
    }
    if let Some(text) = &pipeline {
        write(PIPELINE, text, args.overwrite)?;
        eprint_line(&format!("wrote {PIPELINE}: replace its prompt by your question"));
    }
    let has_key = if writes_configuration { starter.has_key } else { is_usable() };
    if !has_key {
        eprint_line(&format!(
            "no key is set: set {} in the environment, or in a file .env here",
            alternatives(&starter)
        ));
    }
    eprint_line(&format!("next: {}", next_command(args, has_key)));
    Ok(())
}

/// Returns the configuration that commands find here, if there is one in this directory.
fn existing_configuration() -> Option<PathBuf> {
    let found = Config::locate(LoadOptions::new(), &|_| None)?;
    FILE_NAMES.iter().any(|name| found == Path::new(name)).then_some(found)
}

/// Returns whether the configuration that is found has a usable provider.
fn is_usable() -> bool {
    let config = Config::load_with(None, &process_env);
    config.is_ok_and(|config| config.preview(&process_env).is_ok_and(|usable| !usable.routes.is_empty()))
}

fn alternatives(starter: &Starter) -> String {
    match starter.unset_variables.as_slice() {
        [some @ .., last] if !some.is_empty() => format!("{} or {last}", some.join(", ")),
        variables => variables.concat(),
    }
}

/// Returns the text of the pipeline for these items.
fn pipeline_of(items: &Path, args: &Init) -> anyhow::Result<String> {
    ensure!(!is_dash(items), "--items - is not possible here: name a file");
    let fields = fields_of(items, args).context("--items")?;
    let name = items.file_stem().map_or_else(|| "items".into(), |name| name.to_string_lossy());
    let name: String = name.chars().filter(|letter| !letter.is_control()).collect();
    Ok(pipeline::starter(if name.trim().is_empty() { "items" } else { &name }, &fields))
}

/// Returns the fields of the first item.
fn fields_of(items: &Path, args: &Init) -> anyhow::Result<Vec<String>> {
    let source = match FileSelection::of(items)? {
        Some(selection) => Source::files(selection)?,
        None => Source::file(items, None)?,
    };
    let runtime = Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let mut reader = args.input.apply(source).read()?;
        while let Some(entry) = reader.next().await {
            match entry? {
                Entry::Item(item) => {
                    let fields = item.value.as_object().map(|fields| fields.keys().cloned().collect());
                    return Ok(fields.unwrap_or_default());
                }
                Entry::Rejected(_) => {}
            }
        }
        bail!("no items in {}: the fields of the first one are needed", items.display())
    })
}

/// Returns the command to run next.
fn next_command(args: &Init, has_key: bool) -> String {
    let Some(items) = &args.items else {
        return "pointsman init --items FILE".to_owned();
    };
    let is_table = items.extension().is_some_and(|extension| {
        ["csv", "tsv", "xlsx", "parquet"].iter().any(|table| extension.eq_ignore_ascii_case(table))
    });
    let out = unused_name(if is_table { "csv" } else { "jsonl" });
    let simulate = if has_key { "" } else { " --simulate" };
    format!(
        "pointsman run {PIPELINE} --items {}{} --out {out} --limit 10{simulate}",
        path_word(items),
        args.input.options()
    )
}

/// Returns a path as a word of a shell that is no option.
fn path_word(path: &Path) -> String {
    let path = path.to_string_lossy();
    if path.starts_with('-') { shell_word(&format!("./{path}")) } else { shell_word(&path) }
}

/// Returns a name for the results that no file has.
fn unused_name(extension: &str) -> String {
    let names = (1_u32..100).map(|number| match number {
        1 => format!("results.{extension}"),
        number => format!("results-{number}.{extension}"),
    });
    let unused = names.into_iter().find(|name| !Path::new(name).exists());
    unused.unwrap_or_else(|| format!("results.{extension}"))
}

fn write(name: &str, text: &str, overwrite: bool) -> anyhow::Result<()> {
    let mut options = File::options();
    options.write(true);
    if overwrite {
        options.create(true).truncate(true);
    } else {
        options.create_new(true);
    }
    let mut file = match options.open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("{name} exists; rename it, or overwrite it (--overwrite)")
        }
        Err(error) => return Err(error).with_context(|| format!("cannot write {name}")),
    };
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {name}"))
}
