//! Entry point of the program: parses the arguments and runs the command.

use std::ffi::OsString;

use super::exit::Exit;
#[cfg(feature = "server")]
use super::serve;
#[cfg(feature = "simulator")]
use super::simulate;
use super::{
    args, ask, cache, check, completions, help_topics, init, limits, man, models, plan, prices, print,
    progress, results, resume, run, runs, show_config, signals, stderr,
};
#[cfg(feature = "server")]
use super::{status, token, top};

/// Runs the command in the process's arguments, and returns the exit code.
pub fn main() -> Exit {
    #[cfg(feature = "chaos")]
    crate::chaos::abort_at_configured_point();
    print::install_panic_hook();
    signals::catch_file_size_signal();
    limits::raise_open_files();
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let exit = match args::Args::parse_shown(&arguments) {
        Ok(args) => execute(args.command),
        Err(error) => print::usage(&error, &arguments)
            .unwrap_or_else(|error| progress::Mode::Lines.fail(&error.into(), Exit::IoError)),
    };
    #[cfg(feature = "otel")]
    super::otlp::finish();
    stderr::finish();
    exit
}

fn execute(command: args::Command) -> Exit {
    command.options().declare();
    match command {
        args::Command::Run(run) => run::run(&run),
        args::Command::Ask(args) => ask::ask(&args),
        args::Command::Plan(plan) => plan::plan(&plan),
        args::Command::Resume(resume) => resume::resume(&resume),
        args::Command::Retry(retry) => resume::retry(&retry),
        args::Command::Runs(runs) => runs::runs(&runs),
        args::Command::Report(run) => results::report(&run),
        args::Command::Results(results) => results::results(&results),
        args::Command::Failures(run) => results::failures(&run),
        args::Command::Cancel(cancel) => runs::cancel(&cancel),
        args::Command::Delete(args) => runs::delete(&args),
        args::Command::Cache(args) => cache::cache(&args),
        args::Command::Init(args) => init::init(&args),
        args::Command::Models(args) => models::models(&args),
        args::Command::Prices(args) => prices::prices(&args),
        args::Command::Config(args) => show_config::show_config(&args),
        args::Command::Check(check) => check::check(&check),
        args::Command::Help(args) => help_topics::help(&args),
        args::Command::Completions(args) => completions::completions(&args),
        args::Command::Man(args) => man::man(&args),
        #[cfg(feature = "server")]
        args::Command::Serve(serve) => serve::serve(&serve),
        #[cfg(feature = "server")]
        args::Command::Token(token) => token::token(&token),
        #[cfg(feature = "server")]
        args::Command::Status(args) => status::status(&args),
        #[cfg(feature = "server")]
        args::Command::Top(args) => top::top(&args),
        #[cfg(feature = "simulator")]
        args::Command::Simulate(simulate) => simulate::simulate(&simulate),
    }
}
