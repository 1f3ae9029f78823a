//! The arguments, as they are typed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::config::parse_cap;
use crate::runtime::MaxCost;
use crate::store::{RunNumber, StoreUrl};
use crate::types::{Class, duration};

use super::exit;
use super::pause::PauseArgs;

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
    /// Foretell a run: calls, tokens, money, time, and the limit that binds.
    Plan(Plan),
    /// Go on with a run: the latest that is not complete, or the one named.
    Resume(Resume),
    /// Ask again what has failed in a run, and nothing else.
    Retry(Retry),
    /// List the runs that are kept.
    Runs(Runs),
    /// Show the report of a run, over all of its sessions.
    Report(OneRun),
    /// Write the results of a run, also while it is at work.
    Results(Results),
    /// List the failed items of a run, each with its error.
    Failed(OneRun),
    /// Stop a run, also one that another process works on, so that the same command begins a new one.
    Cancel(Cancel),
    /// Remove runs with all of their answers.
    Forget(Forget),
    /// Show what the models cost, and where that is known from.
    Prices(Prices),
    /// Check a configuration, and pipelines, without running anything.
    Check(Check),
    /// Play the providers on this machine, as a server of their own.
    #[cfg(feature = "server")]
    Simulate(Simulate),
}

#[derive(Debug, Clone, clap::Args)]
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
    #[command(flatten)]
    pub(super) csv: Csv,
    /// Where lines go that are no valid items, each with its number and the reason.
    #[arg(long, value_name = "FILE")]
    pub(super) rejects: Option<PathBuf>,
    /// Write results in the order of the input instead of that of completion.
    #[arg(long)]
    pub(super) ordered: bool,
    /// Where the report goes as JSON, too; `-` is stdout.
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// The configuration [default: config.toml if it is there, else the environment].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Let the simulator on this machine answer in place of every configured target; the results are marked.
    #[arg(long)]
    pub(super) simulate: bool,
    /// Replace files that are there and that this run did not write.
    #[arg(long)]
    pub(super) overwrite: bool,
    #[command(flatten)]
    pub(super) keep: KeepArgs,
    #[command(flatten)]
    pub(super) pause: PauseArgs,
    /// Begin a new run although the same one is kept, and ask everything again.
    #[arg(long)]
    pub(super) new: bool,
    #[command(flatten)]
    pub(super) show: Show,
}

/// How a run is kept.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct KeepArgs {
    /// Where runs are kept, `sqlite:FILE` or `none` [default: `[store] url`, else sqlite:pointsman.db].
    #[arg(long, value_name = "URL")]
    pub(super) store: Option<StoreUrl>,
    /// Go on although the pipeline, a model or a price is another than before.
    #[arg(long)]
    pub(super) accept_changes: bool,
    /// Most that all sessions of the run may spend, in US dollars such as 5.00; it pauses then. `none` removes the
    /// cap [default: the one that was named last for the run, else `[budget] run`].
    #[arg(long, value_name = "USD", value_parser = max_cost, allow_negative_numbers = true)]
    pub(super) max_cost: Option<MaxCost>,
}

