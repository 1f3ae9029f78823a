//! The arguments of the commands for the configuration: `init`, `models` and `config`.

use std::path::PathBuf;

use crate::types::ProviderName;

use super::input_args::InputArgs;

/// The arguments of `init`.
#[derive(Debug, clap::Args)]
pub(super) struct Init {
    /// Also write pipeline.toml, made from the fields of these items.
    #[arg(long, value_name = "FILE")]
    pub(super) items: Option<PathBuf>,
    /// Replace an existing file: with --items the pipeline, without it the configuration.
    #[arg(long)]
    pub(super) overwrite: bool,
    #[command(flatten)]
    pub(super) input: InputArgs,
}

/// The arguments of `models`.
#[derive(Debug, clap::Args)]
pub(super) struct Models {
    /// Only the models of this provider.
    #[arg(long, value_name = "NAME")]
    pub(super) provider: Option<ProviderName>,
    /// The configuration [default: $POINTSMAN_CONFIG, else pointsman.toml or config.toml here, else
    /// ~/.config/pointsman/config.toml, else the environment].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Write JSON: a list of the providers, each with its models or its error.
    #[arg(long)]
    pub(super) json: bool,
}

/// The arguments of `config`.
#[derive(Debug, clap::Args)]
pub(super) struct ShowConfig {
    /// A pipeline: its folder may have the configuration.
    pub(super) pipeline: Option<PathBuf>,
    /// The configuration [default: $POINTSMAN_CONFIG, else pointsman.toml or config.toml here or beside the pipeline, else
    /// ~/.config/pointsman/config.toml, else the environment].
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Write JSON: the file, the notes, and each value with its key and its source.
    #[arg(long)]
    pub(super) json: bool,
}
