//! Finds settings that can never work, and notes those that change nothing or probably mean something else.
//!
//! Refuses only what no pipeline and no answer of a provider could give a meaning to: the rest is noted,
//! and runs.

use std::num::NonZeroU32;

use crate::document::{Fault, Faults, Places};
use crate::guard::{BreakerSettings, BurstSettings};
use crate::pipeline::Defaults;
use crate::provider::{self, Limits, Model, Reserve};
use crate::router::{HedgeAfter, RetrySettings, Route};
use crate::types::{ProviderName, RouteName, duration};

use super::Config;

/// Looks for what is in vain in a configuration that was read from a document.
pub(super) struct Vain<'a> {
    config: &'a Config,
    places: &'a Places<'a>,
    /// What can never work.
    pub(super) faults: Faults,
    /// What changes nothing.
    pub(super) notes: Vec<Fault>,
}

impl<'a> Vain<'a> {
    /// Finds everything.
    pub(super) fn find(config: &'a Config, places: &'a Places<'a>) -> Self {
        let mut vain = Self { config, places, faults: Faults::default(), notes: Vec::new() };
        for (name, settings) in &config.providers {
            vain.provider(name, settings);
        }
        for (name, route) in &config.routes {
            vain.route(name, route);
        }
        vain.retry();
        #[cfg(feature = "server")]
        vain.simulator();
        vain
    }

    fn fault(&mut self, path: &[&str], message: String, advice: &str) {
        self.faults.push(self.places.fault(path, message).advise(advice));
    }

    fn note(&mut self, path: &[&str], message: String, advice: &str) {
        self.notes.push(self.places.fault(path, message).advise(advice));
    }

    fn has(&self, path: &[&str]) -> bool {
        self.places.has(path)
    }

    fn provider(&mut self, name: &ProviderName, settings: &provider::Settings) {
        let account = ["provider", name.as_str(), "limits"];
        self.burst(&account, &settings.limits);
        self.within(&account, &settings.limits);
        self.window(name, settings);
        self.address(name, settings);
        for (alias, model) in &settings.models {
            let path = ["provider", name.as_str(), "models", alias.as_str()];
            let own = [&path[..], &["limits"]].concat();
            if let Some(limits) = &model.limits {
                self.burst(&own, limits);
                self.within(&own, limits);
                self.above_the_account(&own, limits, &settings.limits);
            }
            self.room_for_a_prompt(&path, model);
            if settings.reserve == Reserve::MaxTokens {
                self.reserved(&path, settings, model);
            }
        }
    }

    /// A server may be so, hence a note.
    fn address(&mut self, name: &ProviderName, settings: &provider::Settings) {
        let url = settings.base_url.as_deref();
        if let Some((message, advice)) = url.and_then(|url| provider::advise_base_url(settings.format, url)) {
            self.note(&["provider", name.as_str(), "base_url"], message.to_owned(), &advice);
        }
    }

    /// A call that takes all of its `max_tokens` from a limit which is smaller never leaves.
    fn reserved(&mut self, path: &[&str], settings: &provider::Settings, model: &Model) {
        let limits = [Some(&settings.limits), model.limits.as_ref()];
        let written = limits.iter().flatten().flat_map(|limits| {
            let of = |key, limit: Option<NonZeroU32>| Some((limit?.get(), key));
            let tokens = of("tokens_per_minute", limits.tokens_per_minute);
            tokens.into_iter().chain(of("output_tokens_per_minute", limits.output_tokens_per_minute))
        });
        let Some((limit, key)) = written.min() else { return };
        let refused = |most: u32| {
            format!(
                "a call would take its max_tokens of {most} from {key} = {limit} (reserve = \"max_tokens\"), and none fits"
            )
        };
        if let Some(most) = model.max_tokens.filter(|most| most.get() > limit) {
            let at = [path, &["max_tokens"]].concat();
            self.fault(
                &at,
                refused(most.get()),
                &format!("write max_tokens = {limit} or less, or reserve = \"learned\""),
            );
            return;
        }
        let by_default = self.config.defaults.max_tokens.map(NonZeroU32::get);
        if let Some(most) = by_default.filter(|most| *most > limit) {
            let message = format!("{} at {}", refused(most), path[1]);
            let advice = "this lane answers only steps with a smaller max_tokens of their own";
            self.note(&["defaults", "max_tokens"], message, advice);
            return;
        }
        let unsaid = by_default.is_none() && model.max_tokens.is_none();
        if let Some(most) = settings.format.assumed_max_tokens().filter(|most| unsaid && *most > limit) {
            let message = format!("where nobody says, {most} max_tokens are asked for, and {key} is {limit}");
            self.note(path, message, &format!("write max_tokens = {limit} or less for this model"));
        }
    }

