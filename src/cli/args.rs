//! The command-line arguments.

use std::ffi::OsString;
use std::net::SocketAddr;
#[cfg(feature = "server")]
use std::num::{NonZeroU32, NonZeroU64};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};

#[cfg(feature = "server")]
use crate::config::ServeSettings;
use crate::config::{ByteSize, parse_cap};
#[cfg(feature = "server")]
use crate::daemon::{Permission, parse_daily_budget, parse_lifetime, parse_rate};
use crate::runtime::MaxCost;
use crate::store::{RunNumber, StoreUrl};
use crate::terminal_text;
#[cfg(feature = "server")]
use crate::types::NanoUsd;
use crate::types::{Class, duration};

use super::advice::CommandOptions;
use super::cache_args::CacheArgs;
use super::config_args::{Init, Models, ShowConfig};
use super::exit;
use super::input_args::InputArgs;
use super::limit::LimitArgs;
use super::metrics::target::MetricsArgs;
use super::output_args::OutputArgs;
use super::pause::PauseArgs;
use super::progress_format::ProgressFormat;
#[cfg(feature = "server")]
use super::remote::requests::Remote;
#[cfg(feature = "server")]
use super::remote::server_args::ServerArgs;
use super::shell_args::{Completions, Man};
use super::step_args::{AnswerArgs, StepArgs};
use super::version;

/// Sends large numbers of LLM requests within the limits of the providers, and resumes after a crash.
#[derive(Debug, Parser)]
#[command(
    version,
    long_version = version::LONG.as_str(),
    about,
    after_help = exit::HELP,
    disable_help_subcommand = true
)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

impl Args {
    /// Parses the arguments, of which the first is the program.
    ///
    /// An error quotes arguments, so that it is made from arguments without line ends and other control characters:
    /// an argument cannot add lines to it.
    pub(super) fn parse_shown(arguments: &[OsString]) -> Result<Self, clap::Error> {
        Self::try_parse_from(arguments).map_err(|error| {
            let shown = arguments.iter().map(|argument| match argument.to_str() {
                Some(text) => OsString::from(one_line(text)),
                None => argument.clone(),
            });
            Self::try_parse_from(shown).err().unwrap_or(error)
        })
    }
}

/// Returns `text` with a mark for each control or invisible character. It is no valid argument if `text` is none.
fn one_line(text: &str) -> String {
    let mark = |character: char| match character {
        '\n' | '\t' | '\u{2028}' | '\u{2029}' => ' ',
        _ if terminal_text::is_invisible(character) => '\u{fffd}',
        _ => character,
    };
    text.chars().map(mark).collect()
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write a first configuration and, for a file of items, a first pipeline.
    Init(Init),
    /// Run items through a pipeline.
    Run(Run),
    /// Send one request and write its answer.
    Ask(Ask),
    /// Estimate the calls, tokens, cost and duration of a run.
    Plan(Plan),
    /// Resume a run: the given one, or the latest unfinished one.
    Resume(Resume),
    /// Process the failed items of a run again.
    Retry(Retry),
    /// List the stored runs.
    Runs(Runs),
    /// Show the report of a run, over all of its sessions.
    Report(OneRun),
    /// Write the results of a run, even while it is running.
    Results(Results),
    /// List the failed items of a run, each with its error.
    Failures(OneRun),
    /// Cancel a run, even one that another process works on. Its `run` command with --overwrite then begins a new run.
    Cancel(Cancel),
    /// Delete runs with all of their answers, also from the answer cache.
    Delete(Delete),
    /// Show or prune the answer cache: answers that other items and runs reuse.
    Cache(Cache),
    /// List the models that the configured providers offer, with context and price where they are known.
    Models(Models),
    /// Show the prices of the models and their sources.
    Prices(Prices),
    /// Show the configuration in use, with the source of every value. Secrets are masked.
    Config(ShowConfig),
    /// Check a configuration and pipelines without running anything.
    Check(Check),
    /// Explain pipelines, templates, schemas, inputs, the configuration or exit codes, or show the help of a command.
    Help(Help),
    /// Write the completion script for a shell to stdout.
    Completions(Completions),
    /// Write the manual pages.
    Man(Man),
    /// Run the daemon: take runs, items and requests over HTTP until a signal stops it.
    #[cfg(feature = "server")]
    Serve(Serve),
    /// Create, list and revoke the tokens of the daemon, also while it is running.
    #[cfg(feature = "server")]
    Token(Token),
    /// Show the state of a daemon: whether it is ready, its runs, its providers and what was spent today. Without --server
    /// it asks the one at `listen` of `[serve]`, and shows the latest runs of the store if none answers.
    #[cfg(feature = "server")]
    Status(Status),
    /// Watch a daemon in the terminal: runs, providers, spend and events. Keys hold, resume and cancel a run.
    #[cfg(feature = "server")]
    #[cfg_attr(not(feature = "tui"), command(hide = true))]
    Top(Top),
    /// Run a server on this machine that simulates the providers.
    #[cfg(feature = "simulator")]
    Simulate(Simulate),
}

