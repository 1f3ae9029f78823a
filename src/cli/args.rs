//! The arguments, as they are typed.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::parse_cap;
use crate::types::NanoUsd;

use super::exit;

/// Runs very many AI calls at once and loses none of them.
#[derive(Debug, Parser)]
#[command(version, about, after_help = exit::HELP, disable_help_subcommand = true)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Run items through a pipeline.
    Run(Run),
    /// Check a configuration, and pipelines, without running anything.
    Check(Check),
    /// Play the providers on this machine, as a server of their own.
    #[cfg(feature = "server")]
    Simulate(Simulate),
}

#[derive(Debug, clap::Args)]
#[command(after_help = exit::HELP)]
pub(super) struct Run {
    /// What to do with each item, such as examples/email/pipeline.toml.
    pub(super) pipeline: PathBuf,
    /// The items: a file of JSON lines, CSV with a header row, or one JSON array; `-` is stdin.
    #[arg(long, value_name = "FILE")]
    pub(super) items: PathBuf,
    /// Where the results go, one line per item; `-` is stdout.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(super) out: PathBuf,
    /// What the items are written in [default: by the file's name, else by its first byte].
    #[arg(long, value_name = "FORMAT")]
    pub(super) from: Option<ItemFormat>,
    /// What the results are written in [default: by the file's name, else jsonl].
    #[arg(long, value_name = "FORMAT")]
    pub(super) to: Option<LineFormat>,
    /// Where lines go that are no valid items, each with its number and the reason.
    #[arg(long, value_name = "FILE")]
    pub(super) rejects: Option<PathBuf>,
    /// Write results in the order of the input instead of that of completion.
    #[arg(long)]
    pub(super) ordered: bool,
    /// Where the report goes as JSON, too; `-` is stdout.
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// Most that the run may spend, in US dollars such as 5.00; it pauses then [default: `[budget] run`].
    #[arg(long, value_name = "USD", value_parser = parse_cap, allow_negative_numbers = true)]
    pub(super) max_cost: Option<NanoUsd>,
    /// The configuration [default: config.toml if it is there, else the environment].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Show neither progress nor report, only what went wrong.
    #[arg(long, short, conflicts_with = "json")]
    pub(super) quiet: bool,
    /// Show everything on stderr as JSON lines, for machines: `progress`, `report`, `note`, `error`, `faults`, `log`.
    #[arg(long)]
    pub(super) json: bool,
    /// Show what happens inside: -v each failed call, -vv everything.
    #[arg(long, short, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
}

#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// Pipelines to check together with the configuration.
    pub(super) pipelines: Vec<PathBuf>,
    /// The configuration [default: config.toml if it is there, else the environment].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

/// The simulator's arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Simulate {
    /// The address to listen at.
    #[arg(long, default_value = "127.0.0.1:8089")]
    pub(super) listen: SocketAddr,
    /// A configuration whose `[simulator]` says how it behaves [default: config.toml if it is there].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// A setting of `[simulator]`, such as `latency=1.5s` or `limits.requests_per_minute=1000`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) settings: Vec<String>,
    /// Show what happens inside.
    #[arg(long, short, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum ItemFormat {
    /// One JSON object a line.
    Jsonl,
    /// A header row, then one item a record.
    Csv,
    /// One JSON array of objects.
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum LineFormat {
    /// One JSON object a line.
    Jsonl,
    /// A header row, then one item a record.
    Csv,
}
