//! Estimates a run from the prompts of its items, or from a sample.

use std::num::NonZeroUsize;

use indexmap::{IndexMap, IndexSet};

use crate::pipeline::{Pipeline, Step};
use crate::provider::{Model, Settings};
use crate::router::Target;
use crate::run::MAX_WINDOW;
use crate::runtime::current::Current;
use crate::runtime::pointsman::Pointsman;
use crate::types::{EmbeddingLimits, Price, ProviderName, RouteName, StepName, TargetName};

use super::cache;
use super::input_scan::InputScan;
use super::joined::{StepLoad, joined_plan, sampled_calls};
use super::plan::{Plan, StepPlan, TargetPlan};
use super::range::{self, Range};
use super::sample::Sample;
use super::time;

/// The price of a simulated provider.
const FREE: Price =
    Price { input: 0.0, output: 0.0, cached: None, cache_write: None, cache_write_1h: None, long: None };

impl Pointsman {
    /// Estimates the run of a scanned input, from `sample` if there is one.
    #[doc(hidden)]
    pub fn plan(&self, pipeline: &Pipeline, scan: &InputScan, sample: Option<&Sample>) -> Plan {
        let current = self.current();
        let mut steps: IndexMap<StepName, StepPlan> = IndexMap::new();
        for (at, step) in pipeline.steps().iter().enumerate() {
            let first = current.estimated_target(step);
            let price = first.and_then(|(_, settings, model)| price_of(settings, model));
            let mut plan = match sample {
                Some(sample) => sample.step(&step.name, &step.route, scan.items),
                None => scan.rendered.step(at, &step.route, scan.items, price),
            };
            plan.estimated_at = first.filter(|_| sample.is_none()).map(|(target, ..)| target.clone());
            plan.cache =
                cache::cache_plan(step, plan.calls, first.map(|(_, settings, model)| (settings, model)));
            if let Some(cache) = plan.cache.as_mut().filter(|cache| cache.cached) {
                match sample {
                    // What the sample cost includes what its requests have written and read.
                    Some(sample) => {
                        let saved = sample.cache_savings(&step.name, scan.items);
                        cache.uncached_cost_usd = plan.cost_usd.map(|cost| cost + saved);
                    }
                    None => {
                        cache.uncached_cost_usd = plan.cost_usd;
                        let saved = price.map(|price| cache::savings(step, &price, plan.input, plan.calls));
                        plan.cost_usd = plan.cost_usd.zip(saved).map(|(cost, saved)| cost + saved * -1.0);
                    }
                }
            }
            if let Some(limits) = step.embedding.and_then(|_| current.embedding_limits(&step.route)) {
                let mut requests = plan.calls;
                if let Some(sample) = sample {
                    requests = sample.requests(&step.name, scan.items);
                    plan.calls = sampled_calls(requests, sample.calls_per_request(&step.name), limits);
                }
                let load = StepLoad { requests, calls: plan.calls, input: plan.input };
                plan.joined = joined_plan(load, limits, current.max_items_in_flight());
            }
            steps.insert(step.name.clone(), plan);
        }
        let sum = |of: fn(&StepPlan) -> Range| steps.values().map(of).sum::<Range>();
        let cost: Option<Vec<Range>> = steps.values().map(|step| step.cost_usd).collect();
        let guessed = cost.map(|costs| costs.into_iter().sum());
        let mut plan = Plan {
            pipeline: pipeline.name().to_owned(),
            items: scan.items,
            rejected: scan.rejected,
            sampled: sample.map_or(0, Sample::items),
            sample_failed: sample.map_or(0, Sample::failed),
            no_calls: None,
            calls: sum(|step| step.calls),
            input: sum(|step| step.input),
            output: sum(|step| step.output),
            cost_usd: sample.map_or(guessed, |sample| sample.cost(scan.items)),
            spent_usd: sample.and_then(Sample::spent),
            routes: IndexMap::new(),
            bounds: Vec::new(),
            steps,
        };
        plan.no_calls = (plan.calls.likely == 0.0).then(|| scan.no_calls());
        plan.routes = current.compare_targets(pipeline, &plan, sample);
        plan.bounds = time::bounds(&current, pipeline, &plan, sample);
        plan
    }
}

