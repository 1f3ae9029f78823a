//! Lints a configuration. Settings that can never work are errors. Settings without effect, or with a probable
//! mistake, are notes.
//!
//! A setting is an error only if no pipeline and no response of a provider can make it work.

use std::num::NonZeroU32;

use crate::diagnostics::{Diagnostic, Diagnostics, Spans};
use crate::guard::{BreakerSettings, BurstSettings};
use crate::pipeline::Defaults;
use crate::provider::{self, Limits, Model, OutputReservation};
use crate::router::{HedgeAfter, RetrySettings, Route};
use crate::types::{ProviderName, RouteName, duration};

use super::Config;

/// Lints of a configuration that was parsed from a document.
pub(super) struct Linter<'a> {
    config: &'a Config,
    spans: &'a Spans<'a>,
    /// Settings that can never work.
    pub(super) diagnostics: Diagnostics,
    /// Settings without effect.
    pub(super) notes: Vec<Diagnostic>,
}

impl<'a> Linter<'a> {
    /// Runs all lints.
    pub(super) fn run(config: &'a Config, spans: &'a Spans<'a>) -> Self {
        let mut linter = Self { config, spans, diagnostics: Diagnostics::default(), notes: Vec::new() };
        for (name, settings) in &config.providers {
            linter.provider(name, settings);
        }
        for (name, route) in &config.routes {
            linter.route(name, route);
        }
        linter.retry();
        linter.serve();
        #[cfg(feature = "simulator")]
        linter.simulator();
        linter
    }

    fn error(&mut self, path: &[&str], message: String, help: &str) {
        self.diagnostics.push(self.spans.diagnostic(path, message).with_help(help));
    }

    fn note(&mut self, path: &[&str], message: String, help: &str) {
        self.notes.push(self.spans.diagnostic(path, message).with_help(help));
    }

    fn is_set(&self, path: &[&str]) -> bool {
        self.spans.contains(path)
    }

    fn provider(&mut self, name: &ProviderName, settings: &provider::Settings) {
        let account = ["provider", name.as_str(), "limits"];
        self.burst(&account, &settings.limits);
        self.token_limits(&account, &settings.limits);
        self.breaker_window(name, settings);
        self.base_url(name, settings);
        self.first_token(name, settings);
        self.embedding_inputs(name, settings);
        for (alias, model) in &settings.models {
            let path = ["provider", name.as_str(), "models", alias.as_str()];
            let own = [&path[..], &["limits"]].concat();
            if let Some(limits) = &model.limits {
                self.burst(&own, limits);
                self.token_limits(&own, limits);
                self.limits_above_account(&own, limits, &settings.limits);
            }
            self.context_for_prompt(&path, model);
            self.price_of_tier(&path, model);
            if settings.output_reservation == OutputReservation::MaxTokens {
                self.reservation(&path, settings, model);
            }
        }
    }

    /// A note, because a server may have such a URL.
    fn base_url(&mut self, name: &ProviderName, settings: &provider::Settings) {
        let url = settings.base_url.as_deref();
        if let Some((message, help)) = url.and_then(|url| provider::advise_base_url(settings.format, url)) {
            self.note(&["provider", name.as_str(), "base_url"], message.to_owned(), &help);
        }
    }

    /// Nothing of a whole response arrives before its end.
    fn first_token(&mut self, name: &ProviderName, settings: &provider::Settings) {
        let path = ["provider", name.as_str(), "timeouts", "first_token"];
        if self.is_set(&path) && !settings.dialect.stream.asks_for_stream() {
            let message =
                "this does nothing: with stream = \"never\" an answer arrives in one piece".to_owned();
            self.note(&path, message, "remove it; `total` limits the time to the answer");
        }
    }

    /// Only requests for embeddings are joined.
    fn embedding_inputs(&mut self, name: &ProviderName, settings: &provider::Settings) {
        let path = ["provider", name.as_str(), "embedding_inputs"];
        if self.is_set(&path) && settings.embedding_limits(None).is_none() {
            let message =
                format!("this does nothing: the format {} has no embeddings", settings.format.as_str());
            self.note(&path, message, "remove it");
        }
    }