/// How a run is shown.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(super) struct Show {
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
pub(super) struct Plan {
    /// What would be done with each item, such as examples/email/pipeline.toml.
    pub(super) pipeline: PathBuf,
    /// The items: a file of JSON lines, CSV with a header row, or one JSON array.
    #[arg(long, value_name = "FILE")]
    pub(super) items: PathBuf,
    /// What the items are written in [default: by the file's name, else by its first byte].
    #[arg(long, value_name = "FORMAT")]
    pub(super) from: Option<ItemFormat>,
    /// Ask this many items for real, and foretell by them; they are kept as a part of the run that is to come.
    #[arg(long, value_name = "ITEMS")]
    pub(super) sample: Option<usize>,
    /// The configuration [default: config.toml if it is there, else the environment].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Let the simulator on this machine answer in place of every configured target.
    #[arg(long)]
    pub(super) simulate: bool,
    #[command(flatten)]
    pub(super) keep: KeepArgs,
    /// Write JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// Where the runs are, for commands that work on kept ones.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct StoreArgs {
    /// Where runs are kept, `sqlite:FILE` [default: `[store] url`, else sqlite:pointsman.db].
    #[arg(long, value_name = "URL")]
    pub(super) store: Option<StoreUrl>,
    /// The configuration [default: config.toml if it is there].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(after_help = exit::HELP)]
pub(super) struct Resume {
    /// The run's number, as `pointsman runs` lists it [default: the latest that is not complete].
    pub(super) run: Option<RunNumber>,
    /// Replace files that are there and that this run did not write.
    #[arg(long)]
    pub(super) overwrite: bool,
    #[command(flatten)]
    pub(super) keep: KeepArgs,
    #[command(flatten)]
    pub(super) pause: PauseArgs,
    /// The configuration [default: that of the run].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) show: Show,
}

#[derive(Debug, clap::Args)]
#[command(after_help = exit::HELP)]
pub(super) struct Retry {
    /// The run's number, as `pointsman runs` lists it.
    pub(super) run: RunNumber,
    /// Only what failed of this class, such as `timeout`; may be repeated.
    #[arg(long = "class", value_name = "CLASS", value_parser = class)]
    pub(super) classes: Vec<Class>,
    /// Replace files that are there and that this run did not write.
    #[arg(long)]
    pub(super) overwrite: bool,
    #[command(flatten)]
    pub(super) keep: KeepArgs,
    #[command(flatten)]
    pub(super) pause: PauseArgs,
    /// The configuration [default: that of the run].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) show: Show,
}

#[derive(Debug, clap::Args)]
pub(super) struct Runs {
    #[command(flatten)]
    pub(super) store: StoreArgs,
    /// Write JSON lines.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct OneRun {
    /// The run's number, as `pointsman runs` lists it.
    pub(super) run: RunNumber,
    #[command(flatten)]
    pub(super) store: StoreArgs,
    /// Write JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Results {
    /// The run's number, as `pointsman runs` lists it.
    pub(super) run: RunNumber,
    /// What the results are written in [default: by the file's name, else jsonl].
    #[arg(long, value_name = "FORMAT")]
    pub(super) format: Option<LineFormat>,
    #[command(flatten)]
    pub(super) csv: Csv,
    /// Where they go; `-` is stdout.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(super) out: PathBuf,
    /// Replace a file that is there and that the run did not write.
    #[arg(long)]
    pub(super) overwrite: bool,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

/// How CSV is written.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(super) struct Csv {
    /// What becomes of CSV cells that a spreadsheet would run as formulas, such as `=1+1`.
    #[arg(long, value_name = "HOW", default_value = "neutral")]
    pub(super) csv_formulas: CsvFormulas,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CsvFormulas {
    /// They begin with an apostrophe, and a spreadsheet shows them as text.
    #[default]
    Neutral,
    /// They are written as they are.
    Keep,
}

#[derive(Debug, clap::Args)]
pub(super) struct Cancel {
    /// The run's number, as `pointsman runs` lists it.
    pub(super) run: RunNumber,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct Forget {
    /// Runs by number, as `pointsman runs` lists them.
    #[arg(required_unless_present = "older_than")]
    pub(super) runs: Vec<RunNumber>,
    /// Every run that was last at work longer ago than this, such as `30d`.
    #[arg(long, value_name = "TIME", conflicts_with = "runs", value_parser = long_ago)]
    pub(super) older_than: Option<Duration>,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

fn max_cost(text: &str) -> Result<MaxCost, String> {
    if text.trim() == "none" {
        return Ok(MaxCost::Unlimited);
    }
    parse_cap(text).map(MaxCost::Limit).map_err(|error| format!("{error}, or none"))
}

fn class(word: &str) -> Result<Class, String> {
    Class::ALL.into_iter().find(|class| class.as_str() == word).ok_or_else(|| {
        let known: Vec<_> = Class::ALL.iter().map(|class| class.as_str()).collect();
        format!("there is no such class; these are: {}", known.join(", "))
    })
}

/// Reads a time that may be given in days, which other durations may not.
fn long_ago(text: &str) -> Result<Duration, String> {
    match text.trim().strip_suffix('d').map(|days| days.trim().parse::<u32>()) {
        Some(Ok(days)) => Ok(Duration::from_hours(24 * u64::from(days))),
        _ => duration::parse(text).map_err(|_| format!("{text:?} is no time such as 30d or 12h")),
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Prices {
    /// The configuration [default: config.toml if it is there, else the environment].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Show the whole built-in list instead.
    #[arg(long)]
    pub(super) all: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// Pipelines to check together with the configuration.
    pub(super) pipelines: Vec<PathBuf>,
    /// Check what `run --simulate` would use, which needs no key.
    #[arg(long)]
    pub(super) simulate: bool,
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

#[derive(Debug, Clone, Copy, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ItemFormat {
    /// One JSON object a line.
    Jsonl,
    /// A header row, then one item a record, separated by commas, semicolons or tabs as the header says.
    Csv,
    /// The same, separated by tabs.
    Tsv,
    /// One JSON array of objects.
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LineFormat {
    /// One JSON object a line.
    Jsonl,
    /// A header row, then one item a record.
    Csv,
}