impl Command {
    /// Returns its options, for advice.
    pub(super) fn options(&self) -> CommandOptions {
        match self {
            Self::Run(_) => CommandOptions::Run,
            Self::Plan(_) => CommandOptions::Plan,
            Self::Check(_) | Self::Ask(_) => CommandOptions::Check,
            Self::Resume(_) | Self::Retry(_) => CommandOptions::StoredRun,
            Self::Runs(_)
            | Self::Report(_)
            | Self::Results(_)
            | Self::Failures(_)
            | Self::Cancel(_)
            | Self::Delete(_)
            | Self::Cache(_)
            | Self::Help(_)
            | Self::Init(_)
            | Self::Models(_)
            | Self::Prices(_)
            | Self::Config(_)
            | Self::Completions(_)
            | Self::Man(_) => CommandOptions::Other,
            #[cfg(feature = "server")]
            Self::Serve(_) | Self::Token(_) | Self::Status(_) | Self::Top(_) => CommandOptions::Other,
            #[cfg(feature = "simulator")]
            Self::Simulate(_) => CommandOptions::Other,
        }
    }
}

#[derive(Debug, Clone, clap::Args)]
#[command(after_help = exit::HELP)]
pub(super) struct Run {
    /// The pipeline that processes each item, such as examples/email/pipeline.toml.
    pub(super) pipeline: Option<PathBuf>,
    /// The items: a file of JSON lines, CSV, JSON, Excel or Parquet, also as .gz or .zst; a folder or a pattern such as
    /// "scans/*.pdf", one item per file; `-` is stdin.
    #[arg(long, value_name = "FILE")]
    pub(super) items: PathBuf,
    /// The file for the results, one line per item; `-` is stdout.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(super) out: PathBuf,
    /// The format of the items [default: by the file's name, else by its first record].
    #[arg(long, value_name = "FORMAT")]
    pub(super) input_format: Option<ItemFormat>,
    /// The format of the results [default: by the file's name, else jsonl].
    #[arg(long, value_name = "FORMAT")]
    pub(super) output_format: Option<LineFormat>,
    #[command(flatten)]
    pub(super) csv: Csv,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    /// The file for input records that are not valid items, each with its number and the reason.
    #[arg(long, value_name = "FILE")]
    pub(super) rejects: Option<PathBuf>,
    /// Write results in input order instead of completion order.
    #[arg(long)]
    pub(super) ordered: bool,
    /// Also write the report as JSON to this file; `-` is stdout.
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
    /// The configuration [default: $POINTSMAN_CONFIG, else pointsman.toml or config.toml here or beside the pipeline, else
    /// ~/.config/pointsman/config.toml, else the environment].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Simulate every configured target on this machine; the results are marked.
    #[arg(long)]
    pub(super) simulate: bool,
    /// Replace existing files that this run did not write.
    #[arg(long)]
    pub(super) overwrite: bool,
    #[command(flatten)]
    pub(super) stored: StoredRunArgs,
    #[command(flatten)]
    pub(super) pause: PauseArgs,
    /// Begin a new run even if one for the same files is stored, and process every item again.
    #[arg(long)]
    pub(super) new: bool,
    #[command(flatten)]
    pub(super) metrics: MetricsArgs,
    #[command(flatten)]
    pub(super) show: Show,
    #[command(flatten)]
    pub(super) input: InputArgs,
    #[command(flatten)]
    pub(super) step: StepArgs,
    #[command(flatten)]
    pub(super) limit: LimitArgs,
    #[command(flatten)]
    pub(super) cache: CacheArgs,
}

impl Run {
    /// Returns what the display calls it before its pipeline is loaded.
    pub(super) fn title(&self) -> String {
        title(self.pipeline.as_deref())
    }
}

