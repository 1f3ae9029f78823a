//! How long a run takes at least, by each limit that is known of its providers.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use serde::Serialize;

use crate::provider::Limits;
use crate::types::{LaneName, ProviderName};

use super::range::Range;
use super::{LanePlan, Plan, Sample};
use crate::runtime::pointsman::Pointsman;

/// One limit, and how long a run takes by it alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bound {
    /// The provider, or the model at it, that has the limit.
    pub of: String,
    /// The limit, in words.
    pub limit: String,
    /// Seconds.
    pub seconds: Range,
}

/// What a provider is going to be asked.
#[derive(Debug, Default, Clone, Copy)]
struct Load {
    calls: Range,
    input: Range,
    output: Range,
    /// All calls together, in seconds; 0 when nobody knows how long one takes.
    seconds: Range,
}

/// Returns every bound, the longest first. Without a sample each route's first lane is taken to answer everything.
pub(super) fn bounds(pointsman: &Pointsman, plan: &Plan, sample: Option<&Sample>) -> Vec<Bound> {
    let mut loads: BTreeMap<ProviderName, Load> = BTreeMap::new();
    let mut of_models: BTreeMap<String, (LaneName, Load)> = BTreeMap::new();
    let times = sample.map(Sample::seconds).unwrap_or_default();
    for (route, lanes) in &plan.routes {
        let steps = || plan.steps.values().filter(|step| step.route == *route);
        let of_route = Load {
            calls: steps().map(|step| step.calls).sum(),
            input: steps().map(|step| step.input).sum(),
            output: steps().map(|step| step.output).sum(),
            seconds: Range::default(),
        };
        let all: f64 = lanes.iter().filter_map(|lane| lane.share).sum();
        for (at, lane) in lanes.iter().enumerate() {
            let share = share_of(lane, at, all);
            let took = times.get(&lane.lane.to_string()).copied().unwrap_or(0.0);
            let more = Load {
                calls: of_route.calls * share,
                input: of_route.input * share,
                output: of_route.output * share,
                seconds: of_route.calls * (share * took),
            };
            loads.entry(lane.lane.provider.clone()).or_default().add(more);
            let of_model = of_models.entry(lane.lane.to_string());
            of_model.or_insert_with(|| (lane.lane.clone(), Load::default())).1.add(more);
        }
    }
    let providers = &pointsman.config().providers;
    let accounts = loads.iter().filter_map(|(provider, load)| {
        let settings = providers.get(provider)?;
        let of_all = settings.max_concurrency.and_then(|max| at_once(&provider.to_string(), load, max));
        Some(by_limits(&provider.to_string(), load, &settings.limits).into_iter().chain(of_all))
    });
    let models = of_models.values().filter_map(|(lane, load)| {
        let settings = providers.get(&lane.provider)?;
        let own = settings.models.get(&lane.model)?.limits.as_ref();
        let by_own = own.map(|own| by_limits(&lane.to_string(), load, own)).unwrap_or_default();
        // An account's concurrency holds for each of its models by itself.
        let concurrency = own.map_or(settings.limits.concurrency, |own| own.concurrency);
        Some(by_own.into_iter().chain(at_once(&lane.to_string(), load, concurrency.max)))
    });
    let mut bounds: Vec<Bound> = accounts.flatten().chain(models.flatten()).collect();
    bounds.sort_by(|one, other| other.seconds.likely.total_cmp(&one.seconds.likely));
    bounds
}

/// Returns the share of its route's calls that a lane has: what it had in the sample, else all of the first.
fn share_of(lane: &LanePlan, at: usize, all: f64) -> f64 {
    match lane.share {
        Some(share) if all > 0.0 => share / all,
        _ if at == 0 => 1.0,
        _ => 0.0,
    }
}

impl Load {
    fn add(&mut self, more: Self) {
        self.calls = self.calls + more.calls;
        self.input = self.input + more.input;
        self.output = self.output + more.output;
        self.seconds = self.seconds + more.seconds;
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
        Some(Bound { of: of.to_owned(), limit: text, seconds: need.per(limit) * seconds })
    })
    .collect()
}

/// Returns the bound of so many calls in flight; `None` while the time that one takes is not known.
fn at_once(of: &str, load: &Load, max: NonZeroU32) -> Option<Bound> {
    let seconds = load.seconds.per(f64::from(max.get()));
    let limit = format!("{max} calls at once");
    (load.seconds.likely > 0.0).then(|| Bound { of: of.to_owned(), limit, seconds })
}
