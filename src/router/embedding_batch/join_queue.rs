//! Requests that wait to be joined, in batches. Pure: the caller keeps the time and sends the batches.

use std::collections::HashMap;
use std::hash::Hash;

use crate::types::EmbeddingLimits;

/// Maximum number of bytes of text in a joined request.
const MAX_BATCH_BYTES: usize = 4 << 20;

/// Maximum number of requests that wait. At the bound, a request is sent alone.
const MAX_WAITING: usize = 16_384;

/// Maximum number of bytes of text in all requests that wait. At the bound, a request is sent alone.
const MAX_WAITING_BYTES: usize = 64 << 20;

/// The size of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct JoinSize {
    pub(super) inputs: usize,
    /// Estimated tokens.
    pub(super) tokens: u64,
    pub(super) bytes: usize,
}

impl JoinSize {
    /// Returns the sum of both.
    pub(super) fn plus(self, more: Self) -> Self {
        Self {
            inputs: self.inputs.saturating_add(more.inputs),
            tokens: self.tokens.saturating_add(more.tokens),
            bytes: self.bytes.saturating_add(more.bytes),
        }
    }

    fn exceeds(self, limits: EmbeddingLimits) -> bool {
        self.inputs > limits.max_inputs || self.tokens > limits.max_tokens || self.bytes > MAX_BATCH_BYTES
    }
}

/// The number of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchNumber(u64);

/// What happened to an added request.
#[derive(Debug)]
pub(super) enum Added<M> {
    /// It waits, or it is in a batch that is ready.
    Waits {
        /// The batch that it has opened. The caller takes it after the wait.
        opened: Option<BatchNumber>,
        /// The batches that are ready to be sent.
        ready: Vec<Vec<M>>,
    },
    /// Too many requests wait: the caller sends it alone.
    Full(M),
}

/// A batch that takes more members.
#[derive(Debug)]
struct OpenBatch<M> {
    number: BatchNumber,
    size: JoinSize,
    members: Vec<M>,
}

/// The open batches, one for each key.
#[derive(Debug)]
pub(super) struct JoinQueue<K, M> {
    open: HashMap<K, OpenBatch<M>>,
    last_number: u64,
    waiting: usize,
    waiting_bytes: usize,
}

impl<K, M> Default for JoinQueue<K, M> {
    fn default() -> Self {
        Self { open: HashMap::new(), last_number: 0, waiting: 0, waiting_bytes: 0 }
    }
}

impl<K: Hash + Eq, M> JoinQueue<K, M> {
    /// Adds a request of this size to the batch of its key.
    pub(super) fn add(&mut self, key: K, member: M, size: JoinSize, limits: EmbeddingLimits) -> Added<M> {
        if self.waiting >= MAX_WAITING || self.waiting_bytes.saturating_add(size.bytes) > MAX_WAITING_BYTES {
            return Added::Full(member);
        }
        let mut ready = Vec::new();
        let is_too_large = |batch: &OpenBatch<M>| batch.size.plus(size).exceeds(limits);
        if self.open.get(&key).is_some_and(is_too_large) {
            ready.extend(self.close(&key));
        }
        self.waiting += 1;
        self.waiting_bytes += size.bytes;
        let Some(batch) = self.open.get_mut(&key) else {
            self.last_number += 1;
            let number = BatchNumber(self.last_number);
            self.open.insert(key, OpenBatch { number, size, members: vec![member] });
            return Added::Waits { opened: Some(number), ready };
        };
        batch.members.push(member);
        batch.size = batch.size.plus(size);
        if batch.size.inputs >= limits.max_inputs {
            ready.extend(self.close(&key));
        }
        Added::Waits { opened: None, ready }
    }

    /// Takes the members of a batch whose wait is over; `None` if it was ready before.
    pub(super) fn take(&mut self, key: &K, number: BatchNumber) -> Option<Vec<M>> {
        self.open.get(key).filter(|batch| batch.number == number)?;
        self.close(key)
    }