/// Returns what the display calls a pipeline before it is loaded.
pub(super) fn title(pipeline: Option<&Path>) -> String {
    let name = pipeline.and_then(Path::file_stem);
    name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// Options of the stored run.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct StoredRunArgs {
    /// The store for runs, `sqlite:FILE` or `none` [default: `[store] url`, else sqlite:pointsman.db].
    #[arg(long, value_name = "URL")]
    pub(super) store: Option<StoreUrl>,
    /// Resume even if the pipeline, a model or a price has changed.
    #[arg(long)]
    pub(super) accept_changes: bool,
    /// Pause the run when it has spent this much in total, in US dollars such as 5.00. `none` removes the cap
    /// [default: the cap that was last set for the run, else `[budget] run`].
    #[arg(long, value_name = "USD", value_parser = max_cost, allow_negative_numbers = true)]
    pub(super) max_cost: Option<MaxCost>,
}

/// The option for an items file that was moved.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct MovedItems {
    /// The new path of the items, if their file was moved. The run keeps its number, and its items are found by their keys.
    #[arg(long, value_name = "FILE")]
    #[cfg_attr(feature = "server", arg(conflicts_with = "server"))]
    pub(super) items: Option<PathBuf>,
}

/// Output options of a run.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(super) struct Show {
    /// Show only errors and, if the exit code is not 0, a summary line.
    #[arg(long, short, conflicts_with = "json")]
    pub(super) quiet: bool,
    /// Write everything to stderr as JSON lines: `progress`, `report`, `note`, `error`, `diagnostics`, `log`.
    #[arg(long)]
    pub(super) json: bool,
    /// How to show the progress.
    #[arg(long, value_name = "HOW", default_value = "auto", hide_default_value = true)]
    pub(super) progress: ProgressFormat,
    #[command(flatten)]
    pub(super) log: LogArgs,
}

/// Options of the log.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(super) struct LogArgs {
    /// Show the log: -v shows each failed call, -vv shows everything.
    #[arg(long, short, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// The format of the log.
    #[arg(id = "log_format", long = "log", value_name = "FORMAT", default_value = "text")]
    pub(super) format: LogFormat,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Lines to read in a terminal.
    #[default]
    Text,
    /// One JSON object per line, for a log collector.
    Json,
}

/// The arguments of a single request.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = exit::ASK_HELP)]
pub(super) struct Ask {
    /// The prompt. If text is piped in, that comes first.
    pub(super) prompt: Option<String>,
    /// A file for the model: text, PDF, image or audio; `-` is stdin. May be repeated.
    #[arg(long, short, value_name = "FILE")]
    pub(super) attach: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) answer: AnswerArgs,
    /// How long the answer may take, such as 30s or 5m [default: `[defaults] deadline`].
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub(super) deadline: Option<Duration>,
    /// Write the answer when it is complete, also to a terminal.
    #[arg(long)]
    pub(super) no_stream: bool,
    /// Also write the target, the tokens and the cost to stderr.
    #[arg(long, short)]
    pub(super) usage: bool,
    /// Write the answer with its target, tokens and cost as JSON.
    #[arg(long)]
    pub(super) json: bool,
    /// The configuration [default: $POINTSMAN_CONFIG, else pointsman.toml or config.toml here, else
    /// ~/.config/pointsman/config.toml, else the environment].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Simulate the answer on this machine.
    #[arg(long)]
    pub(super) simulate: bool,
    #[command(flatten)]
    pub(super) log: LogArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct Plan {
    /// The pipeline that would process each item, such as examples/email/pipeline.toml.
    pub(super) pipeline: Option<PathBuf>,
    /// The items, as in `run`: a file, a folder or a pattern.
    #[arg(long, value_name = "FILE")]
    pub(super) items: PathBuf,
    /// The format of the items [default: by the file's name, else by its first record].
    #[arg(long, value_name = "FORMAT")]
    pub(super) input_format: Option<ItemFormat>,
    /// Process this many items now, which costs money, and base the estimate on them. Their results are part of
    /// the later run.
    #[arg(long, value_name = "ITEMS")]
    pub(super) sample: Option<usize>,
    /// The configuration [default: $POINTSMAN_CONFIG, else pointsman.toml or config.toml here or beside the pipeline, else
    /// ~/.config/pointsman/config.toml, else the environment].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Simulate every configured target on this machine.
    #[arg(long)]
    pub(super) simulate: bool,
    #[command(flatten)]
    pub(super) stored: StoredRunArgs,
    /// Write JSON.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) log: LogArgs,
    #[command(flatten)]
    pub(super) input: InputArgs,
    #[command(flatten)]
    pub(super) step: StepArgs,
    #[command(flatten)]
    pub(super) cache: CacheArgs,
}

