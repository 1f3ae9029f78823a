//! `pointsman simulate`: the played providers as a server of their own.

use tokio::runtime::Builder;

use crate::document::{Document, Faults};
use crate::simulator::{Settings, Simulator, Vendor};

use super::args::Simulate;
use super::exit::Exit;
use super::live::{Mode, say};
use super::log;
use super::run::load;
use super::stops::Stops;

/// Plays the providers until Ctrl-C.
pub(super) fn simulate(args: &Simulate) -> Exit {
    let mode = Mode::Lines;
    log::start(args.verbose, indicatif::ProgressBar::hidden(), mode);
    let settings = match load(args.config.as_deref(), false)
        .and_then(|config| overlay(config.simulator, &args.settings))
    {
        Ok(settings) => settings,
        Err(faults) => return mode.refuse(&faults),
    };
    let runtime = match Builder::new_multi_thread().thread_name("simulator").enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return mode.fail(&anyhow::Error::new(error).context("cannot start the runtime"), Exit::Internal);
        }
    };
    let simulator = match Simulator::start(settings, args.listen, runtime.handle()) {
        Ok(simulator) => simulator,
        Err(error) => {
            let context = format!("--listen: cannot listen at {}", args.listen);
            return mode.fail(&anyhow::Error::new(error).context(context), Exit::Broken);
        }
    };
    // Before anybody can know that it runs, and stop it.
    let mut stops = runtime.block_on(async { Stops::new() });
    say(&format!("playing providers at {}; every answer is made up", simulator.addr()));
    for vendor in Vendor::ALL {
        say(&format!("  {:9}  base_url = {:?}", vendor.as_str(), simulator.base_url(vendor)));
    }
    say(&format!("  counts     http://{}/simulator/counts", simulator.addr()));
    runtime.block_on(stops.next());
    Exit::Done
}

/// Sets what `--set` says over `settings`.
fn overlay(settings: Settings, sets: &[String]) -> Result<Settings, Faults> {
    let text = sets.iter().map(|set| quoted(set)).collect::<Vec<_>>().join("\n");
    let document = Document::parse("--set", &text)?;
    let (_, faults) = document.read::<Settings>();
    faults.or(())?;
    let cannot =
        |error: &dyn std::fmt::Display| Faults(vec![document.fault(0..text.len(), error.to_string())]);
    let mut table = toml::Table::try_from(&settings).map_err(|error| cannot(&error))?;
    let over: toml::Table = toml::from_str(&text).map_err(|error| cannot(&error))?;
    merge(&mut table, over);
    table.try_into().map_err(|error| cannot(&error))
}

/// Puts the quotes on that a shell has taken off: `latency=1.5s` is `latency="1.5s"`.
fn quoted(set: &str) -> String {
    let bare = |value: &str| !value.starts_with(['"', '\'', '[', '{']) && !value.contains('\n');
    match set.split_once('=') {
        Some((key, value)) if bare(value) && set.parse::<toml::Table>().is_err() => {
            format!("{key}={}", toml::Value::from(value))
        }
        _ => set.to_owned(),
    }
}

fn merge(into: &mut toml::Table, over: toml::Table) {
    // Two ways to say the same: whoever says one of them takes the other back.
    for (said, other) in [("p95", "sigma"), ("sigma", "p95")] {
        if over.contains_key(said) && !over.contains_key(other) {
            into.remove(other);
        }
    }
    for (key, value) in over {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(into)), toml::Value::Table(over)) => merge(into, over),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_changes_one_setting_and_keeps_its_neighbours() {
        let sets = ["limits.requests_per_minute=1000".to_owned(), "latency=\"1.5s\"".to_owned()];
        let before = Settings { seed: 7, ..Settings::default() };
        let after = overlay(before, &sets).unwrap();
        assert_eq!(after.seed, 7);
        assert_eq!(after.limits.requests_per_minute.map(|limit| limit.get()), Some(1_000));
    }

    #[test]
    fn a_set_needs_no_quotes_of_its_own() {
        let after = overlay(Settings::default(), &["latency=1.5s".to_owned(), "seed=3".to_owned()]).unwrap();
        assert_eq!(after.latency, toml::from_str::<Settings>("latency = '1.5s'").unwrap().latency);
        assert_eq!(after.seed, 3);
    }

    #[test]
    fn a_set_of_a_distribution_takes_the_place_of_one_that_was_there() {
        let before: Settings = toml::from_str("latency = { median = '600ms', p95 = '1.5s' }").unwrap();
        let after = overlay(before, &["latency={median=\"1s\",p95=\"3s\"}".to_owned()]).unwrap();
        let wanted: Settings = toml::from_str("latency = { median = '1s', p95 = '3s' }").unwrap();
        assert_eq!(after.latency, wanted.latency);
    }

    #[test]
    fn a_wrong_set_is_refused() {
        let faults = overlay(Settings::default(), &["latncy=\"1s\"".to_owned()]).unwrap_err();
        assert!(faults.to_string().contains("latency"), "{faults}");
    }
}
