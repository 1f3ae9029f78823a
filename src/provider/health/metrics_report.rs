//! The metrics of a provider at the time of a scrape.
//!
//! The numbers are copied under the lock of the state; labels are made and values reported without it.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::metrics::TargetMetricsSnapshot;
use super::snapshot::{Snapshot, TargetSnapshot};
use crate::guard::BreakerState;
use crate::provider::admission::scheduler::Scheduler;
use crate::provider::state::State;
use crate::telemetry::{Samples, table};

impl Scheduler {
    /// Returns the highest utilization of each kind of limit, the account's or a model's.
    fn utilization_by_limit(&self, now: Instant) -> BTreeMap<&'static str, f64> {
        let of_targets = self.targets.values();
        let of_targets = of_targets.flat_map(|target| target.recent_usage.of_limits(&target.limits, now));
        let mut highest = BTreeMap::new();
        for used in self.recent_usage.of_limits(&self.limits, now).chain(of_targets) {
            let value = highest.entry(used.limit).or_insert(0.0);
            *value = f64::max(*value, used.utilization);
        }
        highest
    }
}

impl State {
    /// Reports the metrics of the provider and its targets.
    pub(crate) fn report_metrics(&self, now: Instant, samples: &mut Samples) {
        let scheduler = self.lock();
        let snapshot = self.snapshot_of(&scheduler, now);
        let targets = scheduler.targets.values().map(|target| target.metrics.snapshot());
        let targets: Vec<TargetMetricsSnapshot> = targets.collect();
        let utilization = scheduler.utilization_by_limit(now);
        let queued_since = scheduler.queue.calls().map(|queued| queued.requested_at).min();
        drop(scheduler);
        let oldest = queued_since.into_iter().chain(self.inbox.oldest_requested_at()).min();
        let queue_age = oldest.map(|oldest| now.saturating_duration_since(oldest)).unwrap_or_default();

        let provider = self.name().as_str();
        samples.gauge(&table::QUEUE_AGE_SECONDS, &[provider], queue_age.as_secs_f64());
        for (limit, utilization) in utilization {
            samples.gauge(&table::LIMIT_UTILIZATION, &[provider, &limit.replace(' ', "_")], utilization);
        }
        report_provider(&snapshot, samples);
        // Both are in the order of the models.
        for (target, metrics) in snapshot.targets.iter().zip(targets) {
            report_attempts([provider, target.model.as_str()], metrics, samples);
            report_target(provider, target, samples);
        }
    }
}

fn report_provider(snapshot: &Snapshot, samples: &mut Samples) {
    let provider = snapshot.provider.as_str();
    samples.gauge(&table::HELD_SECONDS, &[provider], snapshot.held_for.as_secs_f64());
    samples.gauge(&table::KEYS_COOLING_DOWN, &[provider], snapshot.keys_in_cooldown.len() as f64);
}

fn report_target(provider: &str, target: &TargetSnapshot, samples: &mut Samples) {
    let model = target.model.as_str();
    samples.gauge(&table::IN_FLIGHT, &[provider, model], target.in_flight as f64);
    samples.gauge(&table::CONCURRENCY_LIMIT, &[provider, model], target.concurrency as f64);
    samples.gauge(&table::QUEUED, &[provider, model], target.queued as f64);
    for state in [BreakerState::Closed, BreakerState::Open, BreakerState::HalfOpen] {
        let is_present = f64::from(u8::from(state == target.breaker));
        samples.gauge(&table::BREAKER_OPEN, &[provider, model, state.as_str()], is_present);
    }
}

fn report_attempts([provider, model]: [&str; 2], metrics: TargetMetricsSnapshot, samples: &mut Samples) {
    let TargetMetricsSnapshot { sums, durations, queue_times, first_tokens } = metrics;
    for (outcome, count) in sums.outcomes() {
        samples.counter(&table::ATTEMPTS, &[provider, model, outcome], count);
    }
    samples.histogram(&table::ATTEMPT_SECONDS, &[provider, model], durations);
    samples.histogram(&table::ATTEMPT_QUEUE_SECONDS, &[provider, model], queue_times);
    samples.histogram(&table::FIRST_TOKEN_SECONDS, &[provider, model], first_tokens);
    for (kind, tokens) in [
        ("input", sums.usage.input),
        ("cached", sums.usage.cached),
        ("cache_write", sums.usage.cache_write),
        ("output", sums.usage.output),
        ("reasoning", sums.usage.reasoning),
    ] {
        samples.counter(&table::TOKENS, &[provider, model, kind], tokens.0);
    }
    samples.real_counter(&table::COST_USD, &[provider, model], sums.spend.cost.dollars());
    let uncertain_cost = sums.spend.uncertain_cost.dollars();
    samples.real_counter(&table::UNCERTAIN_COST_USD, &[provider, model], uncertain_cost);
    samples.counter(&table::POSSIBLY_CHARGED, &[provider, model], sums.possibly_charged);
}

#[cfg(test)]
mod tests;