/// The store, for commands that work on stored runs.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct StoreArgs {
    /// The store for runs, `sqlite:FILE` [default: `[store] url`, else sqlite:pointsman.db].
    #[arg(long, value_name = "URL")]
    #[cfg_attr(feature = "server", arg(conflicts_with = "server"))]
    pub(super) store: Option<StoreUrl>,
    /// The configuration [default: $POINTSMAN_CONFIG, else pointsman.toml or config.toml here, else
    /// ~/.config/pointsman/config.toml].
    #[arg(long, value_name = "FILE")]
    #[cfg_attr(feature = "server", arg(conflicts_with = "server"))]
    pub(super) config: Option<PathBuf>,
    #[cfg(feature = "server")]
    #[command(flatten)]
    pub(super) server: ServerArgs,
}

#[cfg(feature = "server")]
impl StoreArgs {
    /// Returns the daemon that the command asks; `None` for the store.
    pub(super) fn remote(&self) -> anyhow::Result<Option<Remote>> {
        self.server.remote(self.store.is_some() || self.config.is_some())
    }
}

#[derive(Debug, clap::Args)]
#[command(after_help = exit::HELP)]
pub(super) struct Resume {
    /// The run's number, as `pointsman runs` lists it [default: the latest that is not complete].
    pub(super) run: Option<RunNumber>,
    #[command(flatten)]
    pub(super) moved: MovedItems,
    #[cfg(feature = "server")]
    #[command(flatten)]
    pub(super) server: ServerArgs,
    /// Replace existing files that this run did not write.
    #[arg(long)]
    pub(super) overwrite: bool,
    #[command(flatten)]
    pub(super) stored: StoredRunArgs,
    #[command(flatten)]
    pub(super) pause: PauseArgs,
    /// The configuration [default: that of the run].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) metrics: MetricsArgs,
    #[command(flatten)]
    pub(super) show: Show,
    #[command(flatten)]
    pub(super) cache: CacheArgs,
}

#[derive(Debug, clap::Args)]
#[command(after_help = exit::HELP)]
pub(super) struct Retry {
    /// The run's number, as `pointsman runs` lists it.
    pub(super) run: RunNumber,
    /// Only items that failed with this class, such as `timeout`; may be repeated.
    #[arg(long = "class", value_name = "CLASS", value_parser = class)]
    pub(super) classes: Vec<Class>,
    #[command(flatten)]
    pub(super) moved: MovedItems,
    #[cfg(feature = "server")]
    #[command(flatten)]
    pub(super) server: ServerArgs,
    /// Replace existing files that this run did not write.
    #[arg(long)]
    pub(super) overwrite: bool,
    #[command(flatten)]
    pub(super) stored: StoredRunArgs,
    #[command(flatten)]
    pub(super) pause: PauseArgs,
    /// The configuration [default: that of the run].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) metrics: MetricsArgs,
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
    /// The format of the results [default: by the file's name, else jsonl].
    #[arg(long, value_name = "FORMAT")]
    pub(super) format: Option<LineFormat>,
    #[command(flatten)]
    pub(super) csv: Csv,
    #[command(flatten)]
    pub(super) output: OutputArgs,
    /// The file for the results; `-` is stdout.
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(super) out: PathBuf,
    /// Replace an existing file that the run did not write.
    #[arg(long)]
    pub(super) overwrite: bool,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

/// Options for CSV output.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(super) struct Csv {
    /// How to write CSV cells that a spreadsheet would run as formulas, such as `=1+1`.
    #[arg(long, value_name = "HOW", default_value = "neutral")]
    pub(super) csv_formulas: CsvFormulas,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum CsvFormulas {
    /// With a leading apostrophe, so that a spreadsheet shows them as text.
    #[default]
    Neutral,
    /// Unchanged.
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
pub(super) struct Delete {
    /// The numbers of the runs, as `pointsman runs` lists them.
    #[arg(required_unless_present = "older_than")]
    pub(super) runs: Vec<RunNumber>,
    /// Every run that was last active longer ago than this, such as `30d`.
    #[arg(long, value_name = "TIME", conflicts_with = "runs", value_parser = duration::parse_age)]
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

/// Parses an address as `[serve] listen` does.
#[cfg(feature = "server")]
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    ServeSettings::parse_listen(text, |address| format!("--listen {address}"))
}

fn class(word: &str) -> Result<Class, String> {
    Class::ALL.into_iter().find(|class| class.as_str() == word).ok_or_else(|| {
        let known: Vec<_> = Class::ALL.iter().map(|class| class.as_str()).collect();
        format!("unknown class; the classes are: {}", known.join(", "))
    })
}

/// The arguments for the answer cache.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Cache {
    #[command(subcommand)]
    pub(super) command: Option<CacheCommand>,
    #[command(flatten)]
    pub(super) store: CacheStore,
    /// Write JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// Remove answers that were not used for some time, or as many as needed for a size. Runs keep their answers.
    Prune(PruneCache),
}

#[derive(Debug, clap::Args)]
pub(super) struct PruneCache {
    /// Answers that were not used for longer than this, such as `30d`.
    #[arg(long, value_name = "AGE", value_parser = duration::parse_age, required_unless_present = "max_size")]
    pub(super) older_than: Option<Duration>,
    /// The largest size that the answers may have, such as 1GiB; those that were not used for the longest time are removed.
    #[arg(long, value_name = "SIZE")]
    pub(super) max_size: Option<ByteSize>,
    #[command(flatten)]
    pub(super) store: CacheStore,
    /// Write JSON.
    #[arg(long)]
    pub(super) json: bool,
}

/// The store of the answer cache.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct CacheStore {
    /// The store for runs, `sqlite:FILE` [default: `[store] url`, else sqlite:pointsman.db].
    #[arg(long, value_name = "URL")]
    pub(super) store: Option<StoreUrl>,
    /// The configuration [default: $POINTSMAN_CONFIG, else pointsman.toml or config.toml here, else
    /// ~/.config/pointsman/config.toml].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
}

