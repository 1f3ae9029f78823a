//! Counts who passes which point, and lets some of them panic.
//!
//! Which passage panics follows from the seed, the point's name and the passage's number alone, whatever the
//! order in which threads come. Never panics while its thread unwinds already: that would end the process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Which passages of which points panic.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    seed: u64,
    share: f64,
    points: BTreeMap<&'static str, When>,
}

#[derive(Debug, Clone, Copy)]
enum When {
    Share(f64),
    At(u64),
}

impl Plan {
    /// Makes a plan by which nothing panics yet.
    pub fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Lets this share of the passages of every point panic that is not named.
    #[must_use]
    pub fn everywhere(self, share: f64) -> Self {
        Self { share, ..self }
    }

    /// Lets this share of the passages of one point panic.
    #[must_use]
    pub fn share(mut self, point: &'static str, share: f64) -> Self {
        self.points.insert(point, When::Share(share));
        self
    }

    /// Lets one passage of one point panic; the first is 1.
    #[must_use]
    pub fn at(mut self, point: &'static str, passage: u64) -> Self {
        self.points.insert(point, When::At(passage));
        self
    }

    fn strikes(&self, point: &'static str, passage: u64) -> bool {
        match self.points.get(point).copied().unwrap_or(When::Share(self.share)) {
            When::At(at) => passage == at,
            When::Share(share) => draw(self.seed, point, passage) < share,
        }
    }
}

/// What came of one point.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Passed {
    /// How often it was passed.
    pub times: u64,
    /// How many of these panicked.
    pub panics: u64,
}

/// Keeps a plan in force; nothing panics any more once it is dropped.
#[derive(Debug)]
pub struct Armed {
    // The plan is one for the whole process: who wants another one waits.
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());
static IS_ARMED: AtomicBool = AtomicBool::new(false);
static STATE: Mutex<State> = Mutex::new(State { plan: None, death: None, passed: BTreeMap::new() });

struct State {
    plan: Option<Plan>,
    /// The passage at which the process dies.
    death: Option<(String, u64)>,
    passed: BTreeMap<&'static str, Passed>,
}

/// Puts `plan` in force for the whole process, with all counts at nothing. Waits while another is.
pub fn arm(plan: Plan) -> Armed {
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    *state() = State { plan: Some(plan), death: None, passed: BTreeMap::new() };
    IS_ARMED.store(true, Relaxed);
    Armed { _turn: turn }
}

/// Lets the process die at the passage that `POINTSMAN_DIES_AT` names, such as `store.commit:3`: at once, as if it
/// were killed, with nothing unwound, flushed or told.
pub fn die_as_told() {
    let told = std::env::var("POINTSMAN_DIES_AT").unwrap_or_default();
    let Some((name, Ok(passage))) = told.rsplit_once(':').map(|(name, at)| (name, at.parse())) else {
        return;
    };
    state().death = Some((name.to_owned(), passage));
    IS_ARMED.store(true, Relaxed);
}

/// Returns what came of every point that was passed since the last [`arm`].
pub fn passed() -> BTreeMap<&'static str, Passed> {
    state().passed.clone()
}

impl Drop for Armed {
    fn drop(&mut self) {
        IS_ARMED.store(false, Relaxed);
        state().plan = None;
    }
}

/// Panics with `planned at NAME` if the plan in force says so.
#[expect(clippy::panic, reason = "that is what this room is for")]
pub(crate) fn point(name: &'static str) {
    if !IS_ARMED.load(Relaxed) || std::thread::panicking() {
        return;
    }
    // The lock is gone before the panic: it must not be poisoned.
    let strikes = state().pass(name);
    if strikes {
        panic!("planned at {name}");
    }
}

impl State {
    fn pass(&mut self, name: &'static str) -> bool {
        let passed = self.passed.entry(name).or_default();
        passed.times += 1;
        if self.death.as_ref().is_some_and(|(at, passage)| at == name && *passage == passed.times) {
            std::process::abort();
        }
        let Some(plan) = &self.plan else { return false };
        let strikes = plan.strikes(name, passed.times);
        passed.panics += u64::from(strikes);
        strikes
    }
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns a number in `0.0..1.0` that looks random.
fn draw(seed: u64, point: &str, passage: u64) -> f64 {
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
    fn a_point_panics_where_the_plan_says_and_is_counted() {
        let armed = arm(Plan::new(1).at("test.here", 3));
        let struck: Vec<bool> = (0..5).map(|_| panics("test.here")).collect();
        assert_eq!(struck, [false, false, true, false, false]);
        assert!(!panics("test.elsewhere"));
        assert_eq!(passed()["test.here"], Passed { times: 5, panics: 1 });
        assert_eq!(passed()["test.elsewhere"], Passed { times: 1, panics: 0 });
        drop(armed);
        assert!(!panics("test.here"));
        assert_eq!(passed()["test.here"].times, 5, "counts can be read afterwards");
    }

    #[test]
    fn the_same_seed_strikes_the_same_passages_in_about_the_share_that_was_asked_for() {
        let struck = |seed| -> Vec<u64> {
            let plan = Plan::new(seed).everywhere(0.01);
            (1..=100_000).filter(|passage| plan.strikes("test.point", *passage)).collect()
        };
        assert_eq!(struck(7), struck(7));
        assert_ne!(struck(7), struck(8));
        assert!((900..1_100).contains(&struck(7).len()), "{}", struck(7).len());
    }
}
