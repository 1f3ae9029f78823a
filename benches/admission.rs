//! Cost of admitting a call with other calls queued. It must grow at most logarithmically with their number.
//! `cargo bench --features bench --bench admission`
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up fails")]

use divan::Bencher;
use pointsman::provider::bench::{AdmissionBench, QueueBench};
use tokio::runtime::Runtime;

/// Numbers of queued calls and of runs.
const QUEUE_SIZES: [(usize, usize); 10] = [
    (10, 1),
    (100, 1),
    (1_000, 1),
    (10_000, 1),
    (100_000, 1),
    (10, 100),
    (100, 100),
    (1_000, 100),
    (10_000, 100),
    (100_000, 100),
];

fn main() {
    divan::main();
}

/// The queue alone: one call is pushed, and one is selected and removed.
#[divan::bench(args = QUEUE_SIZES, sample_count = 1000, sample_size = 100)]
fn push_next_take(bencher: Bencher<'_, '_>, (queued, runs): (usize, usize)) {
    let mut queue = QueueBench::new(queued, runs);
    bencher.bench_local(|| queue.cycle().unwrap());
}

/// The work of a provider from the arrival of a call to its dispatch, and at its end.
#[divan::bench(args = QUEUE_SIZES, sample_count = 1000, sample_size = 100)]
fn admission(bencher: Bencher<'_, '_>, (queued, runs): (usize, usize)) {
    let runtime = Runtime::new().unwrap();
    let mut provider = AdmissionBench::new(queued, runs, runtime.handle().clone()).unwrap();
    bencher.bench_local(|| assert!(provider.cycle()));
}