impl From<&CacheStore> for StoreArgs {
    fn from(of: &CacheStore) -> Self {
        Self {
            store: of.store.clone(),
            config: of.config.clone(),
            #[cfg(feature = "server")]
            server: ServerArgs::default(),
        }
    }
}

#[derive(Debug, clap::Args)]
pub(super) struct Prices {
    /// The configuration [default: $POINTSMAN_CONFIG, else pointsman.toml or config.toml here, else
    /// ~/.config/pointsman/config.toml, else the environment].
    #[arg(long, value_name = "FILE")]
    #[cfg_attr(feature = "server", arg(conflicts_with = "server"))]
    pub(super) config: Option<PathBuf>,
    /// Show the whole built-in list instead.
    #[arg(long)]
    pub(super) all: bool,
    #[cfg(feature = "server")]
    #[command(flatten)]
    pub(super) server: ServerArgs,
    /// Write JSON lines.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// Pipelines to check together with the configuration.
    pub(super) pipelines: Vec<PathBuf>,
    /// Render the templates of one pipeline for every item of this file, without a request: show what the items lack, the
    /// first prompt of each step, and what a run would need.
    #[arg(long, value_name = "FILE")]
    pub(super) items: Option<PathBuf>,
    /// The format of the items [default: by the file's name, else by its first record].
    #[arg(long, value_name = "FORMAT", requires = "items")]
    pub(super) input_format: Option<ItemFormat>,
    /// How many rendered prompts of each step to show.
    #[arg(long, value_name = "PROMPTS", default_value_t = 1, requires = "items")]
    pub(super) show: usize,
    /// Write JSON: whether everything is valid, the problems, the notes, and what --items has found.
    #[arg(long)]
    pub(super) json: bool,
    /// Check what `run --simulate` would use, which needs no key.
    #[arg(long)]
    pub(super) simulate: bool,
    /// The configuration [default: $POINTSMAN_CONFIG, else pointsman.toml or config.toml here or beside the pipeline, else
    /// ~/.config/pointsman/config.toml, else the environment].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) input: InputArgs,
    #[command(flatten)]
    pub(super) step: StepArgs,
}

/// The arguments for help.
#[derive(Debug, clap::Args)]
pub(super) struct Help {
    /// The topic or the command [default: the list of topics].
    #[arg(value_name = "TOPIC")]
    pub(super) words: Vec<String>,
}

/// The arguments for tokens.
#[cfg(feature = "server")]
#[derive(Debug, clap::Args)]
pub(super) struct Token {
    #[command(subcommand)]
    pub(super) command: TokenCommand,
}

#[cfg(feature = "server")]
#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Create a token and write it to stdout. It cannot be shown again.
    New(NewToken),
    /// List the tokens that are not revoked.
    List(TokenList),
    /// Revoke a token: the daemon refuses it within two seconds.
    Revoke(RevokeToken),
}

