//! Tests that the shipped `config.toml` and `docs/configuration.md` match the code.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::empty_env;
use crate::config::{
    BudgetSettings, Config, FileSettings, RunSettings, ServeSettings, StoreSettings, SupervisorSettings,
    TlsSettings,
};
use crate::guard::{BreakerSettings, ConcurrencySettings, RetryBudgetSettings, ScopeSettings};
use crate::pipeline::Defaults;
use crate::provider::{Limits, Model, Settings, Timeouts};
use crate::router::{RetrySettings, Route, Target};
use crate::simulator;

const CONFIG: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml"));
const DOCS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md"));

/// Returns the keys of each table of a configuration, by its heading in the documentation.
fn tables() -> BTreeMap<&'static str, BTreeSet<String>> {
    BTreeMap::from([
        ("[provider.NAME]", keys::<Settings>("")),
        ("[provider.NAME.limits]", keys::<Limits>("")),
        ("[provider.NAME.timeouts]", keys::<Timeouts>("")),
        ("[provider.NAME.breaker]", keys::<BreakerSettings>("")),
        ("[provider.NAME.retry_budget]", keys::<RetryBudgetSettings>("")),
        ("concurrency", keys::<Limits>("concurrency.")),
        ("[provider.NAME.models.MODEL]", keys::<Model>("")),
        ("price", keys::<Model>("price.input = 1\nprice.output = 1\nprice.")),
        ("[route.NAME]", keys::<Route>("")),
        ("targets", keys::<SingleTarget>("target.target = \'a/b\'\ntarget.")),
        ("[retry]", keys::<RetrySettings>("")),
        ("[defaults]", keys::<Defaults>("")),
        ("[run]", keys::<RunSettings>("")),
        ("[files]", keys::<FileSettings>("")),
        ("[store]", keys::<StoreSettings>("")),
        ("[budget]", keys::<BudgetSettings>("")),
        ("[scope.NAME]", keys::<ScopeSettings>("")),
        ("[supervisor]", keys::<SupervisorSettings>("")),
        ("[serve]", keys::<ServeSettings>("")),
        ("[serve.tls]", keys::<TlsSettings>("")),
        ("[simulator]", keys::<simulator::Settings>("")),
        ("[simulator.limits]", keys::<simulator::AccountLimits>("")),
        ("faults", keys::<simulator::Fault>("")),
    ])
}

#[derive(Debug, Deserialize)]
struct SingleTarget {
    #[expect(dead_code, reason = "only its keys are used")]
    target: Target,
}

