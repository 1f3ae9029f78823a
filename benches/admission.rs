//! What it costs to admit a call while others wait: it must not grow with their number by more than a
//! logarithm. `cargo bench --features bench --bench admission`
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up fails")]

use divan::Bencher;
use pointsman::provider::bench::{Admission, Standing};
use tokio::runtime::Runtime;

/// How many wait, in how many runs.
const CROWDS: [(usize, usize); 10] = [
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

/// The queue alone: one call comes, one is looked at and taken.
#[divan::bench(args = CROWDS, sample_count = 1000, sample_size = 100)]
fn push_next_take(bencher: Bencher<'_, '_>, (waiting, runs): (usize, usize)) {
    let mut queue = Standing::new(waiting, runs);
    bencher.bench_local(|| queue.turn().unwrap());
}

/// All that a provider does between a call's coming and its leaving, and at its end.
#[divan::bench(args = CROWDS, sample_count = 1000, sample_size = 100)]
fn admission(bencher: Bencher<'_, '_>, (waiting, runs): (usize, usize)) {
    let runtime = Runtime::new().unwrap();
    let mut provider = Admission::new(waiting, runs, runtime.handle().clone()).unwrap();
    bencher.bench_local(|| assert!(provider.turn()));
}