impl Current {
    /// Returns the targets of the routes of `plan`, each with the cost of all requests there that it can answer. Targets
    /// that can answer none are left out.
    fn compare_targets(
        &self,
        pipeline: &Pipeline,
        plan: &Plan,
        sample: Option<&Sample>,
    ) -> IndexMap<RouteName, Vec<TargetPlan>> {
        let compare = |route: &RouteName| {
            let targets = self.configured_targets(route).filter_map(|(target, settings, model)| {
                let steps = || {
                    let of_route = pipeline.steps().iter().filter(|step| step.route == *route);
                    of_route.filter(|step| self.can_answer(step, target))
                };
                steps().next()?;
                let sum = |of: fn(&StepPlan) -> Range| -> Range {
                    steps().filter_map(|step| plan.steps.get(&step.name)).map(of).sum()
                };
                let input = sum(|step| step.input);
                let output = sum(|step| step.output);
                let price = price_of(settings, model);
                let saved_in = |step: &Step, price: &Price| {
                    let of_step = plan.steps.get(&step.name)?;
                    let cache = cache::cache_plan(step, of_step.calls, Some((settings, model)))?;
                    cache.cached.then(|| cache::savings(step, price, of_step.input, of_step.calls))
                };
                let saved =
                    |price: &Price| -> Range { steps().filter_map(|step| saved_in(step, price)).sum() };
                Some(TargetPlan {
                    target: target.clone(),
                    price: model.price,
                    cost_usd: price
                        .map(|price| range::cost(&price, input, output, plan.calls) + saved(&price) * -1.0),
                    share: sample.map(|sample| sample.share_of(target)),
                    simulated: self.config.simulate || settings.is_simulated(),
                    usable: self.is_usable(target),
                })
            });
            (route.clone(), targets.collect())
        };
        let routes: IndexSet<&RouteName> = pipeline.routes().collect();
        routes.into_iter().map(compare).collect()
    }

    /// Returns the target whose price a step is estimated with: the first usable one that can answer it, because requests
    /// skip the others. The first one that can answer it if none is usable.
    fn estimated_target(&self, step: &Step) -> Option<(&TargetName, &Settings, &Model)> {
        let targets =
            || self.configured_targets(&step.route).filter(|(target, ..)| self.can_answer(step, target));
        targets().find(|(target, ..)| self.is_usable(target)).or_else(|| targets().next())
    }

    /// Returns whether the provider of a target has a key, or needs none.
    fn is_usable(&self, target: &TargetName) -> bool {
        self.usable.providers.contains_key(&target.provider)
    }

    /// Returns whether a target can answer a step: one with `embed` needs embeddings.
    pub(super) fn can_answer(&self, step: &Step, target: &TargetName) -> bool {
        step.embedding.is_none() || self.provider_embedding_limits(&target.provider).is_some()
    }

    /// Returns the most items that a run has in flight.
    fn max_items_in_flight(&self) -> usize {
        self.config.run.max_in_flight_items.map_or(MAX_WINDOW, NonZeroUsize::get)
    }

    /// Returns how much a joined call along a route may contain: what each of its usable targets accepts, or each of its
    /// targets if none is usable. `None` if none has embeddings.
    fn embedding_limits(&self, route: &RouteName) -> Option<EmbeddingLimits> {
        let route = self.usable.routes.get(route).or_else(|| self.config.routes.get(route))?;
        let of_target = |target: &Target| self.provider_embedding_limits(&target.name.provider);
        route.targets.iter().filter_map(of_target).reduce(EmbeddingLimits::min)
    }

    /// Returns how much a joined call to a provider may contain; `None` if it has no embeddings. In a simulated
    /// configuration every provider has.
    fn provider_embedding_limits(&self, provider: &ProviderName) -> Option<EmbeddingLimits> {
        let ready = self.usable.providers.get(provider).map(|ready| &ready.settings);
        ready.or_else(|| self.config.providers.get(provider))?.embedding_limits(None)
    }

    /// Returns the configured targets of a route, including those without a key: their cost is useful before a key
    /// is bought.
    fn configured_targets(
        &self,
        route: &RouteName,
    ) -> impl Iterator<Item = (&TargetName, &Settings, &Model)> {
        let config = &self.config;
        let targets = config.routes.get(route).map(|route| route.targets.as_slice()).unwrap_or_default();
        targets.iter().filter_map(|target| {
            let settings = config.providers.get(&target.name.provider)?;
            Some((&target.name, settings, settings.models.get(&target.name.model)?))
        })
    }
}

/// Returns the price of a target's tokens; `None` if it is not known.
fn price_of(settings: &Settings, model: &Model) -> Option<Price> {
    // A simulated model with a configured price is estimated at that price.
    model.price.or(settings.is_simulated().then_some(FREE))
}
