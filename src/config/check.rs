//! Cross-checks of settings: contradictions and undefined names.
//!
//! Errors of single values are reported earlier, when the value is parsed.

use std::collections::HashSet;
use std::time::Duration;

use crate::diagnostics::{Diagnostic, Diagnostics, Spans, nearest};
use crate::provider::{self, HeaderSource};
use crate::router::{HedgeAfter, Policy, Route};
use crate::types::{Advice, Format, ProviderName, Remedy, RouteName, ScopeName, TargetName, duration};
use crate::wire::{MaxTokensField, RefusedField, refused_fields};

use super::Config;
use super::glob::FileGlob;
use super::serve::MAX_DRAIN;

/// Checks of a configuration that was parsed from a document.
pub(super) struct Check<'a> {
    pub(super) config: &'a Config,
    pub(super) spans: &'a Spans<'a>,
    /// Errors of parsing. A setting with such an error is not reported as missing as well.
    pub(super) parse_diagnostics: &'a Diagnostics,
    /// Whether each provider needs a model.
    pub(super) needs_models: bool,
}

impl Check<'_> {
    /// Runs all checks.
    pub(super) fn run(&self) -> Diagnostics {
        let mut diagnostics = Diagnostics::default();
        for (name, settings) in &self.config.providers {
            self.provider(name, settings, &mut diagnostics);
        }
        for (name, route) in &self.config.routes {
            self.route(name, route, &mut diagnostics);
        }
        let retry = &self.config.retry;
        self.duration_order(
            &["retry"],
            ("initial_backoff", retry.initial_backoff),
            ("max_backoff", retry.max_backoff),
            &mut diagnostics,
        );
        let supervisor = &self.config.supervisor;
        self.duration_order(
            &["supervisor"],
            ("backoff", supervisor.backoff),
            ("max_backoff", supervisor.max_backoff),
            &mut diagnostics,
        );
        self.default_route(&mut diagnostics);
        self.budget(&mut diagnostics);
        self.scopes(&mut diagnostics);
        self.serve(&mut diagnostics);
        diagnostics
    }

    fn provider(&self, name: &ProviderName, settings: &provider::Settings, diagnostics: &mut Diagnostics) {
        let at = |keys: &[&str], message: String| {
            self.spans.diagnostic(&[&["provider", name.as_str()], keys].concat(), message)
        };
        let has_error = |key: &str| self.has_parse_error(&["provider", name.as_str(), key]);
        if name.as_str().is_empty() || name.as_str().contains('/') {
            let help = "targets are written provider/model, so the name of a provider has no slash";
            diagnostics.push(at(&[], format!("{:?} cannot name a provider", name.as_str())).with_help(help));
        }
        let has_none = settings.models.is_empty() && !has_error("models") && !has_error("base_url");
        if has_none && self.needs_models {
            let help = format!("add [provider.{name}.models.NAME] for each model you want to use");
            diagnostics.push(at(&[], format!("provider `{name}` has no models")).with_help(help));
        }
        for alias in settings.models.keys() {
            let path = ["models", alias.as_str(), "name"];
            if self.is_empty_string(&[&["provider", name.as_str()], &path[..]].concat()) {
                diagnostics.push(
                    at(&path, "this name is empty".into())
                        .with_help("write what the provider calls the model"),
                );
            }
        }
        let has_source_error = has_error("keys") || has_error("base_url") || has_error("format");
        if settings.is_simulated() && !settings.keys.is_empty() {
            let help = "remove `keys` or `base_url`";
            let message = format!("provider `{name}` is simulated and sends no key");
            diagnostics.push(at(&["keys"], message).with_help(help));
        } else if settings.keys.is_empty() && settings.needs_key() && !has_source_error {
            let variable = match settings.format {
                Format::Openai | Format::OpenaiResponses => "OPENAI_API_KEY",
                Format::Anthropic => "ANTHROPIC_API_KEY",
                Format::Gemini => "GEMINI_API_KEY",
            };
            let help = format!(
                "add the source of its key, such as keys = [\"env:{variable}\"], or give the base_url of a server that needs none"
            );
            diagnostics.push(at(&[], format!("provider `{name}` has no keys")).with_help(help));
        }
        if settings.rotate_every.is_some() && settings.keys.len() < 2 && !has_error("keys") {
            let diagnostic =
                at(&["rotate_every"], format!("provider `{name}` has fewer than two keys to rotate"));
            diagnostics.push(diagnostic.with_help("list several under `keys`, or remove this"));
        }
        for (header, source) in &settings.headers {
            if matches!(source, HeaderSource::Value(_)) && provider::is_secret_header(header) {
                let message = format!("the header `{header}` contains a secret in plain text");
                let help = "write env:NAME, file:PATH or command:..., not the secret itself";
                diagnostics.push(at(&["headers", header.as_str()], message).with_help(help));
            }
        }
        for (number, source) in settings.keys.iter().enumerate() {
            if settings.keys[..number].contains(source) {
                let diagnostic = at(&["keys", &number.to_string()], "this key is listed twice".into());
                diagnostics.push(diagnostic.with_help("remove one of them"));
            }
        }
        if settings.is_simulated() && !cfg!(feature = "simulator") {
            let diagnostic = at(&["base_url"], "this build has no simulator".into());
            diagnostics.push(diagnostic.with_help("build it with the feature `simulator`"));
        }
        self.dialect(settings, &at, diagnostics);
        for (number, parameter) in settings.dialect.drop_parameters.iter().enumerate() {
            if settings.dialect.drop_parameters[..number].contains(parameter) {
                let message = format!("`{}` is listed twice", parameter.as_str());
                let diagnostic = at(&["drop_parameters", &number.to_string()], message);
                diagnostics.push(diagnostic.with_help("remove one of them"));
            }
        }
        for (alias, model) in &settings.models {
            let refused = model.extra.iter().flat_map(|fields| refused_fields(fields));
            for RefusedField { path, reason, help } in refused {
                let path = [&["models", alias.as_str(), "extra"][..], path.as_slice()].concat();
                diagnostics.push(at(&path, reason).with_help(help));
            }
        }
        let path = ["provider", name.as_str(), "breaker"];
        let breaker = &settings.breaker;
        self.duration_order(
            &path,
            ("open_duration", breaker.open_duration),
            ("max_open_duration", breaker.max_open_duration),
            diagnostics,
        );
        let path = ["provider", name.as_str(), "timeouts"];
        let timeouts = &settings.timeouts;
        for (key, limit) in
            [("connect", timeouts.connect), ("first_token", timeouts.first_token), ("idle", timeouts.idle)]
        {
            // If only one of the two is set, the shorter one applies without an error.
            if self.spans.contains(&[&path[..], &[key]].concat())
                && self.spans.contains(&[&path[..], &["total"]].concat())
            {
                self.duration_order(&path, (key, limit), ("total", timeouts.total), diagnostics);
            }
        }
    }

    fn dialect(
        &self,
        settings: &provider::Settings,
        at: &dyn Fn(&[&str], String) -> Diagnostic,
        diagnostics: &mut Diagnostics,
    ) {
        let dialect = &settings.dialect;
        let has_version = |url: &String| url.ends_with("/v1") || url.ends_with("/v1beta");
        let appends_version = match settings.format {
            Format::Openai | Format::OpenaiResponses => false,
            Format::Anthropic | Format::Gemini => true,
        };
        if appends_version && settings.base_url.as_ref().is_some_and(has_version) {
            let message = "this format appends the version to the URL".to_owned();
            diagnostics.push(at(&["base_url"], message).with_help("remove the version from the end"));
        }
        let known: &[&str] = match settings.format {
            Format::Openai | Format::OpenaiResponses => &[],
            Format::Anthropic => &["2023-06-01", "2026-10-21"],
            Format::Gemini => &["v1beta", "v1"],
        };
        if let Some(version) = dialect.api_version.as_deref().filter(|version| !known.contains(version)) {
            let diagnostic = at(&["api_version"], format!("this format has no version {version:?}"));
            diagnostics.push(match known {
                [] => {
                    let format = settings.format.as_str();
                    diagnostic.with_help(format!("remove it: the {format} format has only one version"))
                }
                _ => diagnostic.with_help(format!("known versions: {}", known.join(", "))),
            });
        }
        if dialect.api_version.as_deref() == Some("2026-10-21") && settings.format == Format::Anthropic {
            for (alias, _) in settings.models.iter().filter(|(_, model)| model.temperature.is_some()) {
                let message = "Anthropic's API version 2026-10-21 does not support temperature".to_owned();
                let diagnostic = at(&["models", alias.as_str(), "temperature"], message);
                diagnostics.push(diagnostic.with_help("remove it, or write api_version = \"2023-06-01\""));
            }
        }
        if dialect.max_tokens_field != MaxTokensField::Auto && settings.format != Format::Openai {
            let message = "this does nothing: only the openai format has two names for this field".to_owned();
            diagnostics.push(at(&["max_tokens_field"], message).with_help("remove it"));
        }
    }

    fn route(&self, name: &RouteName, route: &Route, diagnostics: &mut Diagnostics) {
        let path = ["route", name.as_str(), "targets"];
        // The old name of the key is an error already.
        let old_path = ["route", name.as_str(), "lanes"];
        let is_reported = self.has_parse_error(&path) || self.spans.contains(&old_path);
        if route.targets.is_empty() && !is_reported {
            let diagnostic = self.spans.diagnostic(&path, format!("route `{name}` has no targets"));
            diagnostics.push(
                diagnostic.with_help(format!("list them in order of preference: {}", self.example_targets())),
            );
        }
        let hedges = route.hedge_after.is_some_and(|after| after != HedgeAfter::Off);
        if hedges && route.targets.len() == 1 {
            let message = "this does nothing: there is no second target".to_owned();
            let diagnostic = self.spans.diagnostic(&["route", name.as_str(), "hedge_after"], message);
            diagnostics.push(diagnostic.with_help("add a target, or remove it"));
        }
        self.simulated_mix(name, route, diagnostics);
        let mut seen = HashSet::new();
        for (number, target) in route.targets.iter().enumerate() {
            let number = number.to_string();
            let path = [&path[..], &[number.as_str()]].concat();
            let part = |key| {
                let key_path = [&path[..], &[key]].concat();
                if self.spans.contains(&key_path) { key_path } else { path.clone() }
            };
            if let Some((message, help)) = self.check_target(&target.name) {
                diagnostics.push(self.spans.diagnostic(&part("target"), message).with_help(help));
            }
            if !seen.insert(&target.name) {
                let message = format!("target `{}` is listed twice", target.name);
                diagnostics
                    .push(self.spans.diagnostic(&part("target"), message).with_help("remove one of them"));
            }
            let has_weight = self.spans.contains(&[&path[..], &["weight"]].concat());
            let policy_has_error = self.has_parse_error(&["route", name.as_str(), "policy"]);
            if has_weight && route.policy == Policy::Priority && !policy_has_error {
                let message = "a weight does nothing under policy \"priority\"";
                let help = "write policy = \"weighted\", or remove the weight";
                diagnostics.push(self.spans.diagnostic(&part("weight"), message).with_help(help));
            }
        }
    }

    /// Checks that a route's targets are all simulated or all real. Otherwise a simulated answer could replace a
    /// real one.
    fn simulated_mix(&self, name: &RouteName, route: &Route, diagnostics: &mut Diagnostics) {
        let targets = || route.targets.iter().enumerate();
        let Some((number, target)) = targets().find(|(_, target)| is_simulated(self.config, &target.name))
        else {
            return;
        };
        let is_real = |target: &TargetName| {
            self.config.providers.contains_key(&target.provider) && !is_simulated(self.config, target)
        };
        if !targets().any(|(_, target)| is_real(&target.name)) {
            return;
        }
        let number = number.to_string();
        let path = ["route", name.as_str(), "targets", number.as_str()];
        let key_path = [&path[..], &["target"]].concat();
        let path = if self.spans.contains(&key_path) { &key_path } else { &path[..] };
        let message = format!("route `{name}` mixes real targets with the simulated `{}`", target.name);
        let help = Advice::from("remove it, or give it its own route; to use no real target, ")
            .with_remedy(Remedy::Simulate);
        diagnostics.push(self.spans.diagnostic(path, message).with_help(help));
    }

    /// Checks the default route over all targets, for configurations without a route.
    pub(super) fn check_default_route(config: &Config, spans: &Spans<'_>) -> Diagnostics {
        let mut diagnostics = Diagnostics::default();
        let is_simulated_provider = |settings: &&provider::Settings| settings.is_simulated();
        let simulated_count = config.providers.values().filter(is_simulated_provider).count();
        let first_simulated = config.providers.iter().find(|(_, settings)| settings.is_simulated());
        if let Some((name, _)) = first_simulated.filter(|_| simulated_count < config.providers.len()) {
            let path = ["provider", name.as_str(), "base_url"];
            let message = format!(
                "provider `{name}` is simulated and others are real, and the default route would mix their targets"
            );
            let help = "write [route.NAME] with the targets of each route, or remove this provider: it is not \
                        needed to ";
            let help = Advice::from(help).with_remedy(Remedy::Simulate);
            diagnostics.push(spans.diagnostic(&path, message).with_help(help));
        }
        diagnostics
    }

    fn check_target(&self, target: &TargetName) -> Option<(String, String)> {
        let TargetName { provider, model } = target;
        let Some(settings) = self.config.providers.get(provider) else {
            let is_configured = self.spans.contains(&["provider", provider.as_str()]);
            let known = self.config.providers.keys().map(ProviderName::as_str);
            let help = suggest(provider.as_str(), known, "providers");
            return (!is_configured).then(|| (format!("there is no provider `{provider}`"), help));
        };
        let models = ["provider", provider.as_str(), "models"];
        let is_configured = self.spans.contains(&[&models[..], &[model.as_str()]].concat());
        if settings.models.contains_key(model) || is_configured || settings.models.is_empty() {
            return None;
        }
        let help = suggest(model.as_str(), settings.models.keys().map(|known| known.as_str()), "models");
        Some((format!("provider `{provider}` has no model `{model}`"), help))
    }

    fn default_route(&self, diagnostics: &mut Diagnostics) {
        let path = ["defaults", "route"];
        let Some(route) = &self.config.defaults.route else { return };
        if self.spans.contains(&path)
            && !self.config.routes.contains_key(route)
            && !self.has_parse_error(&["route", route.as_str()])
        {
            let known = self.config.routes.keys().map(RouteName::as_str);
            let diagnostic = self.spans.diagnostic(&path, format!("there is no route `{route}`"));
            diagnostics.push(diagnostic.with_help(suggest(route.as_str(), known, "routes")));
        }
    }

    /// Checks that each cap belongs to an existing provider.
    fn budget(&self, diagnostics: &mut Diagnostics) {
        for name in self.config.budget.provider.keys() {
            let is_configured = self.spans.contains(&["provider", name.as_str()]);
            if self.config.providers.contains_key(name) || is_configured {
                continue;
            }
            let known = self.config.providers.keys().map(ProviderName::as_str);
            let help = suggest(name.as_str(), known, "providers");
            let path = ["budget", "provider", name.as_str()];
            diagnostics
                .push(self.spans.diagnostic(&path, format!("there is no provider `{name}`")).with_help(help));
        }
    }

    /// Checks the names of the scopes. A scope with a budget needs no limits, and one with limits needs no budget.
    fn scopes(&self, diagnostics: &mut Diagnostics) {
        let limited = self.config.scopes.keys().map(|name| (["scope", name.as_str()].to_vec(), name));
        let with_budget =
            self.config.budget.scope.keys().map(|name| (["budget", "scope", name.as_str()].to_vec(), name));
        for (path, name) in limited.chain(with_budget) {
            if !is_scope_name(name) {
                let message = format!("{:?} cannot name a scope", name.as_str());
                let help = match name.token() {
                    Some(_) => {
                        "`token:` is for the scopes of tokens, whose limits are set when a token is created"
                    }
                    None => "write a name without a slash, such as team-a; it is not empty",
                };
                diagnostics.push(self.spans.diagnostic(&path, message).with_help(help));
            }
        }
    }

    /// Checks the settings of the daemon.
    fn serve(&self, diagnostics: &mut Diagnostics) {
        let serve = &self.config.serve;
        let mut report = |keys: &[&str], message: String, help: String| {
            let path = [&["serve"], keys].concat();
            diagnostics.push(self.spans.diagnostic(&path, message).with_help(help));
        };
        for (number, glob) in serve.pipelines.iter().enumerate() {
            if let Err(error) = glob.parse::<FileGlob>() {
                report(&["pipelines", &number.to_string()], error.to_string(), error.advice);
            }
        }
        for (number, folder) in serve.items.iter().enumerate() {
            if folder.as_os_str().is_empty() {
                let help = "write the path of a folder, such as \"items\"; the folder of this file is \".\"";
                report(&["items", &number.to_string()], "this path is empty".to_owned(), help.to_owned());
            }
        }
        let tls = &serve.tls;
        for (keys, path) in [
            (&["data"][..], &serve.data),
            (&["tls", "certificate"], &tls.certificate),
            (&["tls", "key"], &tls.key),
        ] {
            if path.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
                report(keys, "this path is empty".to_owned(), "write a path, or remove the key".to_owned());
            }
        }
        for (key, is_set, other, other_is_set) in [
            ("certificate", tls.certificate.is_some(), "key", tls.key.is_some()),
            ("key", tls.key.is_some(), "certificate", tls.certificate.is_some()),
        ] {
            if is_set && !other_is_set && !self.has_parse_error(&["serve", "tls", other]) {
                let help = format!("add {other} = \"FILE\" to [serve.tls], or remove `{key}`");
                report(&["tls", key], format!("`{key}` does nothing without `{other}`"), help);
            }
        }
        if serve.drain > MAX_DRAIN {
            let message = format!("`drain` ({}) is longer than an hour", duration::format(&serve.drain));
            let help = "write drain = \"1h\" or less: what has not ended then is resumed at the next start";
            report(&["drain"], message, help.to_owned());
        }
        if serve.max_body.0 > serve.max_upload.0 {
            let has_body = self.spans.contains(&["serve", "max_body"]);
            let key = if has_body { "max_body" } else { "max_upload" };
            let message =
                format!("`max_body` ({}) is larger than `max_upload` ({})", serve.max_body, serve.max_upload);
            report(&[key], message, "make `max_body` smaller or `max_upload` larger".to_owned());
        }
    }

    /// Checks that the second duration is not shorter than the first.
    fn duration_order(
        &self,
        path: &[&str],
        (low, low_value): (&str, Duration),
        (high, high_value): (&str, Duration),
        diagnostics: &mut Diagnostics,
    ) {
        if high_value >= low_value {
            return;
        }
        let at = |key| [path, &[key]].concat();
        let key = if self.spans.contains(&at(high)) { high } else { low };
        let message = format!(
            "`{high}` ({}) is shorter than `{low}` ({})",
            duration::format(&high_value),
            duration::format(&low_value)
        );
        let help = format!("make `{high}` longer or `{low}` shorter");
        diagnostics.push(self.spans.diagnostic(&at(key), message).with_help(help));
    }

    fn has_parse_error(&self, path: &[&str]) -> bool {
        self.spans.has_diagnostic(path, self.parse_diagnostics)
    }

    fn is_empty_string(&self, path: &[&str]) -> bool {
        let is_here = |text: &&crate::diagnostics::TomlString| {
            text.path.iter().map(String::as_str).eq(path.iter().copied())
        };
        self.spans.strings().iter().find(is_here).is_some_and(|text| text.value.trim().is_empty())
    }

    fn example_targets(&self) -> String {
        let targets = self.config.targets().take(3).map(|target| format!("\"{target}\""));
        format!("targets = [{}]", targets.collect::<Vec<_>>().join(", "))
    }
}

/// Returns whether a name can be that of a scope. Requests without a scope have the empty name. The scopes of tokens have
/// the limits that the tokens were created with.
fn is_scope_name(name: &ScopeName) -> bool {
    !name.is_empty() && !name.as_str().contains('/') && name.token().is_none() && name.check().is_ok()
}

fn is_simulated(config: &Config, target: &TargetName) -> bool {
    config.providers.get(&target.provider).is_some_and(provider::Settings::is_simulated)
}

/// Returns help for an unknown name: a similar name, or the list of known names.
pub(crate) fn suggest<'k>(wrong: &str, known: impl Iterator<Item = &'k str>, what: &str) -> String {
    let known: Vec<&str> = known.collect();
    match nearest(wrong, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None if known.is_empty() => format!("there are no {what} yet"),
        None => format!("known {what}: {}", known.join(", ")),
    }
}
