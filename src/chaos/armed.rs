//! Counts how often each failure point is passed, and makes some of these passages panic.
//!
//! Which passage panics depends only on the seed, the point's name and the passage's number, not on the order of
//! the threads. A point never panics while its thread unwinds, because that would end the process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Which passages of which points panic.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    seed: u64,
    share: f64,
    points: BTreeMap<&'static str, PanicRule>,
}

#[derive(Debug, Clone, Copy)]
enum PanicRule {
    Share(f64),
    At(u64),
}

impl Plan {
    /// Creates a plan without panics.
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Lets this share of the passages of every other point panic.
    #[must_use]
    pub fn everywhere(self, share: f64) -> Self {
        Self { share, ..self }
    }

    /// Lets this share of the passages of one point panic.
    #[must_use]
    pub fn share(mut self, point: &'static str, share: f64) -> Self {
        self.points.insert(point, PanicRule::Share(share));
        self
    }

    /// Lets one passage of one point panic; the first is 1.
    #[must_use]
    pub fn at(mut self, point: &'static str, passage: u64) -> Self {
        self.points.insert(point, PanicRule::At(passage));
        self
    }

    fn panics_at(&self, point: &'static str, passage: u64) -> bool {
        match self.points.get(point).copied().unwrap_or(PanicRule::Share(self.share)) {
            PanicRule::At(at) => passage == at,
            PanicRule::Share(share) => unit_hash(self.seed, point, passage) < share,
        }
    }
}

/// The counts of one point.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PointCounts {
    /// The number of passages.
    pub times: u64,
    /// The number of passages that panicked.
    pub panics: u64,
}

/// Keeps a plan active. When it is dropped, no point panics any more.
#[derive(Debug)]
pub struct Armed {
    // The process has one active plan at a time: another `arm` waits.
    _exclusive: MutexGuard<'static, ()>,
}

static EXCLUSIVE: Mutex<()> = Mutex::new(());
static IS_ARMED: AtomicBool = AtomicBool::new(false);
static STATE: Mutex<State> = Mutex::new(State { plan: None, abort_at: None, counts: BTreeMap::new() });

struct State {
    plan: Option<Plan>,
    /// The passage at which the process aborts.
    abort_at: Option<(String, u64)>,
    counts: BTreeMap<&'static str, PointCounts>,
}

/// Activates `plan` for the whole process with all counts at zero. Waits while another plan is active.
pub fn arm(plan: Plan) -> Armed {
    let turn = EXCLUSIVE.lock().unwrap_or_else(PoisonError::into_inner);
    *state() = State { plan: Some(plan), abort_at: None, counts: BTreeMap::new() };
    IS_ARMED.store(true, Relaxed);
    Armed { _exclusive: turn }
}

/// Lets the process abort at the passage in `POINTSMAN_ABORT_AT`, such as `store.commit:3`: at once, as if it were
/// killed, without unwinding, flushing or messages.
pub fn abort_at_configured_point() {
    let setting = std::env::var("POINTSMAN_ABORT_AT").unwrap_or_default();
    let Some((name, Ok(passage))) = setting.rsplit_once(':').map(|(name, at)| (name, at.parse())) else {
        return;
    };
    state().abort_at = Some((name.to_owned(), passage));
    IS_ARMED.store(true, Relaxed);
}

/// Returns the counts of every point that was passed since the last [`arm`].
pub fn point_counts() -> BTreeMap<&'static str, PointCounts> {
    state().counts.clone()
}

impl Drop for Armed {
    fn drop(&mut self) {
        IS_ARMED.store(false, Relaxed);
        state().plan = None;
    }
}

/// Panics with `planned at NAME` where the active plan has a panic.
#[expect(clippy::panic, reason = "this module exists to panic")]
pub(crate) fn point(name: &'static str) {
    if !IS_ARMED.load(Relaxed) || std::thread::panicking() {
        return;
    }
    // The lock is released before the panic, so that it is not poisoned.
    let panics = state().pass(name);
    if panics {
        panic!("planned at {name}");
    }
}

impl State {
    fn pass(&mut self, name: &'static str) -> bool {
        let passed = self.counts.entry(name).or_default();
        passed.times += 1;
        if self.abort_at.as_ref().is_some_and(|(at, passage)| at == name && *passage == passed.times) {
            std::process::abort();
        }
        let Some(plan) = &self.plan else { return false };
        let panics = plan.panics_at(name, passed.times);
        passed.panics += u64::from(panics);
        panics
    }
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns a pseudorandom number in `0.0..1.0`.
fn unit_hash(seed: u64, point: &str, passage: u64) -> f64 {
    let name = point.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let mixed = mix(seed ^ mix(name ^ mix(passage)));
    (mixed >> 11) as f64 / (1_u64 << 53) as f64
}

/// Spreads the bits of a number over all of it, as splitmix64 does.
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    fn panics(name: &'static str) -> bool {
        match catch_unwind(|| point(name)) {
            Ok(()) => false,
            Err(payload) => {
                assert_eq!(payload.downcast_ref::<String>(), Some(&format!("planned at {name}")));
                true
            }
        }
    }

    #[test]
    fn a_point_panics_at_the_planned_passage_and_is_counted() {
        let armed = arm(Plan::new(1).at("test.here", 3));
        let panicked: Vec<bool> = (0..5).map(|_| panics("test.here")).collect();
        assert_eq!(panicked, [false, false, true, false, false]);
        assert!(!panics("test.elsewhere"));
        assert_eq!(point_counts()["test.here"], PointCounts { times: 5, panics: 1 });
        assert_eq!(point_counts()["test.elsewhere"], PointCounts { times: 1, panics: 0 });
        drop(armed);
        assert!(!panics("test.here"));
        assert_eq!(point_counts()["test.here"].times, 5, "counts can be read afterwards");
    }

    #[test]
    fn the_same_seed_selects_the_same_passages_in_about_the_requested_share() {
        let panicked = |seed| -> Vec<u64> {
            let plan = Plan::new(seed).everywhere(0.01);
            (1..=100_000).filter(|passage| plan.panics_at("test.point", *passage)).collect()
        };
        assert_eq!(panicked(7), panicked(7));
        assert_ne!(panicked(7), panicked(8));
        assert!((900..1_100).contains(&panicked(7).len()), "{}", panicked(7).len());
    }
}