    /// A call that reserves its `max_tokens` from a smaller limit is never sent.
    fn reservation(&mut self, path: &[&str], settings: &provider::Settings, model: &Model) {
        let limits = [Some(&settings.limits), model.limits.as_ref()];
        let written = limits.iter().flatten().flat_map(|limits| {
            let with_key = |key, limit: Option<NonZeroU32>| Some((limit?.get(), key));
            let tokens = with_key("tokens_per_minute", limits.tokens_per_minute);
            tokens.into_iter().chain(with_key("output_tokens_per_minute", limits.output_tokens_per_minute))
        });
        let Some((limit, key)) = written.min() else { return };
        let over_limit_message = |max_tokens: u32| {
            format!(
                "a call would reserve its max_tokens of {max_tokens} from {key} = {limit} (output_reservation = \"max_tokens\"), so no call can be sent"
            )
        };
        if let Some(max_tokens) = model.max_tokens.filter(|max_tokens| max_tokens.get() > limit) {
            let at = [path, &["max_tokens"]].concat();
            self.error(
                &at,
                over_limit_message(max_tokens.get()),
                &format!("write max_tokens = {limit} or less, or output_reservation = \"p95\""),
            );
            return;
        }
        let by_default = self.config.defaults.max_tokens.map(NonZeroU32::get);
        if let Some(max_tokens) = by_default.filter(|max_tokens| *max_tokens > limit) {
            let message = format!("{} at {}", over_limit_message(max_tokens), path[1]);
            let help = "this target is used only by steps with a smaller max_tokens";
            self.note(&["defaults", "max_tokens"], message, help);
            return;
        }
        let is_unset = by_default.is_none() && model.max_tokens.is_none();
        if let Some(max_tokens) =
            settings.format.default_max_tokens().filter(|max_tokens| is_unset && *max_tokens > limit)
        {
            let message =
                format!("the default max_tokens of this format is {max_tokens}, and {key} is {limit}");
            self.note(path, message, &format!("write max_tokens = {limit} or less for this model"));
        }
    }

    fn context_for_prompt(&mut self, path: &[&str], model: &Model) {
        let (Some(max_tokens), Some(context)) = (model.max_tokens, model.context) else { return };
        if u64::from(max_tokens.get()) >= context.get() {
            let at = [path, &["max_tokens"]].concat();
            let message =
                format!("max_tokens = {max_tokens} leaves no room for a prompt in a context of {context}");
            self.error(&at, message, "write a smaller max_tokens, or remove it");
        }
    }

    /// A note, because some tiers cost as much as the standard one.
    fn price_of_tier(&mut self, path: &[&str], model: &Model) {
        const KEY: &str = "service_tier";
        let tier =
            model.extra.as_ref().and_then(|fields| fields.get(KEY)).and_then(serde_json::Value::as_str);
        let is_other =
            tier.is_some_and(|tier| !["auto", "default", "standard", "standard_only"].contains(&tier));
        if is_other && model.has_builtin_price {
            let at = [path, &["extra", KEY]].concat();
            let message = "the built-in price of this model is that of the standard tier".to_owned();
            self.note(&at, message, "write the price of this tier: price = { input = ..., output = ... }");
        }
    }

    /// A note, because the provider's headers may advertise limits to which the burst applies.
    fn burst(&mut self, path: &[&str], limits: &Limits) {
        let Limits { requests_per_minute, tokens_per_minute, .. } = limits;
        let Limits { input_tokens_per_minute, output_tokens_per_minute, .. } = limits;
        let by_minute =
            [requests_per_minute, tokens_per_minute, input_tokens_per_minute, output_tokens_per_minute];
        let at = [path, &["burst"]].concat();
        if self.is_set(&at)
            && limits.burst != BurstSettings::Auto
            && by_minute.iter().all(|limit| limit.is_none())
        {
            let message = "no limit per minute is set with this burst, so it applies only to limits in \
                           the provider's headers"
                .to_owned();
            self.note(&at, message, "write a limit such as requests_per_minute, or remove the burst");
        }
    }

