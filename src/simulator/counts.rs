//! Counts of calls, tokens and faults, with which a test can check a client from the provider's side.
//!
//! The history is limited to one hour.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::prompt_cache::CacheUse;
use super::{FaultKind, Vendor};

/// Number of seconds in the history.
const MAX_HISTORY_SECONDS: usize = 3_600;

/// Counts since the start of the simulator or the last reset.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Calls to a model.
    pub requests: u64,
    /// Calls to a model, by vendor.
    pub by_vendor: BTreeMap<Vendor, u64>,
    /// Responses by HTTP status. Connections that were reset or never answered are not included.
    pub by_status: BTreeMap<u16, u64>,
    /// Injected faults.
    pub by_fault: BTreeMap<FaultKind, u64>,
    /// Calls admitted by the limits.
    pub admitted: u64,
    /// Calls rejected by the limits.
    pub refused: u64,
    /// Calls answered completely and without a fault.
    pub answered: u64,
    /// Calls whose client disconnected before the end of the response.
    pub abandoned: u64,
    /// Calls in flight.
    pub in_flight: u64,
    /// Maximum number of calls in flight.
    pub peak_in_flight: u64,
    /// Open connections.
    pub connections: u64,
    /// Maximum number of open connections.
    pub peak_connections: u64,
    /// Input tokens of admitted calls.
    pub input_tokens: u64,
    /// Charged output tokens. `limits.output_accounting` defines when they are charged; the default is as they are
    /// generated.
    pub output_tokens: u64,
    /// Input tokens of admitted calls that were read from the prompt cache. This count and the next three are 0 unless
    /// `prompt_cache` is set.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache_read_tokens: u64,
    /// Input tokens of admitted calls that were written to Anthropic's prompt cache. Other vendors count no writes.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache_write_tokens: u64,
    /// Admitted calls that read tokens from the prompt cache.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache_hits: u64,
    /// Admitted calls with a prefix that the vendor caches, but that read no tokens from the prompt cache.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache_misses: u64,
    /// Distinct prompts answered; `None` unless `track_prompts` is set.
    pub distinct_prompts: Option<u64>,
    /// Prompts answered more than once; `None` unless `track_prompts` is set.
    pub repeated_prompts: Option<u64>,
    /// Maximum number of occurrences of one request.
    pub most_repeated: u32,
    /// Time since the start or the last reset, in milliseconds.
    pub elapsed_ms: u64,
    /// Counts of each second of the last hour, oldest first. Seconds without counts are omitted.
    pub seconds: VecDeque<SecondCounts>,
}

/// Counts of one second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecondCounts {
    /// Whole seconds since the start or the last reset.
    pub second: u64,
    /// Calls admitted by the limits.
    pub admitted: u64,
    /// Calls rejected by the limits.
    pub refused: u64,
    /// Input tokens of the admitted calls.
    pub input_tokens: u64,
    /// Output tokens charged in this second, for all calls.
    pub output_tokens: u64,
}

impl Counts {
    /// Records the arrival of a call.
    pub(super) fn record_arrival(&mut self, vendor: Vendor) {
        self.requests += 1;
        *self.by_vendor.entry(vendor).or_default() += 1;
        self.in_flight += 1;
        self.peak_in_flight = self.peak_in_flight.max(self.in_flight);
    }

    /// Records a call that the limits admitted.
    pub(super) fn record_admitted(&mut self, second: u64, input: u64, output: u64) {
        self.admitted += 1;
        self.input_tokens += input;
        let slot = self.second_entry(second);
        slot.admitted += 1;
        slot.input_tokens += input;
        self.record_output(second, output);
    }

    /// Records what an admitted call reads from the prompt cache and writes to it.
    pub(super) fn record_cache_use(&mut self, cache_use: &CacheUse) {
        self.cache_read_tokens += cache_use.read;
        self.cache_write_tokens += cache_use.written();
        if cache_use.read > 0 {
            self.cache_hits += 1;
        } else if cache_use.is_cacheable {
            self.cache_misses += 1;
        }
    }

    /// Records charged output tokens.
    pub(super) fn record_output(&mut self, second: u64, output: u64) {
        if output > 0 {
            self.output_tokens += output;
            self.second_entry(second).output_tokens += output;
        }
    }

    /// Records an opened connection.
    pub(super) fn record_connection(&mut self) {
        self.connections += 1;
        self.peak_connections = self.peak_connections.max(self.connections);
    }

    /// Records a call that the limits rejected.
    pub(super) fn record_rejected(&mut self, second: u64) {
        self.refused += 1;
        self.second_entry(second).refused += 1;
    }

    /// Records the status of a response.
    pub(super) fn record_status(&mut self, status: u16) {
        *self.by_status.entry(status).or_default() += 1;
    }

    /// Records a fault.
    pub(super) fn record_fault(&mut self, kind: FaultKind) {
        *self.by_fault.entry(kind).or_default() += 1;
    }

    fn second_entry(&mut self, second: u64) -> &mut SecondCounts {
        // Two threads may take the lock in another order than they read the clock. The newest entry is used then.
        let last = self.seconds.back().map(|slot| slot.second);
        if last.is_none_or(|last| last < second) {
            if self.seconds.len() == MAX_HISTORY_SECONDS {
                self.seconds.pop_front();
            }
            self.seconds.push_back(SecondCounts { second, ..SecondCounts::default() });
        }
        let newest = self.seconds.len() - 1;
        &mut self.seconds[newest]
    }
}

/// Counts of the prompt cache are omitted without it.
fn is_zero(count: &u64) -> bool {
    *count == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_in_their_second() {
        let mut counts = Counts::default();
        counts.record_admitted(3, 10, 20);
        counts.record_rejected(3);
        counts.record_admitted(5, 1, 2);
        counts.record_rejected(4);
        counts.record_output(5, 7);
        let slots: Vec<_> = counts.seconds.iter().map(|s| (s.second, s.admitted, s.refused)).collect();
        assert_eq!(slots, [(3, 1, 1), (5, 1, 1)]);
        assert_eq!((counts.input_tokens, counts.output_tokens), (11, 29));
        assert_eq!(counts.seconds[1].output_tokens, 9);
    }

    #[test]
    fn the_history_is_bounded() {
        let mut counts = Counts::default();
        for second in 0..10_000 {
            counts.record_admitted(second, 1, 1);
        }
        assert_eq!(counts.seconds.len(), MAX_HISTORY_SECONDS);
        assert_eq!(counts.seconds[0].second, 10_000 - MAX_HISTORY_SECONDS as u64);
    }

    #[test]
    fn counts_can_be_serialized_and_parsed() {
        let mut counts = Counts::default();
        counts.record_arrival(Vendor::OpenAi);
        counts.record_status(200);
        counts.record_fault(FaultKind::Cut);
        let json = serde_json::to_string(&counts).unwrap();
        assert!(
            json.contains(r#""by_vendor":{"openai":1},"by_status":{"200":1},"by_fault":{"cut":1}"#),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<Counts>(&json).unwrap(), counts);
    }
}
