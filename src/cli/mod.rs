//! The command line: one file per verb, and the only room that prints.
//!
//! Data goes to stdout, everything else to stderr. Holds no logic that the library lacks.

mod args;
mod check;
mod exit;
mod live;
mod log;
mod place;
mod run;
#[cfg(feature = "server")]
mod simulate;
mod status;
mod stops;
mod table;

use clap::Parser;

pub use exit::Exit;

/// Runs the program that the process's arguments ask for, and returns its exit code.
pub fn main() -> Exit {
    let args = args::Args::parse();
    match args.verb {
        args::Verb::Run(run) => run::run(&run),
        args::Verb::Check(check) => check::check(&check),
        #[cfg(feature = "server")]
        args::Verb::Simulate(simulate) => simulate::simulate(&simulate),
    }
}