    /// A limit of input or output tokens above the limit of all tokens has no effect.
    fn token_limits(&mut self, path: &[&str], limits: &Limits) {
        let Some(all) = limits.tokens_per_minute else { return };
        for (key, limit) in [
            ("input_tokens_per_minute", limits.input_tokens_per_minute),
            ("output_tokens_per_minute", limits.output_tokens_per_minute),
        ] {
            if let Some(limit) = limit.filter(|limit| *limit > all) {
                let message = format!("{key} = {limit} is never reached: tokens_per_minute is {all}");
                self.note(&[path, &[key]].concat(), message, "remove it, or write a smaller limit");
            }
        }
    }

    fn limits_above_account(&mut self, path: &[&str], own: &Limits, account: &Limits) {
        for ((key, own), (_, account)) in countable_limits(own).into_iter().zip(countable_limits(account)) {
            let (Some(own), Some(account)) = (own, account) else { continue };
            if own > account {
                let message = format!(
                    "{key} = {own} of this model is never reached: the limit of the account is {account}"
                );
                self.note(
                    &[path, &[key]].concat(),
                    message,
                    "a model's limits apply in addition to the account's; remove it, or raise the account's",
                );
            }
        }
    }

    /// The upper bound of calls in a window is the rate during the window plus a burst of one minute.
    fn breaker_window(&mut self, name: &ProviderName, settings: &provider::Settings) {
        let BreakerSettings { window, min_requests, .. } = settings.breaker;
        let path = ["provider", name.as_str(), "breaker"];
        let key =
            ["min_requests", "window"].into_iter().find(|key| self.is_set(&[&path[..], &[key]].concat()));
        let by_second = settings.limits.requests_per_second.map(|limit| f64::from(limit.get()) * 60.0);
        let by_minute = settings.limits.requests_per_minute.map(|limit| f64::from(limit.get()));
        let (Some(key), Some(limit)) = (key, by_minute.into_iter().chain(by_second).reduce(f64::min)) else {
            return;
        };
        let max_calls = limit * (window.as_secs_f64() / 60.0 + 1.0);
        if f64::from(min_requests.get()) > max_calls {
            let window = duration::format(&window);
            let message = format!(
                "at {limit} calls per minute there are never {min_requests} calls within {window}, so `failure_rate` never applies"
            );
            self.note(
                &[&path[..], &[key]].concat(),
                message,
                "write a smaller min_requests or a longer window",
            );
        }
    }

    fn route(&mut self, name: &RouteName, route: &Route) {
        if route.targets.len() == 1 && route.failover_refusals == Some(true) {
            let message = "this does nothing: there is no second target".to_owned();
            self.error(&["route", name.as_str(), "failover_refusals"], message, "add a target, or remove it");
        }
    }

    fn retry(&mut self) {
        let RetrySettings { hedge_after, failover_refusals, hedge_ratio, .. } = self.config.retry;
        let routes = &self.config.routes;
        // Without a route there is a default route over all targets.
        let single_target = match routes.is_empty() {
            true => self.config.targets().count() == 1,
            false => routes.values().all(|route| route.targets.len() == 1),
        };
        let hedges = hedge_after != HedgeAfter::Off;
        for (key, is_set) in [("hedge_after", hedges), ("failover_refusals", failover_refusals)] {
            if is_set && single_target {
                let message = format!("{key} does nothing: no route has a second target");
                self.note(&["retry", key], message, "add a target to a route, or remove it");
            }
        }
        let is_hedged = |route: &Route| route.hedge_after.is_some_and(|after| after != HedgeAfter::Off);
        if hedge_ratio != RetrySettings::default().hedge_ratio && !hedges && !routes.values().any(is_hedged) {
            let message = "hedge_ratio does nothing: hedge_after is \"off\" everywhere".to_owned();
            self.note(
                &["retry", "hedge_ratio"],
                message,
                "write hedge_after = \"p95\" as well, or remove it",
            );
        }
        let Defaults { max_tokens, .. } = self.config.defaults;
        let models = || self.config.providers.values().flat_map(|settings| settings.models.values());
        let fills_context = |model: &Model, max_tokens: NonZeroU32| {
            model.context.is_some_and(|context| u64::from(max_tokens.get()) >= context.get())
        };
        if let Some(max_tokens) =
            max_tokens.filter(|max_tokens| models().any(|model| fills_context(model, *max_tokens)))
        {
            let message = format!(
                "max_tokens = {max_tokens} leaves no room for a prompt in the smallest context of the models"
            );
            self.note(&["defaults", "max_tokens"], message, "write less, or set max_tokens in each step");
        }
    }

