//! Opens what the arguments of `run` name: the items, the output, the rejects.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::pipeline::Pipeline;
use crate::pipeline::run::Output;
use crate::pipeline::sink::{self, Sink, Target};
use crate::pipeline::source::{self, Source};
use crate::types::StepName;

use super::args::{ItemFormat, LineFormat, Run};

/// Opens the items.
pub(super) fn source(args: &Run) -> anyhow::Result<Source> {
    let format = args.from.map(|format| match format {
        ItemFormat::Jsonl => source::Format::Jsonl,
        ItemFormat::Csv => source::Format::Csv,
        ItemFormat::Json => source::Format::Json,
    });
    if is_dash(&args.items) {
        anyhow::ensure!(!io::stdin().is_terminal(), "--items - reads stdin, and nothing is piped into it");
        return Ok(Source::stdin(format));
    }
    Source::file(&args.items, format).context("--items")
}

/// Opens the output and the rejects, neither of which may be a file that the run reads.
pub(super) fn output(args: &Run, pipeline: &Pipeline) -> anyhow::Result<Output> {
    let format = match args.to {
        Some(LineFormat::Jsonl) => sink::Format::Jsonl,
        Some(LineFormat::Csv) => sink::Format::Csv,
        None => sink::Format::of(&args.out),
    };
    let config = args.config.clone().unwrap_or_else(|| PathBuf::from("config.toml"));
    let mut read = vec![args.items.as_path(), args.pipeline.as_path(), config.as_path()];
    let steps: Vec<StepName> = pipeline.steps().iter().map(|step| step.name.clone()).collect();
    let lines = Sink::results(target(&args.out, &read).context("--out")?, format, &steps).context("--out")?;
    read.push(&args.out);
    let rejects = args
        .rejects
        .as_deref()
        .map(|path| Sink::rejects(target(path, &read).context("--rejects")?).context("--rejects"));
    Ok(Output { lines, rejects: rejects.transpose()?, ordered: args.ordered })
}

fn target(path: &Path, read: &[&Path]) -> Result<Target, sink::Error> {
    if is_dash(path) { Ok(Target::stdout()) } else { Target::file(path, read) }
}

pub(super) fn is_dash(path: &Path) -> bool {
    path == Path::new("-")
}