/// Returns the keys of `T`, from serde's error for an unknown key.
fn keys<T: DeserializeOwned + std::fmt::Debug>(beside: &str) -> BTreeSet<String> {
    let error = toml::from_str::<T>(&format!("{beside}no-such-key = 1")).unwrap_err();
    let (_, known) = error.message().split_once("expected ").unwrap();
    known.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Returns the shipped file, with all lines uncommented that start with one of `prefixes` and a key.
pub(super) fn uncommented(prefixes: &[&str]) -> String {
    let line = |line: &'static str| {
        let uncommented_line = prefixes.iter().find_map(|prefix| line.strip_prefix(prefix)).filter(|rest| {
            rest.split_once(" = ").is_some_and(|(key, _)| {
                key.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_')
            })
        });
        uncommented_line.unwrap_or(line)
    };
    CONFIG.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_shipped_configuration_simulates_only_on_request() {
    let config = Config::parse("config.toml", CONFIG, &empty_env).unwrap();
    assert!(config.providers.values().all(|settings| !settings.is_simulated()));
    let resolved = config.resolve(&empty_env).unwrap();
    assert!(resolved.routes.is_empty());
    assert_eq!(
        resolved.notes,
        [
            "claude: skipped, neither ANTHROPIC_API_KEY nor CLAUDE_API_KEY is set",
            "openai: skipped, OPENAI_API_KEY is not set",
            "gemini: skipped, neither GEMINI_API_KEY nor GOOGLE_API_KEY is set",
            "route default: disabled, none of its targets has a usable key",
            "route spread: disabled, none of its targets has a usable key",
        ]
    );
    let resolved = config.simulated().resolve(&empty_env).unwrap();
    assert_eq!(resolved.routes["default"].targets.len(), 3);
    assert_eq!(
        resolved.notes,
        ["simulated: answers on routes default and spread come from the simulator on this machine"]
    );
}

#[test]
fn the_commented_values_of_the_shipped_configuration_are_the_defaults() {
    let plain = Config::parse("config.toml", CONFIG, &empty_env).unwrap();
    let text = uncommented(&["# "]);
    assert!(text.lines().count() == CONFIG.lines().count() && text != CONFIG);
    let mut uncommented_config = Config::parse("config.toml", &text, &empty_env).unwrap();
    assert_eq!(
        uncommented_config.defaults.max_validation_retries.take(),
        Some(Defaults::MAX_VALIDATION_RETRIES)
    );
    assert_eq!(uncommented_config.defaults.deadline.take(), Some(Defaults::DEADLINE));
    assert_eq!(uncommented_config, plain);
}

#[test]
fn the_shipped_configuration_contains_every_key() {
    let text = uncommented(&["# ", "#e.g. "]);
    Config::parse("config.toml", &text, &empty_env).unwrap();
    let root: toml::Table = text.parse().unwrap();
    let provider = |key: &str| -> BTreeSet<String> {
        let providers = root["provider"].as_table().unwrap().values();
        let tables = providers.filter_map(|provider| match key {
            "" => provider.as_table(),
            "models" => provider.get("models")?.as_table()?.values().next()?.as_table(),
            key => provider.get(key)?.as_table(),
        });
        tables.flat_map(toml::Table::keys).cloned().collect()
    };
    let at = |path: &[&str]| -> BTreeSet<String> {
        let table = path.iter().fold(&root, |table, key| table[*key].as_table().unwrap());
        table.keys().cloned().collect()
    };
    let known = tables();
    for (heading, written) in [
        ("[provider.NAME]", provider("")),
        ("[provider.NAME.limits]", provider("limits")),
        ("[provider.NAME.timeouts]", provider("timeouts")),
        ("[provider.NAME.breaker]", provider("breaker")),
        ("[provider.NAME.retry_budget]", provider("retry_budget")),
        ("[provider.NAME.models.MODEL]", provider("models")),
        ("[route.NAME]", at(&["route", "default"])),
        ("[retry]", at(&["retry"])),
        ("[defaults]", at(&["defaults"])),
        ("[run]", at(&["run"])),
        ("[files]", at(&["files"])),
        ("[store]", at(&["store"])),
        ("[budget]", at(&["budget"])),
        ("[scope.NAME]", at(&["scope", "team-a"])),
        ("[supervisor]", at(&["supervisor"])),
        ("[serve]", at(&["serve"])),
        ("[serve.tls]", at(&["serve", "tls"])),
        ("[simulator]", at(&["simulator"])),
        ("[simulator.limits]", at(&["simulator", "limits"])),
    ] {
        assert_eq!(written, known[heading], "{heading}");
    }
}

/// Returns the rows of the documentation's tables by heading: key, type, default, meaning.
fn documented() -> BTreeMap<&'static str, Vec<Vec<&'static str>>> {
    let mut tables = BTreeMap::new();
    let mut heading = "";
    for line in DOCS.lines() {
        if line.starts_with('#') {
            heading = line.split('`').nth(1).unwrap_or("");
        } else if line.starts_with("| `") && !heading.is_empty() {
            let cells: Vec<_> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            tables.entry(heading).or_insert_with(Vec::new).push(cells);
        }
    }
    tables
}

#[test]
fn every_key_is_documented_and_every_documented_key_exists() {
    let documented = documented();
    let known = tables();
    assert_eq!(documented.keys().collect::<Vec<_>>(), known.keys().collect::<Vec<_>>());
    for (heading, rows) in documented {
        let written: BTreeSet<String> = rows.iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
        assert_eq!(written, known[heading], "{heading}");
        assert!(rows.iter().all(|row| row.len() == 4), "{heading}: {rows:?}");
    }
}

#[test]
fn every_documented_default_is_the_real_one() {
    fn check<T: DeserializeOwned + Default + PartialEq + std::fmt::Debug>(rows: &[Vec<&str>]) -> usize {
        let has_default = |row: &&Vec<&str>| row[2].starts_with('`');
        let lines: Vec<String> = rows
            .iter()
            .filter(has_default)
            .map(|row| format!("{} = {}", row[0].trim_matches('`'), row[2].trim_matches('`')))
            .collect();
        assert_eq!(toml::from_str::<T>(&lines.join("\n")).unwrap(), T::default(), "{lines:?}");
        lines.len()
    }
    let rows = documented();
    assert_eq!(check::<Settings>(&rows["[provider.NAME]"]), 11);
    assert_eq!(check::<Limits>(&rows["[provider.NAME.limits]"]), 2);
    assert_eq!(check::<Timeouts>(&rows["[provider.NAME.timeouts]"]), 4);
    assert_eq!(check::<BreakerSettings>(&rows["[provider.NAME.breaker]"]), 6);
    assert_eq!(check::<RetryBudgetSettings>(&rows["[provider.NAME.retry_budget]"]), 3);
    assert_eq!(check::<ConcurrencySettings>(&rows["concurrency"]), 3);
    assert_eq!(check::<Model>(&rows["[provider.NAME.models.MODEL]"]), 0);
    assert_eq!(check::<Route>(&rows["[route.NAME]"]), 1);
    assert_eq!(check::<RetrySettings>(&rows["[retry]"]), 8);
    assert_eq!(check::<StoreSettings>(&rows["[store]"]), 3);
    assert_eq!(check::<ScopeSettings>(&rows["[scope.NAME]"]), 1);
    assert_eq!(check::<SupervisorSettings>(&rows["[supervisor]"]), 6);
    assert_eq!(check::<ServeSettings>(&rows["[serve]"]), 12);
    assert_eq!(check::<TlsSettings>(&rows["[serve.tls]"]), 0);
    assert_eq!(check::<simulator::Settings>(&rows["[simulator]"]), 15);
    assert_eq!(check::<simulator::AccountLimits>(&rows["[simulator.limits]"]), 6);
}

#[test]
fn every_example_of_the_documentation_is_accepted() {
    let examples: Vec<&str> =
        DOCS.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(examples.len() >= 3);
    for example in examples {
        if let Err(diagnostics) = Config::parse("docs/configuration.md", example, &empty_env) {
            panic!("{}", diagnostics.render(false));
        }
    }
}
