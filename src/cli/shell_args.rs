//! The arguments of `completions` and `man`.

use std::path::PathBuf;

use clap::ValueEnum;

/// Where a script belongs. `--help` shows it.
pub(super) const COMPLETIONS_HELP: &str = "\
Where the script belongs:
  bash  ~/.local/share/bash-completion/completions/pointsman (needs the package bash-completion)
  zsh   _pointsman in a folder of $fpath, which is set before compinit in ~/.zshrc
  fish  ~/.config/fish/completions/pointsman.fish

Examples:
  mkdir -p ~/.local/share/bash-completion/completions
  pointsman completions bash > ~/.local/share/bash-completion/completions/pointsman

  mkdir -p ~/.zfunc
  pointsman completions zsh > ~/.zfunc/_pointsman
  # in ~/.zshrc, before compinit:  fpath=(~/.zfunc $fpath)

  mkdir -p ~/.config/fish/completions
  pointsman completions fish > ~/.config/fish/completions/pointsman.fish

A new shell uses the script. Write it again after an update of pointsman.";

/// How to read and install the pages. `--help` shows it.
const MAN_HELP: &str = "\
Examples:
  pointsman man | man -l -
  pointsman man --dir ~/.local/share/man/man1
  man pointsman-run";

/// The arguments for a script.
#[derive(Debug, clap::Args)]
#[command(after_help = COMPLETIONS_HELP)]
pub(super) struct Completions {
    /// The shell.
    pub(super) shell: Shell,
}

/// A shell with a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// The arguments for manual pages.
#[derive(Debug, clap::Args)]
#[command(after_help = MAN_HELP)]
pub(super) struct Man {
    /// The folder for the pages, one for the program and one for each command. It is created if it does not exist; pages of
    /// the same names are replaced [default: the page of the program, to stdout].
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
}
