//! The command line: one file per verb, and the only room that prints.
//!
//! Data goes to stdout, everything else to stderr. Holds no logic that the library lacks.

mod args;
mod check;
mod exit;
mod kept;
mod limits;
mod live;
mod log;
mod next_command;
mod pause;
mod place;
mod plan;
mod prices;
mod print;
mod results;
mod resume;
mod run;
mod runs;
#[cfg(feature = "server")]
mod simulate;
mod status;
mod stderr;
mod stops;
mod table;
mod watch;

use clap::Parser;

pub use exit::Exit;

/// Runs the program that the process's arguments ask for, and returns its exit code.
pub fn main() -> Exit {
    #[cfg(feature = "chaos")]
    crate::chaos::die_as_told();
    print::panics_are_shown();
    stops::survive_file_limits();
    limits::raise_open_files();
    let exit = match args::Args::try_parse() {
        Ok(args) => carry_out(args.verb),
        Err(error) => {
            print::usage(&error).unwrap_or_else(|error| live::Mode::Lines.fail(&error.into(), Exit::Broken))
        }
    };
    stderr::finish();
    exit
}

fn carry_out(verb: args::Verb) -> Exit {
    match verb {
        args::Verb::Run(run) => run::run(&run),
        args::Verb::Plan(plan) => plan::plan(&plan),
        args::Verb::Resume(resume) => resume::resume(&resume),
        args::Verb::Retry(retry) => resume::retry(&retry),
        args::Verb::Runs(runs) => runs::runs(&runs),
        args::Verb::Report(run) => results::report(&run),
        args::Verb::Results(results) => results::results(&results),
        args::Verb::Failed(run) => results::failed(&run),
        args::Verb::Cancel(cancel) => runs::cancel(&cancel),
        args::Verb::Forget(forget) => runs::forget(&forget),
        args::Verb::Prices(args) => prices::prices(&args),
        args::Verb::Check(check) => check::check(&check),
        #[cfg(feature = "server")]
        args::Verb::Simulate(simulate) => simulate::simulate(&simulate),
    }
}