#[cfg(feature = "server")]
#[derive(Debug, clap::Args)]
pub(super) struct NewToken {
    /// The name of the token, which lists, logs and spending show.
    #[arg(long, value_name = "NAME")]
    pub(super) name: String,
    /// What the holder may do, separated by commas. `read`: see everything. `run`: create runs and items, and control its own.
    /// `request`: send requests. `admin`: everything.
    #[arg(long = "scope", value_name = "PERMISSIONS", value_delimiter = ',', required = true)]
    pub(super) permissions: Vec<Permission>,
    /// How many requests may begin, such as 60/m; per second (s), minute (m) or hour (h) [default: no limit].
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub(super) rate: Option<NonZeroU64>,
    /// How many requests may be in progress at once [default: no limit].
    #[arg(long, value_name = "REQUESTS")]
    pub(super) concurrency: Option<NonZeroU32>,
    /// What its requests may spend in a day (UTC), in US dollars, such as 20/day [default: no limit].
    #[arg(long, value_name = "USD/day", value_parser = parse_daily_budget)]
    pub(super) budget: Option<NanoUsd>,
    /// How long the token is valid, such as 90d or 12h [default: until it is revoked].
    #[arg(long, value_name = "TIME", value_parser = parse_lifetime)]
    pub(super) expires: Option<Duration>,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

#[cfg(feature = "server")]
#[derive(Debug, clap::Args)]
pub(super) struct TokenList {
    #[command(flatten)]
    pub(super) store: StoreArgs,
    /// Write JSON lines.
    #[arg(long)]
    pub(super) json: bool,
}

#[cfg(feature = "server")]
#[derive(Debug, clap::Args)]
pub(super) struct RevokeToken {
    /// The name of the token.
    pub(super) name: String,
    #[command(flatten)]
    pub(super) store: StoreArgs,
}

/// The arguments for the state of a daemon.
#[cfg(feature = "server")]
#[derive(Debug, clap::Args)]
#[command(after_help = exit::HELP)]
pub(super) struct Status {
    #[command(flatten)]
    pub(super) store: StoreArgs,
    /// Print nothing: exit with 0 if the daemon answers `/health` within 5 s, else with 4. It needs no token. With --config
    /// it asks the daemon of that configuration on this machine, and does not check its certificate at a loopback address
    /// [default server: http://127.0.0.1:7700].
    #[arg(long, conflicts_with = "store")]
    pub(super) health: bool,
    /// Write JSON.
    #[arg(long, conflicts_with = "health")]
    pub(super) json: bool,
}

/// The arguments for the terminal view.
#[cfg(feature = "server")]
#[derive(Debug, clap::Args)]
pub(super) struct Top {
    #[command(flatten)]
    pub(super) server: ServerArgs,
}

/// The arguments of the daemon.
#[cfg(feature = "server")]
#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    /// The configuration [default: $POINTSMAN_CONFIG, else pointsman.toml or config.toml here, else
    /// ~/.config/pointsman/config.toml, else the environment].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Simulate every configured target on this machine; the results are marked.
    #[arg(long)]
    pub(super) simulate: bool,
    /// The address and port to listen at, in place of `listen` in `[serve]`; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS", value_parser = listen_address)]
    pub(super) listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(super) log: LogArgs,
}

/// The simulator's arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Simulate {
    /// The address to listen at.
    #[arg(long, default_value = "127.0.0.1:8089")]
    pub(super) listen: SocketAddr,
    /// A configuration whose `[simulator]` table sets the behavior [default: the configuration of `run`].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// A setting of `[simulator]`, such as `latency=1.5s` or `limits.requests_per_minute=1000`; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(super) settings: Vec<String>,
    #[command(flatten)]
    pub(super) log: LogArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ItemFormat {
    /// One JSON object per line.
    Jsonl,
    /// A header row, then one item per record, separated by commas, semicolons, tabs or `|` like the header.
    Csv,
    /// CSV separated by tabs.
    Tsv,
    /// One JSON array of objects, or an object with one.
    Json,
    /// An Excel workbook.
    Xlsx,
    /// A Parquet file.
    Parquet,
}

#[derive(Debug, Clone, Copy, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum LineFormat {
    /// One JSON object per line.
    Jsonl,
    /// A header row, then one item per record.
    Csv,
    /// A Parquet file, written at the end of each session.
    Parquet,
}