    fn close(&mut self, key: &K) -> Option<Vec<M>> {
        let OpenBatch { size, members, .. } = self.open.remove(key)?;
        self.waiting -= members.len();
        self.waiting_bytes -= size.bytes;
        Some(members)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn size(inputs: usize) -> JoinSize {
        JoinSize { inputs, tokens: 10 * inputs as u64, bytes: 40 * inputs }
    }

    fn limits(max_inputs: usize) -> EmbeddingLimits {
        EmbeddingLimits::new(max_inputs, 1_000)
    }

    /// Adds a request that waits. Returns the batch that it opened, and the ready batches.
    fn add(
        queue: &mut JoinQueue<u8, u32>,
        key: u8,
        member: u32,
        size: JoinSize,
    ) -> (Option<BatchNumber>, Vec<Vec<u32>>) {
        match queue.add(key, member, size, limits(4)) {
            Added::Waits { opened, ready } => (opened, ready),
            Added::Full(member) => panic!("{member} does not wait"),
        }
    }

    #[test]
    fn a_batch_is_ready_when_its_inputs_reach_the_limit() {
        let mut queue = JoinQueue::default();
        let (opened, ready) = add(&mut queue, 1, 10, size(2));
        assert!(opened.is_some() && ready.is_empty());
        assert_eq!(add(&mut queue, 2, 20, size(1)).1, Vec::<Vec<u32>>::new(), "another key");
        assert_eq!(add(&mut queue, 1, 11, size(2)), (None, vec![vec![10, 11]]));
        assert_eq!(queue.take(&1, opened.unwrap()), None, "it was ready before");
        let (second, ready) = add(&mut queue, 1, 12, size(1));
        assert!(second.is_some() && second != opened && ready.is_empty());
        assert_eq!(queue.take(&1, opened.unwrap()), None, "the timer of an earlier batch");
        assert_eq!(queue.take(&1, second.unwrap()), Some(vec![12]));
        assert_eq!(queue.waiting, 1);
    }

    #[test]
    fn a_request_that_does_not_fit_opens_the_next_batch() {
        let mut queue = JoinQueue::default();
        add(&mut queue, 1, 10, size(3));
        let (opened, ready) = add(&mut queue, 1, 11, size(2));
        assert_eq!(ready, [[10]]);
        assert_eq!(queue.take(&1, opened.unwrap()), Some(vec![11]));
        add(&mut queue, 1, 12, JoinSize { tokens: 900, ..size(1) });
        assert_eq!(add(&mut queue, 1, 13, JoinSize { tokens: 101, ..size(1) }).1, [[12]], "tokens");
        assert_eq!(add(&mut queue, 1, 14, JoinSize { bytes: MAX_BATCH_BYTES, ..size(1) }).1, [[13]], "bytes");
    }

    #[test]
    fn a_request_beyond_the_bound_does_not_wait() {
        let mut queue = JoinQueue::default();
        let large = JoinSize { bytes: MAX_BATCH_BYTES, ..size(1) };
        let places = MAX_WAITING_BYTES / MAX_BATCH_BYTES;
        for key in 0..places {
            assert!(matches!(queue.add(key, 0, large, limits(4)), Added::Waits { .. }), "{key}");
        }
        assert!(matches!(queue.add(places, 7, size(1), limits(4)), Added::Full(7)));
    }

    proptest! {
        #[test]
        fn every_request_is_in_exactly_one_batch_in_the_order_of_arrival(
            arrivals in prop::collection::vec((0..3_u8, 1..3_usize, any::<bool>()), 1..100),
        ) {
            let mut queue = JoinQueue::default();
            let mut timers: Vec<(u8, BatchNumber)> = Vec::new();
            let mut sent: BTreeMap<u8, Vec<u32>> = BTreeMap::new();
            for (member, (key, inputs, expires)) in (0..).zip(&arrivals) {
                let (opened, ready) = add(&mut queue, *key, member, size(*inputs));
                timers.extend(opened.map(|number| (*key, number)));
                for batch in ready {
                    let total: usize = batch.iter().map(|member| arrivals[*member as usize].1).sum();
                    prop_assert!(total <= 4);
                    sent.entry(*key).or_default().extend(batch);
                }
                if *expires {
                    for (key, number) in timers.drain(..) {
                        sent.entry(key).or_default().extend(queue.take(&key, number).unwrap_or_default());
                    }
                }
            }
            for (key, number) in timers {
                sent.entry(key).or_default().extend(queue.take(&key, number).unwrap_or_default());
            }
            for key in 0..3 {
                let of_key = (0..).zip(&arrivals).filter(|(_, (of, ..))| *of == key).map(|(member, _)| member);
                prop_assert_eq!(sent.remove(&key).unwrap_or_default(), of_key.collect::<Vec<u32>>());
            }
            prop_assert_eq!((queue.waiting, queue.waiting_bytes, queue.open.len()), (0, 0, 0));
        }
    }
}
