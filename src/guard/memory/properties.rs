//! Random histories of items whose responses share the memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures_util::future::join_all;
use proptest::prelude::*;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::*;

const MAX_RESPONSE_BYTES: usize = 1_000_000;
/// A response holds no more than this beyond what was requested.
const MAX_STEP_BYTES: usize = 1 << 20;
const ITEM_BYTES: usize = 4_000;

/// How one request of an item ends.
#[derive(Debug, Clone, Copy)]
enum Outcome {
    Answered,
    Failed,
    /// The requester has gone, this many milliseconds after the request was sent.
    Cancelled(u64),
}

#[derive(Debug, Clone)]
struct Request {
    bytes: usize,
    pieces: usize,
    /// Between two pieces, and until the answer is checked.
    pause: u64,
    outcome: Outcome,
}

fn request() -> impl Strategy<Value = Request> {
    let outcome = prop_oneof![
        6 => Just(Outcome::Answered),
        1 => Just(Outcome::Failed),
        1 => (0..60_u64).prop_map(Outcome::Cancelled),
    ];
    let bytes = prop_oneof![Just(1_usize), 1..MAX_RESPONSE_BYTES];
    (bytes, 1..20_usize, 0..5_u64, outcome).prop_map(|(bytes, pieces, pause, outcome)| Request {
        bytes,
        pieces,
        pause,
        outcome,
    })
}

struct Provider {
    budget: Arc<MemoryBudget>,
    /// Calls that the provider accepts at once.
    slots: Semaphore,
    /// What items keep while they wait for something else, or keep of a failed response: no response leaves
    /// memory for it.
    parked: AtomicUsize,
    total: usize,
}

impl Provider {
    fn check(&self) {
        let used = self.budget.used();
        let max = self.total + self.parked.load(Relaxed) + MAX_RESPONSE_BYTES + MAX_STEP_BYTES;
        assert!(used <= max, "{used} bytes are held, and at most {max} may be");
    }

    /// Reads a response; returns what is kept of it.
    async fn read(&self, held: &HeldMemory, request: &Request) -> usize {
        let Ok(_slot) = self.slots.acquire().await else { return 0 };
        let mut memory = held.response(true);
        let reads = async {
            for piece in 1..=request.pieces {
                memory.hold(request.bytes * piece / request.pieces).await;
                self.check();
                sleep(Duration::from_millis(request.pause)).await;
            }
        };
        match request.outcome {
            Outcome::Cancelled(after) => {
                // Dropped in the middle of any wait; whether it finished does not matter.
                let _ = timeout(Duration::from_millis(after), reads).await;
                drop(memory);
                0
            }
            Outcome::Failed => {
                reads.await;
                let bytes_kept = request.bytes / 3;
                self.parked.fetch_add(bytes_kept, Relaxed);
                memory.fail(bytes_kept);
                bytes_kept
            }
            Outcome::Answered => {
                reads.await;
                memory.keep(request.bytes);
                self.check();
                request.bytes
            }
        }
    }

    async fn item(&self, requests: &[Request]) {
        let held = self.budget.take(ITEM_BYTES).await;
        let mut parked = 0;
        for request in requests {
            let kept = self.read(&held, request).await;
            sleep(Duration::from_millis(request.pause)).await;
            self.check();
            if matches!(request.outcome, Outcome::Answered) {
                self.parked.fetch_add(kept, Relaxed);
            }
            parked += kept;
            // It waits for its next response, and keeps the earlier ones meanwhile.
            held.park();
        }
        drop(held);
        self.parked.fetch_sub(parked, Relaxed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn responses_never_deadlock_and_exceed_the_total_by_at_most_one_response(
        items in prop::collection::vec(prop::collection::vec(request(), 1..4), 1..20),
        slots in 1..20_usize,
        total in 10_000..4 * MAX_RESPONSE_BYTES,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let budget = Arc::new(MemoryBudget::new(total));
            let slots = Semaphore::new(slots);
            let provider = Provider { budget, slots, parked: AtomicUsize::new(0), total };
            let all = join_all(items.iter().map(|requests| provider.item(requests)));
            // Virtual time passes only when all of them wait.
            let ended = timeout(Duration::from_secs(3_600), all).await;
            assert!(ended.is_ok(), "the responses wait for each other");
            assert_eq!(provider.budget.used(), 0);
        });
    }
}