    /// Notes, because a folder may be created or mounted before the daemon starts.
    fn serve(&mut self) {
        let serve = &self.config.serve;
        for (number, folder) in serve.items.iter().enumerate() {
            if !folder.as_os_str().is_empty() && !folder.is_dir() {
                let message = format!("there is no folder {}", folder.display());
                let help = "create it, or remove it from the list; until then no run can name a file in it";
                self.note(&["serve", "items", &number.to_string()], message, help);
            }
        }
    }

    #[cfg(feature = "simulator")]
    fn simulator(&mut self) {
        use crate::simulator::{BucketSize, OutputAccounting};
        let limits = &self.config.simulator.limits;
        let at = |key| ["simulator", "limits", key];
        let request_and_token_limits = [
            limits.requests_per_minute,
            limits.tokens_per_minute,
            limits.input_tokens_per_minute,
            limits.output_tokens_per_minute,
        ];
        let background = limits.background_requests_per_minute;
        match limits.requests_per_minute {
            Some(limit) if background > limit.get() => {
                let message = format!("other clients use {background} of requests_per_minute = {limit}");
                self.error(
                    &at("background_requests_per_minute"),
                    message,
                    "write less than requests_per_minute",
                );
            }
            Some(limit) if background == limit.get() => {
                let message = format!("other clients use all {limit} requests per minute");
                self.note(
                    &at("background_requests_per_minute"),
                    message,
                    "write less, or no call is answered",
                );
            }
            None if background > 0 => {
                let message =
                    "background_requests_per_minute does nothing without requests_per_minute".to_owned();
                self.note(
                    &at("background_requests_per_minute"),
                    message,
                    "write requests_per_minute as well, or remove it",
                );
            }
            _ => {}
        }
        let has_output = limits.tokens_per_minute.is_some() || limits.output_tokens_per_minute.is_some();
        for (key, does_nothing, needs) in [
            ("per_model", limits.per_model && request_and_token_limits == [None; 4], "a limit"),
            (
                "shared_across_keys",
                limits.shared_across_keys && request_and_token_limits == [None; 4],
                "a limit",
            ),
            (
                "bucket",
                limits.bucket != BucketSize::Minute && request_and_token_limits == [None; 4],
                "a limit",
            ),
            ("starts_full", !limits.starts_full && request_and_token_limits == [None; 4], "a limit"),
            (
                "output_accounting",
                limits.output_accounting != OutputAccounting::Used && !has_output,
                "a limit of tokens",
            ),
        ] {
            if does_nothing {
                let message = format!("{key} does nothing without {needs}");
                self.note(&at(key), message, &format!("set {needs} as well, or remove it"));
            }
        }
    }
}

/// Returns all countable limits with their keys.
fn countable_limits(limits: &Limits) -> [(&'static str, Option<NonZeroU32>); 6] {
    [
        ("requests_per_minute", limits.requests_per_minute),
        ("requests_per_second", limits.requests_per_second),
        ("requests_per_day", limits.requests_per_day),
        ("tokens_per_minute", limits.tokens_per_minute),
        ("input_tokens_per_minute", limits.input_tokens_per_minute),
        ("output_tokens_per_minute", limits.output_tokens_per_minute),
    ]
}
