//! Finds what is wrong only together: settings that contradict each other, names that nobody has.
//!
//! What is wrong with one value alone, its own type has refused before.

use std::collections::HashSet;
use std::time::Duration;

use crate::document::{Fault, Faults, Places, nearest};
use crate::provider::{self, HeaderSource};
use crate::router::{HedgeAfter, Policy, Route};
use crate::types::{LaneName, ProviderName, RouteName, duration};
use crate::wire::{Format, MaxTokensField};

use super::Config;

/// Checks a configuration that was read from a document.
pub(super) struct Check<'a> {
    pub(super) config: &'a Config,
    pub(super) places: &'a Places<'a>,
    /// What the reading found: what is written there is lost, and must not be missed as well.
    pub(super) read: &'a Faults,
}

impl Check<'_> {
    /// Returns every fault.
    pub(super) fn run(&self) -> Faults {
        let mut faults = Faults::default();
        for (name, settings) in &self.config.providers {
            self.provider(name, settings, &mut faults);
        }
        for (name, route) in &self.config.routes {
            self.route(name, route, &mut faults);
        }
        let retry = &self.config.retry;
        self.order(&["retry"], ("base", retry.base), ("max", retry.max), &mut faults);
        let supervisor = &self.config.supervisor;
        let (pause, max) = (("pause", supervisor.pause), ("max_pause", supervisor.max_pause));
        self.order(&["supervisor"], pause, max, &mut faults);
        self.default_route(&mut faults);
        self.budget(&mut faults);
        faults
    }

    fn provider(&self, name: &ProviderName, settings: &provider::Settings, faults: &mut Faults) {
        let at = |keys: &[&str], message: String| {
            self.places.fault(&[&["provider", name.as_str()], keys].concat(), message)
        };
        let lost = |key: &str| self.is_lost(&["provider", name.as_str(), key]);
        if name.as_str().is_empty() || name.as_str().contains('/') {
            let advice = "lanes are written provider/model, so a provider's name has no slash";
            faults.push(at(&[], format!("{:?} cannot name a provider", name.as_str())).advise(advice));
        }
        if settings.models.is_empty() && !lost("models") && !lost("base_url") {
            let advice = format!("add [provider.{name}.models.NAME] for each model you want to use");
            faults.push(at(&[], format!("provider `{name}` has no models")).advise(advice));
        }
        for alias in settings.models.keys() {
            let path = ["models", alias.as_str(), "name"];
            if self.wrote_nothing(&[&["provider", name.as_str()], &path[..]].concat()) {
                faults.push(
                    at(&path, "this name is empty".into()).advise("write what the provider calls the model"),
                );
            }
        }
        let unreadable = lost("keys") || lost("base_url") || lost("format");
        if settings.is_practice() && !settings.keys.is_empty() {
            let advice = "take `keys` or `base_url` out";
            let message = format!("provider `{name}` is simulated and sends no key");
            faults.push(at(&["keys"], message).advise(advice));
        } else if settings.keys.is_empty() && settings.needs_key() && !unreadable {
            let variable = match settings.format {
                Format::Openai => "OPENAI_API_KEY",
                Format::Anthropic => "ANTHROPIC_API_KEY",
                Format::Gemini => "GEMINI_API_KEY",
            };
            let advice = format!(
                "say where its key is, such as keys = [\"env:{variable}\"], or give the base_url of a server that needs none"
            );
            faults.push(at(&[], format!("provider `{name}` has no keys")).advise(advice));
        }
        if settings.rotate_every.is_some() && settings.keys.len() < 2 && !lost("keys") {
            let fault =
                at(&["rotate_every"], format!("provider `{name}` has no two keys that could take turns"));
            faults.push(fault.advise("list several under `keys`, or take this out"));
        }
        for (header, source) in &settings.headers {
            if matches!(source, HeaderSource::Value(_)) && provider::is_secret_header(header) {
                let message = format!("the header `{header}` carries a secret, which is written out here");
                let advice = "write env:NAME, file:PATH or command:..., never the secret itself";
                faults.push(at(&["headers", header.as_str()], message).advise(advice));
            }
        }
        for (number, source) in settings.keys.iter().enumerate() {
            if settings.keys[..number].contains(source) {
                let twice = at(&["keys", &number.to_string()], "this key is listed twice".into());
                faults.push(twice.advise("take one of them out"));
            }
        }
        if settings.is_practice() && !cfg!(feature = "server") {
            let fault = at(&["base_url"], "this build has no simulator".into());
            faults.push(fault.advise("build it with the feature `server`"));
        }
        self.dialect(settings, &at, faults);
        let path = ["provider", name.as_str(), "breaker"];
        let breaker = &settings.breaker;
        self.order(&path, ("pause", breaker.pause), ("max_open_duration", breaker.max_open_duration), faults);
        let path = ["provider", name.as_str(), "timeouts"];
        let timeouts = &settings.timeouts;
        for (key, limit) in
            [("connect", timeouts.connect), ("first_token", timeouts.first_token), ("idle", timeouts.idle)]
        {
            // Against a default nobody contradicts himself: the shorter one counts.
            if self.places.has(&[&path[..], &[key]].concat())
                && self.places.has(&[&path[..], &["total"]].concat())
            {
                self.order(&path, (key, limit), ("total", timeouts.total), faults);
            }
        }
    }

    fn dialect(
        &self,
        settings: &provider::Settings,
        at: &dyn Fn(&[&str], String) -> Fault,
        faults: &mut Faults,
    ) {
        let dialect = &settings.dialect;
        let versioned = |url: &String| url.ends_with("/v1") || url.ends_with("/v1beta");
        if settings.format != Format::Openai && settings.base_url.as_ref().is_some_and(versioned) {
            let message = "each call of this format adds the version to the address itself".to_owned();
            faults.push(at(&["base_url"], message).advise("take the version off the end"));
        }
        let known: &[&str] = match settings.format {
            Format::Openai => &[],
            Format::Anthropic => &["2023-06-01", "2026-10-21"],
            Format::Gemini => &["v1beta", "v1"],
        };
        if let Some(version) = dialect.api_version.as_deref().filter(|version| !known.contains(version)) {
            let fault = at(&["api_version"], format!("this format has no version {version:?}"));
            faults.push(match known {
                [] => fault.advise("take it out: the openai format has one version only"),
                _ => fault.advise(format!("known versions: {}", known.join(", "))),
            });
        }
        if dialect.api_version.as_deref() == Some("2026-10-21") && settings.format == Format::Anthropic {
            for (alias, _) in settings.models.iter().filter(|(_, model)| model.temperature.is_some()) {
                let message = "Anthropic's API version 2026-10-21 takes no temperature".to_owned();
                let fault = at(&["models", alias.as_str(), "temperature"], message);
                faults.push(fault.advise("take it out, or write api_version = \"2023-06-01\""));
            }
        }
        if dialect.max_tokens_field != MaxTokensField::Auto && settings.format != Format::Openai {
            let message = "this does nothing: only the openai format knows two names".to_owned();
            faults.push(at(&["max_tokens_field"], message).advise("take it out"));
        }
    }

    fn route(&self, name: &RouteName, route: &Route, faults: &mut Faults) {
        let path = ["route", name.as_str(), "lanes"];
        if route.lanes.is_empty() && !self.is_lost(&path) {
            let fault = self.places.fault(&path, format!("route `{name}` has no lanes"));
            faults.push(fault.advise(format!("list them, best first: {}", self.known_lanes())));
        }
        let hedges = route.hedge_after.is_some_and(|after| after != HedgeAfter::Off);
        if hedges && route.lanes.len() == 1 {
            let message = "this does nothing: there is no second lane to ask".to_owned();
            let fault = self.places.fault(&["route", name.as_str(), "hedge_after"], message);
            faults.push(fault.advise("add a lane, or take it out"));
        }
        self.mixture(name, route, faults);
        let mut seen = HashSet::new();
        for (number, lane) in route.lanes.iter().enumerate() {
            let number = number.to_string();
            let path = [&path[..], &[number.as_str()]].concat();
            let part = |key| {
                let inside = [&path[..], &[key]].concat();
                if self.places.has(&inside) { inside } else { path.clone() }
            };
            if let Some((message, advice)) = self.fault_of_lane(&lane.name) {
                faults.push(self.places.fault(&part("lane"), message).advise(advice));
            }
            if !seen.insert(&lane.name) {
                let message = format!("lane `{}` is listed twice", lane.name);
                faults.push(self.places.fault(&part("lane"), message).advise("take one of them out"));
            }
            let weighs = self.places.has(&[&path[..], &["weight"]].concat());
            let policy_lost = self.is_lost(&["route", name.as_str(), "policy"]);
            if weighs && route.policy == Policy::Priority && !policy_lost {
                let message = "a weight does nothing under policy \"priority\"";
                let advice = "write policy = \"weighted\", or take the weight out";
                faults.push(self.places.fault(&part("weight"), message).advise(advice));
            }
        }
    }

    /// Checks that a route's targets are all simulated or all real: else a real answer's place could be taken by a
    /// simulated one.
    fn mixture(&self, name: &RouteName, route: &Route, faults: &mut Faults) {
        let lanes = || route.lanes.iter().enumerate();
        let Some((number, lane)) = lanes().find(|(_, lane)| is_simulated(self.config, &lane.name)) else {
            return;
        };
        let is_real = |lane: &LaneName| {
            self.config.providers.contains_key(&lane.provider) && !is_simulated(self.config, lane)
        };
        if !lanes().any(|(_, lane)| is_real(&lane.name)) {
            return;
        }
        let number = number.to_string();
        let path = ["route", name.as_str(), "lanes", number.as_str()];
        let inside = [&path[..], &["lane"]].concat();
        let path = if self.places.has(&inside) { &inside } else { &path[..] };
        let message = format!("route `{name}` mixes real targets with the simulated `{}`", lane.name);
        faults.push(self.places.fault(path, message).advise(
            "take it out, or give it a route of its own; `run --simulate` simulates every target without it",
        ));
    }

    /// Checks the route over every target, which is there where none is written.
    pub(super) fn implied_route(config: &Config, places: &Places<'_>) -> Faults {
        let mut faults = Faults::default();
        let simulated = |settings: &&provider::Settings| settings.is_practice();
        let all = config.providers.values().filter(simulated).count() == config.providers.len();
        let one = config.providers.iter().find(|(_, settings)| settings.is_practice());
        if let Some((name, _)) = one.filter(|_| !all) {
            let path = ["provider", name.as_str(), "base_url"];
            let message = format!(
                "provider `{name}` is simulated and others are real, and the one route would mix their targets"
            );
            let advice = "write [route.NAME] with the targets of each route, or take this provider out: \
                          `run --simulate` simulates every target without it";
            faults.push(places.fault(&path, message).advise(advice));
        }
        faults
    }

    fn fault_of_lane(&self, lane: &LaneName) -> Option<(String, String)> {
        let (provider, model) = (&lane.provider, &lane.model);
        let Some(settings) = self.config.providers.get(provider) else {
            let written = self.places.has(&["provider", provider.as_str()]);
            let known = self.config.providers.keys().map(ProviderName::as_str);
            let advice = meant(provider.as_str(), known, "providers");
            return (!written).then(|| (format!("there is no provider `{provider}`"), advice));
        };
        let models = ["provider", provider.as_str(), "models"];
        let written = self.places.has(&[&models[..], &[model.as_str()]].concat());
        if settings.models.contains_key(model) || written || settings.models.is_empty() {
            return None;
        }
        let advice = meant(model.as_str(), settings.models.keys().map(|known| known.as_str()), "models");
        Some((format!("provider `{provider}` has no model `{model}`"), advice))
    }

    fn default_route(&self, faults: &mut Faults) {
        let path = ["defaults", "route"];
        let Some(route) = &self.config.defaults.route else { return };
        if self.places.has(&path)
            && !self.config.routes.contains_key(route)
            && !self.is_lost(&["route", route.as_str()])
        {
            let known = self.config.routes.keys().map(RouteName::as_str);
            let fault = self.places.fault(&path, format!("there is no route `{route}`"));
            faults.push(fault.advise(meant(route.as_str(), known, "routes")));
        }
    }

    /// Checks that each cap is somebody's.
    fn budget(&self, faults: &mut Faults) {
        for name in self.config.budget.provider.keys() {
            let written = self.places.has(&["provider", name.as_str()]);
            if self.config.providers.contains_key(name) || written {
                continue;
            }
            let known = self.config.providers.keys().map(ProviderName::as_str);
            let advice = meant(name.as_str(), known, "providers");
            let path = ["budget", "provider", name.as_str()];
            faults.push(self.places.fault(&path, format!("there is no provider `{name}`")).advise(advice));
        }
    }

    /// Checks that the second is no shorter than the first.
    fn order(
        &self,
        path: &[&str],
        (low, least): (&str, Duration),
        (high, most): (&str, Duration),
        faults: &mut Faults,
    ) {
        if most >= least {
            return;
        }
        let at = |key| [path, &[key]].concat();
        let written = if self.places.has(&at(high)) { high } else { low };
        let message = format!(
            "`{high}` ({}) is shorter than `{low}` ({})",
            duration::show(&most),
            duration::show(&least)
        );
        let advice = format!("make `{high}` longer or `{low}` shorter");
        faults.push(self.places.fault(&at(written), message).advise(advice));
    }

    fn is_lost(&self, path: &[&str]) -> bool {
        self.places.is_faulty(path, self.read)
    }

    fn wrote_nothing(&self, path: &[&str]) -> bool {
        let is_here =
            |text: &&crate::document::Text| text.path.iter().map(String::as_str).eq(path.iter().copied());
        self.places.strings().iter().find(is_here).is_some_and(|text| text.value.trim().is_empty())
    }

    fn known_lanes(&self) -> String {
        let lanes = self.config.lanes().take(3).map(|lane| format!("\"{lane}\""));
        format!("lanes = [{}]", lanes.collect::<Vec<_>>().join(", "))
    }
}

fn is_simulated(config: &Config, lane: &LaneName) -> bool {
    config.providers.get(&lane.provider).is_some_and(provider::Settings::is_practice)
}

/// Says which name was probably meant, else which there are.
pub(super) fn meant<'k>(wrong: &str, known: impl Iterator<Item = &'k str>, what: &str) -> String {
    let known: Vec<&str> = known.collect();
    match nearest(wrong, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None if known.is_empty() => format!("there are no {what} yet"),
        None => format!("known {what}: {}", known.join(", ")),
    }
}
