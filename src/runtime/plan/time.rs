//! Lower bounds of a run's duration, one for each known limit of its providers.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use crate::pipeline::Pipeline;
use crate::provider::Limits;
use crate::types::{ProviderName, TargetName};

use super::plan::{Bound, Plan, TargetPlan};
use super::range::Range;
use super::sample::Sample;
use crate::runtime::current::Current;

/// The expected load of a provider.
#[derive(Debug, Default, Clone, Copy)]
struct Load {
    /// The fewest calls: joined requests for embeddings fill each call.
    calls: Range,
    input: Range,
    output: Range,
    /// The duration of all calls together, in seconds; 0 when the duration of a call is not known.
    seconds: Range,
}

/// Returns every bound, the longest first. Without a sample the target with whose price a step is estimated is
/// assumed to answer all its requests.
pub(super) fn bounds(
    current: &Current,
    pipeline: &Pipeline,
    plan: &Plan,
    sample: Option<&Sample>,
) -> Vec<Bound> {
    let mut loads: BTreeMap<ProviderName, Load> = BTreeMap::new();
    let mut model_loads: BTreeMap<String, (TargetName, Load)> = BTreeMap::new();
    let times = sample.map(Sample::seconds).unwrap_or_default();
    for step in pipeline.steps() {
        let Some(step_plan) = plan.steps.get(&step.name) else { continue };
        let of_route = plan.routes.get(&step.route).into_iter().flatten();
        let targets: Vec<&TargetPlan> =
            of_route.filter(|target| current.can_answer(step, &target.target)).collect();
        let calls = step_plan.min_calls();
        let total_share: f64 = targets.iter().filter_map(|target| target.share).sum();
        // A sample without a call has no shares.
        let first = targets.iter().find(|target| target.usable).or(targets.first());
        let first = first.map(|target| target.target.clone());
        for target in targets {
            let share = share_of(target, first.as_ref(), total_share);
            // Its limits say nothing about a run that skips it.
            if share <= 0.0 && !target.usable {
                continue;
            }
            let mean_seconds = times.get(&target.target.to_string()).copied().unwrap_or(0.0);
            let load = Load {
                calls: calls * share,
                input: step_plan.input * share,
                output: step_plan.output * share,
                seconds: calls * (share * mean_seconds),
            };
            loads.entry(target.target.provider.clone()).or_default().add(load);
            let model_load = model_loads.entry(target.target.to_string());
            model_load.or_insert_with(|| (target.target.clone(), Load::default())).1.add(load);
        }
    }
    let providers = &current.config.providers;
    let accounts = loads.iter().filter_map(|(provider, load)| {
        let settings = providers.get(provider)?;
        let by_max_concurrency =
            settings.max_concurrency.and_then(|max| by_concurrency(&provider.to_string(), load, max));
        Some(by_limits(&provider.to_string(), load, &settings.limits).into_iter().chain(by_max_concurrency))
    });
    let models = model_loads.values().filter_map(|(target, load)| {
        let settings = providers.get(&target.provider)?;
        let own = settings.models.get(&target.model)?.limits.as_ref();
        let by_own = own.map(|own| by_limits(&target.to_string(), load, own)).unwrap_or_default();
        // An account's concurrency limit applies to each of its models separately.
        let concurrency = own.map_or(settings.limits.concurrency, |own| own.concurrency);
        Some(by_own.into_iter().chain(by_concurrency(&target.to_string(), load, concurrency.max)))
    });
    let mut bounds: Vec<Bound> = accounts.flatten().chain(models.flatten()).collect();
    bounds.sort_by(|one, other| other.seconds.likely.total_cmp(&one.seconds.likely));
    bounds
}

/// Returns a target's share of the calls of a step: its share in the sample, else 1 for the first usable target.
fn share_of(target: &TargetPlan, first: Option<&TargetName>, total_share: f64) -> f64 {
    match target.share {
        Some(share) if total_share > 0.0 => share / total_share,
        _ if first == Some(&target.target) => 1.0,
        _ => 0.0,
    }
}

impl Load {
    fn add(&mut self, other: Self) {
        self.calls = self.calls + other.calls;
        self.input = self.input + other.input;
        self.output = self.output + other.output;
        self.seconds = self.seconds + other.seconds;
    }
}

fn by_limits(of: &str, load: &Load, limits: &Limits) -> Vec<Bound> {
    let Limits {
        requests_per_minute,
        requests_per_second,
        requests_per_day,
        tokens_per_minute,
        input_tokens_per_minute,
        output_tokens_per_minute,
        ..
    } = limits;
    let number = |limit: &Option<NonZeroU32>| limit.map(|limit| f64::from(limit.get()));
    let tokens = load.input + load.output;
    [
        (number(requests_per_second), 1.0, load.calls, "requests/s"),
        (number(requests_per_minute), 60.0, load.calls, "requests/min"),
        (number(requests_per_day), 86_400.0, load.calls, "requests/day"),
        (number(tokens_per_minute), 60.0, tokens, "tokens/min"),
        (number(input_tokens_per_minute), 60.0, load.input, "input tokens/min"),
        (number(output_tokens_per_minute), 60.0, load.output, "output tokens/min"),
    ]
    .into_iter()
    .filter_map(|(limit, seconds, need, what)| {
        let limit = limit?;
        let text = format!("{limit} {what}");
        Some(Bound { limit_of: of.to_owned(), limit: text, seconds: need.per(limit) * seconds })
    })
    .collect()
}

/// Returns the bound of a limit on calls in flight; `None` while the duration of a call is not known.
fn by_concurrency(of: &str, load: &Load, max: NonZeroU32) -> Option<Bound> {
    let seconds = load.seconds.per(f64::from(max.get()));
    let limit = format!("{max} concurrent calls");
    (load.seconds.likely > 0.0).then(|| Bound { limit_of: of.to_owned(), limit, seconds })
}