    fn room_for_a_prompt(&mut self, path: &[&str], model: &Model) {
        let (Some(most), Some(context)) = (model.max_tokens, model.context) else { return };
        if u64::from(most.get()) >= context.get() {
            let at = [path, &["max_tokens"]].concat();
            let message =
                format!("max_tokens = {most} leaves no room for a prompt in a context of {context}");
            self.fault(&at, message, "write a smaller max_tokens, or leave it out");
        }
    }

    /// The provider's headers may name limits that a burst applies to, hence a note.
    fn burst(&mut self, path: &[&str], limits: &Limits) {
        let Limits { requests_per_minute, tokens_per_minute, .. } = limits;
        let Limits { input_tokens_per_minute, output_tokens_per_minute, .. } = limits;
        let by_minute =
            [requests_per_minute, tokens_per_minute, input_tokens_per_minute, output_tokens_per_minute];
        let at = [path, &["burst"]].concat();
        if self.has(&at)
            && limits.burst != BurstSettings::Auto
            && by_minute.iter().all(|limit| limit.is_none())
        {
            let message = "no limit a minute stands beside this burst, so it only holds for what the \
                           provider's headers name"
                .to_owned();
            self.note(&at, message, "write a limit such as requests_per_minute, or take the burst out");
        }
    }

    /// A part of the tokens cannot be more than all of them.
    fn within(&mut self, path: &[&str], limits: &Limits) {
        let Some(all) = limits.tokens_per_minute else { return };
        for (key, limit) in [
            ("input_tokens_per_minute", limits.input_tokens_per_minute),
            ("output_tokens_per_minute", limits.output_tokens_per_minute),
        ] {
            if let Some(limit) = limit.filter(|limit| *limit > all) {
                let message = format!("{key} = {limit} is never reached: tokens_per_minute is {all}");
                self.note(&[path, &[key]].concat(), message, "take it out, or make it smaller");
            }
        }
    }

    fn above_the_account(&mut self, path: &[&str], own: &Limits, account: &Limits) {
        for ((key, own), (_, account)) in counts(own).into_iter().zip(counts(account)) {
            let (Some(own), Some(account)) = (own, account) else { continue };
            if own > account {
                let message =
                    format!("{key} = {own} of this model is never reached: the account's is {account}");
                self.note(
                    &[path, &[key]].concat(),
                    message,
                    "a model's limits hold beside the account's; take it out, or raise the account's",
                );
            }
        }
    }

    /// Counts generously: the window's worth, and a burst of a whole minute's.
    fn window(&mut self, name: &ProviderName, settings: &provider::Settings) {
        let BreakerSettings { window, min_calls, .. } = settings.breaker;
        let path = ["provider", name.as_str(), "breaker"];
        let written = ["min_calls", "window"].into_iter().find(|key| self.has(&[&path[..], &[key]].concat()));
        let by_second = settings.limits.requests_per_second.map(|limit| f64::from(limit.get()) * 60.0);
        let by_minute = settings.limits.requests_per_minute.map(|limit| f64::from(limit.get()));
        let (Some(key), Some(limit)) = (written, by_minute.into_iter().chain(by_second).reduce(f64::min))
        else {
            return;
        };
        let most = limit * (window.as_secs_f64() / 60.0 + 1.0);
        if f64::from(min_calls.get()) > most {
            let shown = duration::show(&window);
            let message = format!(
                "at {limit} calls a minute no {shown} hold {min_calls} calls, so `failure_share` never counts"
            );
            self.note(&[&path[..], &[key]].concat(), message, "write a smaller min_calls or a longer window");
        }
    }

    fn route(&mut self, name: &RouteName, route: &Route) {
        if route.lanes.len() == 1 && route.failover_refusals == Some(true) {
            let message = "this does nothing: there is no second lane to ask".to_owned();
            self.fault(&["route", name.as_str(), "failover_refusals"], message, "add a lane, or take it out");
        }
    }

