//! Random histories of items whose replies share the memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use futures_util::future::join_all;
use proptest::prelude::*;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::*;

const LARGEST: usize = 1_000_000;
/// A reply holds no more than this beyond what it was asked to hold.
const STEP: usize = 1 << 20;
const ITEM: usize = 4_000;

/// How one request of an item ends.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Answered,
    Failed,
    /// Its asker has gone, so many milliseconds after it was sent.
    Cancelled(u64),
}

#[derive(Debug, Clone)]
struct Request {
    bytes: usize,
    pieces: usize,
    /// Between two pieces, and until the answer is checked.
    pause: u64,
    fate: Fate,
}

fn request() -> impl Strategy<Value = Request> {
    let fate = prop_oneof![
        6 => Just(Fate::Answered),
        1 => Just(Fate::Failed),
        1 => (0..60_u64).prop_map(Fate::Cancelled),
    ];
    let bytes = prop_oneof![Just(1_usize), 1..LARGEST];
    (bytes, 1..20_usize, 0..5_u64, fate).prop_map(|(bytes, pieces, pause, fate)| Request {
        bytes,
        pieces,
        pause,
        fate,
    })
}

struct World {
    budget: Arc<MemoryBudget>,
    /// Calls that the provider takes at once.
    places: Semaphore,
    /// What items keep that wait for something else, or of a reply that failed: no reply has to leave room for it.
    parked: AtomicUsize,
    total: usize,
}

impl World {
    fn look(&self) {
        let (used, parked) = (self.budget.used(), self.parked.load(Relaxed));
        let most = self.total + parked + LARGEST + STEP;
        assert!(used <= most, "{used} bytes are held, and at most {most} may be");
    }

    /// Reads a reply; returns what it keeps of it.
    async fn read(&self, held: &HeldMemory, request: &Request) -> usize {
        let Ok(_place) = self.places.acquire().await else { return 0 };
        let mut memory = held.reply(true);
        let reads = async {
            for piece in 1..=request.pieces {
                memory.hold(request.bytes * piece / request.pieces).await;
                self.look();
                sleep(Duration::from_millis(request.pause)).await;
            }
        };
        match request.fate {
            Fate::Cancelled(after) => {
                // Dropped in the middle of whatever it waits for.
                let _ = timeout(Duration::from_millis(after), reads).await;
                drop(memory);
                0
            }
            Fate::Failed => {
                reads.await;
                let said = request.bytes / 3;
                self.parked.fetch_add(said, Relaxed);
                memory.fail(said);
                said
            }
            Fate::Answered => {
                reads.await;
                memory.keep(request.bytes);
                self.look();
                request.bytes
            }
        }
    }

    async fn item(&self, requests: &[Request]) {
        let held = self.budget.take(ITEM).await;
        let mut parked = 0;
        for request in requests {
            let kept = self.read(&held, request).await;
            sleep(Duration::from_millis(request.pause)).await;
            self.look();
            if matches!(request.fate, Fate::Answered) {
                self.parked.fetch_add(kept, Relaxed);
            }
            parked += kept;
            // It waits for its next reply, and keeps the earlier ones meanwhile.
            held.park();
        }
        drop(held);
        self.parked.fetch_sub(parked, Relaxed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn replies_never_wait_for_each_other_and_take_no_more_than_one_beyond_the_total(
        items in prop::collection::vec(prop::collection::vec(request(), 1..4), 1..20),
        places in 1..20_usize,
        total in 10_000..4 * LARGEST,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(async {
            let budget = Arc::new(MemoryBudget::new(total));
            let world = World { budget, places: Semaphore::new(places), parked: AtomicUsize::new(0), total };
            let all = join_all(items.iter().map(|requests| world.item(requests)));
            // Virtual time: it passes only when all of them wait.
            let ended = timeout(Duration::from_secs(3_600), all).await;
            assert!(ended.is_ok(), "they wait for each other");
            assert_eq!(world.budget.used(), 0);
        });
    }
}
