//! Counts what the simulator saw, so that a test can judge a client by the other side's books.
//!
//! The history covers the last hour and no more; all else is a handful of numbers.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{FaultKind, Vendor};

/// Seconds of history that are kept.
const HISTORY: usize = 3_600;

/// What the simulator saw since its start or the last reset.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Calls to a model.
    pub requests: u64,
    /// The same by vendor.
    pub by_vendor: BTreeMap<Vendor, u64>,
    /// Replies by HTTP status. A connection that was reset, or never answered, has none.
    pub by_status: BTreeMap<u16, u64>,
    /// Faults that were played.
    pub by_fault: BTreeMap<FaultKind, u64>,
    /// Calls that the limits admitted.
    pub admitted: u64,
    /// Calls that the limits refused.
    pub refused: u64,
    /// Calls answered whole and well.
    pub answered: u64,
    /// Calls whose client left before their end.
    pub abandoned: u64,
    /// Calls that are being answered now.
    pub in_flight: u64,
    /// The most that were being answered at one time.
    pub peak_in_flight: u64,
    /// Connections that are open now.
    pub connections: u64,
    /// The most that were open at one time.
    pub peak_connections: u64,
    /// Input tokens of admitted calls.
    pub input_tokens: u64,
    /// Output tokens that were charged, when `limits.output_counts` says: as they were written, unless set.
    pub output_tokens: u64,
    /// Different prompts answered; `None` unless `track_prompts` is set.
    pub distinct_prompts: Option<u64>,
    /// Prompts answered more than once; `None` unless `track_prompts` is set.
    pub repeated_prompts: Option<u64>,
    /// How often the same request came at most.
    pub most_repeated: u32,
    /// Time since the start or the last reset, in milliseconds.
    pub elapsed_ms: u64,
    /// The last hour, second by second, oldest first; seconds in which nothing was counted are left out.
    pub seconds: VecDeque<Second>,
}

/// What came in one second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Second {
    /// Whole seconds since the start or the last reset.
    pub second: u64,
    /// Calls that the limits admitted.
    pub admitted: u64,
    /// Calls that the limits refused.
    pub refused: u64,
    /// Input tokens of the admitted ones.
    pub input_tokens: u64,
    /// Output tokens charged in this second, to whichever calls.
    pub output_tokens: u64,
}

impl Counts {
    /// Notes a call that has come.
    pub(super) fn arrived(&mut self, vendor: Vendor) {
        self.requests += 1;
        *self.by_vendor.entry(vendor).or_default() += 1;
        self.in_flight += 1;
        self.peak_in_flight = self.peak_in_flight.max(self.in_flight);
    }

    /// Notes a call that the limits admitted.
    pub(super) fn admitted(&mut self, second: u64, input: u64, output: u64) {
        self.admitted += 1;
        self.input_tokens += input;
        let slot = self.slot(second);
        slot.admitted += 1;
        slot.input_tokens += input;
        self.wrote(second, output);
    }

    /// Notes output tokens that were charged.
    pub(super) fn wrote(&mut self, second: u64, output: u64) {
        if output > 0 {
            self.output_tokens += output;
            self.slot(second).output_tokens += output;
        }
    }

    /// Notes a connection that was opened.
    pub(super) fn connected(&mut self) {
        self.connections += 1;
        self.peak_connections = self.peak_connections.max(self.connections);
    }

    /// Notes a call that the limits refused.
    pub(super) fn refused(&mut self, second: u64) {
        self.refused += 1;
        self.slot(second).refused += 1;
    }

    /// Notes the status of a reply.
    pub(super) fn replied(&mut self, status: u16) {
        *self.by_status.entry(status).or_default() += 1;
    }

    /// Notes a fault.
    pub(super) fn faulted(&mut self, kind: FaultKind) {
        *self.by_fault.entry(kind).or_default() += 1;
    }

    fn slot(&mut self, second: u64) -> &mut Second {
        // Two threads may come to the lock in the other order than to the clock: the later slot serves.
        let last = self.seconds.back().map(|slot| slot.second);
        if last.is_none_or(|last| last < second) {
            if self.seconds.len() == HISTORY {
                self.seconds.pop_front();
            }
            self.seconds.push_back(Second { second, ..Second::default() });
        }
        let newest = self.seconds.len() - 1;
        &mut self.seconds[newest]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_in_their_second() {
        let mut counts = Counts::default();
        counts.admitted(3, 10, 20);
        counts.refused(3);
        counts.admitted(5, 1, 2);
        counts.refused(4);
        counts.wrote(5, 7);
        let slots: Vec<_> = counts.seconds.iter().map(|s| (s.second, s.admitted, s.refused)).collect();
        assert_eq!(slots, [(3, 1, 1), (5, 1, 1)]);
        assert_eq!((counts.input_tokens, counts.output_tokens), (11, 29));
        assert_eq!(counts.seconds[1].output_tokens, 9);
    }

    #[test]
    fn the_history_is_bounded() {
        let mut counts = Counts::default();
        for second in 0..10_000 {
            counts.admitted(second, 1, 1);
        }
        assert_eq!(counts.seconds.len(), HISTORY);
        assert_eq!(counts.seconds[0].second, 10_000 - HISTORY as u64);
    }

    #[test]
    fn counts_are_json_that_can_be_read_back() {
        let mut counts = Counts::default();
        counts.arrived(Vendor::OpenAi);
        counts.replied(200);
        counts.faulted(FaultKind::Cut);
        let json = serde_json::to_string(&counts).unwrap();
        assert!(
            json.contains(r#""by_vendor":{"openai":1},"by_status":{"200":1},"by_fault":{"cut":1}"#),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<Counts>(&json).unwrap(), counts);
    }
}