    fn retry(&mut self) {
        let RetrySettings { hedge_after, failover_refusals, hedge_share, .. } = self.config.retry;
        let routes = &self.config.routes;
        // Without a route there is one over everything.
        let alone = match routes.is_empty() {
            true => self.config.lanes().count() == 1,
            false => routes.values().all(|route| route.lanes.len() == 1),
        };
        let hedges = hedge_after != HedgeAfter::Off;
        for (key, is_set) in [("hedge_after", hedges), ("failover_refusals", failover_refusals)] {
            if is_set && alone {
                let message = format!("{key} does nothing: no route has a second lane to ask");
                self.note(&["retry", key], message, "add a lane to a route, or take it out");
            }
        }
        let anywhere = |route: &Route| route.hedge_after.is_some_and(|after| after != HedgeAfter::Off);
        if hedge_share != RetrySettings::default().hedge_share && !hedges && !routes.values().any(anywhere) {
            let message = "hedge_share does nothing: hedge_after is \"off\" everywhere".to_owned();
            self.note(&["retry", "hedge_share"], message, "write hedge_after = \"p95\", too, or take it out");
        }
        let Defaults { max_tokens, .. } = self.config.defaults;
        let contexts = || self.config.providers.values().flat_map(|settings| settings.models.values());
        let full = |model: &Model, most: NonZeroU32| {
            model.context.is_some_and(|context| u64::from(most.get()) >= context.get())
        };
        if let Some(most) = max_tokens.filter(|most| contexts().any(|model| full(model, *most))) {
            let message = format!(
                "max_tokens = {most} leaves no room for a prompt in the smallest context of the models"
            );
            self.note(&["defaults", "max_tokens"], message, "write less, or a max_tokens in each step");
        }
    }

    #[cfg(feature = "server")]
    fn simulator(&mut self) {
        use crate::simulator::{BucketSize, OutputCounts};
        let limits = &self.config.simulator.limits;
        let at = |key| ["simulator", "limits", key];
        let any = [
            limits.requests_per_minute,
            limits.tokens_per_minute,
            limits.input_tokens_per_minute,
            limits.output_tokens_per_minute,
        ];
        let others = limits.others_per_minute;
        match limits.requests_per_minute {
            Some(limit) if others > limit.get() => {
                let message = format!("somebody else takes {others} of requests_per_minute = {limit}");
                self.fault(&at("others_per_minute"), message, "write less than requests_per_minute");
            }
            Some(limit) if others == limit.get() => {
                let message = format!("somebody else takes all {limit} requests a minute");
                self.note(&at("others_per_minute"), message, "write less if calls are to be answered");
            }
            None if others > 0 => {
                let message = "others_per_minute does nothing without requests_per_minute".to_owned();
                self.note(
                    &at("others_per_minute"),
                    message,
                    "write requests_per_minute, too, or take it out",
                );
            }
            _ => {}
        }
        let has_output = limits.tokens_per_minute.is_some() || limits.output_tokens_per_minute.is_some();
        for (key, does_nothing, needs) in [
            ("per_model", limits.per_model && any == [None; 4], "a limit"),
            ("shared", limits.shared && any == [None; 4], "a limit"),
            ("bucket", limits.bucket != BucketSize::Minute && any == [None; 4], "a limit"),
            ("starts_full", !limits.starts_full && any == [None; 4], "a limit"),
            ("output_counts", limits.output_counts != OutputCounts::Used && !has_output, "a limit of tokens"),
        ] {
            if does_nothing {
                let message = format!("{key} does nothing without {needs}");
                self.note(&at(key), message, &format!("write {needs} beside it, or take it out"));
            }
        }
    }
}

/// Every limit that is counted, by its key.
fn counts(limits: &Limits) -> [(&'static str, Option<NonZeroU32>); 6] {
    [
        ("requests_per_minute", limits.requests_per_minute),
        ("requests_per_second", limits.requests_per_second),
        ("requests_per_day", limits.requests_per_day),
        ("tokens_per_minute", limits.tokens_per_minute),
        ("input_tokens_per_minute", limits.input_tokens_per_minute),
        ("output_tokens_per_minute", limits.output_tokens_per_minute),
    ]
}
