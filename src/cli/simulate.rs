//! `pointsman simulate`: a server that simulates the providers.

use tokio::runtime::Builder;

use crate::diagnostics::{Diagnostics, Document};
use crate::provider::{find_secrets, guess_secrets};
use crate::simulator::{Settings, Simulator, Vendor};

use super::args::Simulate;
use super::config::load;
use super::exit::Exit;
use super::log;
use super::progress::{Mode, eprint_line};
use super::signals::StopSignals;

/// Simulates the providers until Ctrl-C.
pub(super) fn simulate(args: &Simulate) -> Exit {
    let mode = Mode::Lines;
    log::start(args.log, mode);
    // Only `[simulator]` matters: no vendor needs a key or a model.
    let settings = match load(args.config.as_deref(), true)
        .and_then(|config| apply_settings(config.simulator, &args.settings))
    {
        Ok(settings) => settings,
        Err(diagnostics) => return mode.report_diagnostics(&diagnostics),
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
            return mode.fail(&anyhow::Error::new(error).context(context), Exit::IoError);
        }
    };
    // Before the address is printed, because a reader of it may send a signal.
    let mut stops = runtime.block_on(async { StopSignals::new() });
    eprint_line(&format!("simulating providers at {}; every answer is simulated", simulator.addr()));
    for vendor in Vendor::ALL {
        eprint_line(&format!("  {:9}  base_url = {:?}", vendor.as_str(), simulator.base_url(vendor)));
    }
    eprint_line(&format!("  counts     http://{}/simulator/counts", simulator.addr()));
    runtime.block_on(stops.next());
    Exit::Success
}

/// Applies the `--set` arguments to `settings`.
fn apply_settings(settings: Settings, sets: &[String]) -> Result<Settings, Diagnostics> {
    let text = sets.iter().map(|set| with_quotes(set)).collect::<Vec<_>>().join("\n");
    let document = Document::parse("--set", &text).map_err(|mut diagnostics| {
        diagnostics.redact(&guess_secrets(&text));
        diagnostics
    })?;
    apply_document(settings, &document).map_err(|mut diagnostics| {
        diagnostics.redact(&find_secrets(&document.spans()));
        diagnostics
    })
}

fn apply_document(settings: Settings, document: &Document) -> Result<Settings, Diagnostics> {
    let text = document.text();
    let (_, diagnostics) = document.read::<Settings>();
    diagnostics.into_result(())?;
    let cannot = |error: &dyn std::fmt::Display| {
        Diagnostics(vec![document.diagnostic(0..text.len(), error.to_string())])
    };
    let mut table = toml::Table::try_from(&settings).map_err(|error| cannot(&error))?;
    let over: toml::Table = toml::from_str(text).map_err(|error| cannot(&error))?;
    merge(&mut table, over);
    table.try_into().map_err(|error| cannot(&error))
}

/// Adds the quotes that a shell has removed: `latency=1.5s` becomes `latency="1.5s"`.
fn with_quotes(set: &str) -> String {
    let bare = |value: &str| !value.starts_with(['"', '\'', '[', '{']) && !value.contains('\n');
    match set.split_once('=') {
        Some((key, value)) if bare(value) && set.parse::<toml::Table>().is_err() => {
            format!("{key}={}", toml::Value::from(value))
        }
        _ => set.to_owned(),
    }
}

fn merge(into: &mut toml::Table, over: toml::Table) {
    // `p95` and `sigma` set the same property, so that setting one removes the other.
    for (set, other) in [("p95", "sigma"), ("sigma", "p95")] {
        if over.contains_key(set) && !over.contains_key(other) {
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
    fn set_changes_one_setting_and_keeps_the_others() {
        let sets = ["limits.requests_per_minute=1000".to_owned(), "latency=\"1.5s\"".to_owned()];
        let before = Settings { seed: 7, ..Settings::default() };
        let after = apply_settings(before, &sets).unwrap();
        assert_eq!(after.seed, 7);
        assert_eq!(after.limits.requests_per_minute.map(|limit| limit.get()), Some(1_000));
    }

    #[test]
    fn set_needs_no_quotes() {
        let after =
            apply_settings(Settings::default(), &["latency=1.5s".to_owned(), "seed=3".to_owned()]).unwrap();
        assert_eq!(after.latency, toml::from_str::<Settings>("latency = '1.5s'").unwrap().latency);
        assert_eq!(after.seed, 3);
    }

    #[test]
    fn set_replaces_a_distribution() {
        let before: Settings = toml::from_str("latency = { median = '600ms', p95 = '1.5s' }").unwrap();
        let after = apply_settings(before, &["latency={median=\"1s\",p95=\"3s\"}".to_owned()]).unwrap();
        let expected: Settings = toml::from_str("latency = { median = '1s', p95 = '3s' }").unwrap();
        assert_eq!(after.latency, expected.latency);
    }

    #[test]
    fn a_key_in_a_set_is_not_shown() {
        let key = "sk-live-0123456789";
        for set in
            ["keys=KEY", "keys=KEY oops", "seed=KEY", "latency=\"KEY\"", "KEY", "KEY=1", "keys=[\"KEY\""]
        {
            let errors = apply_settings(Settings::default(), &[set.replace("KEY", key)]).unwrap_err();
            let shown = format!("{errors}\n{}", errors.render(false));
            assert!(!shown.contains(key), "{set}\n{shown}");
        }
    }

    #[test]
    fn an_invalid_set_is_refused() {
        let diagnostics = apply_settings(Settings::default(), &["latncy=\"1s\"".to_owned()]).unwrap_err();
        assert!(diagnostics.to_string().contains("latency"), "{diagnostics}");
    }
}
