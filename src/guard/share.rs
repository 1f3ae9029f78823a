//! How much of a nominal rate the provider really grants: less after it refused calls that kept to it.
//!
//! A shared account, a limit that was lowered or never known exactly: the share falls to what went
//! through lately, stays near that for a while, and then feels its way back. The way back is CUBIC's (RFC
//! 9438): flat around what was last refused, steeper the longer nothing is. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// How long it stays below what was refused before it is tried again.
const PLATEAU: f64 = 15.0;

/// How steep the growth beyond the plateau is: by this share of it after as long again.
const STEEPNESS: f64 = 2.0;

/// A cut goes no deeper than to this share of what was.
const DEEPEST: f64 = 0.3;

/// A cut goes at least as deep as this, or it would change nothing.
const LIGHTEST: f64 = 0.98;

/// The smallest share: something must get through for anything to be learned.
const LEAST: f64 = 0.01;

/// A cut for a refusal that follows another goes at least as deep as this.
const AGAIN: f64 = 0.8;

/// Cells that an incident must have had room for before what was taken of them is believed, and what is cut
/// to before that.
const ENOUGH: f64 = 4.0;
const UNMEASURED: f64 = 0.8;

/// A refusal so soon after another is of the same incident: the first cut was too small.
const SOON: Duration = Duration::from_secs(3);

/// Seconds over which what goes through is measured.
const MEASURED: f64 = 3.0;

/// The share of a nominal rate.
#[derive(Debug)]
pub(super) struct Share {
    /// As of the last cut.
    cut: Option<Cut>,
    /// Cells a second that went through lately, and as of when.
    through: f64,
    measured: Instant,
    /// Since when it has been measured.
    began: Instant,
    /// Since the first of several refusals that follow one another.
    incident: Option<Incident>,
}

/// At a refusal the provider's bucket is empty. What it took until the next one is what it grants.
#[derive(Debug, Clone, Copy)]
struct Incident {
    began: Instant,
    last: Instant,
    /// Cells that have left since, whatever became of them, less those refused.
    taken: f64,
}

#[derive(Debug, Clone, Copy)]
struct Cut {
    at: Instant,
    /// The share right after it.
    to: f64,
    /// The share around which the provider began to refuse.
    ceiling: f64,
}

impl Share {
    pub(super) fn new(now: Instant) -> Self {
        Self { cut: None, through: 0.0, measured: now, began: now, incident: None }
    }

    /// Returns the share at `now`, above 0 and at most 1.
    pub(super) fn value(&self, now: Instant) -> f64 {
        self.cut.map_or(1.0, |cut| cut.grown(now))
    }

    /// Counts cells that leave.
    pub(super) fn left(&mut self, cells: u64) {
        if let Some(incident) = &mut self.incident {
            incident.taken += cells as f64;
        }
    }

    /// Takes back cells that did not leave after all.
    pub(super) fn stayed(&mut self, cells: u64) {
        if let Some(incident) = &mut self.incident {
            incident.taken -= cells as f64;
        }
    }

    /// Counts cells that the provider took.
    pub(super) fn went_through(&mut self, cells: u64, now: Instant) {
        self.through = self.through_at(now) + cells as f64 / MEASURED;
        self.measured = self.measured.max(now);
    }

    /// Cuts the share: a call of so many cells that left at `left` was refused while `per_second` was the
    /// nominal rate. Calls that left before the last cut are of the same refusal and cut no more.
    pub(super) fn refused(&mut self, cells: u64, per_second: f64, left: Instant, now: Instant) {
        let is_late = self.cut.is_some_and(|cut| left <= cut.at);
        let recent = self.incident.filter(|incident| now.saturating_duration_since(incident.last) < SOON);
        let mut incident = recent.unwrap_or(Incident { began: now, last: now, taken: cells as f64 });
        incident.taken -= cells as f64;
        incident.last = now;
        self.incident = Some(incident);
        if is_late {
            return;
        }
        let (was, over) = (self.value(now), now.saturating_duration_since(incident.began).as_secs_f64());
        // A stray refusal costs little: what went through lately shows how much is granted. But when the limit
        // has fallen that is a thing of the past, and what was taken since the first refusal counts.
        let is_measured = now.saturating_duration_since(self.began).as_secs_f64() >= MEASURED;
        let (granted, lightest) = match recent {
            Some(_) if over * per_second >= ENOUGH => (incident.taken.max(0.0) / over, AGAIN),
            Some(_) => (was * per_second * UNMEASURED, AGAIN),
            None if is_measured => (self.through_at(now), LIGHTEST),
            None => (was * per_second, LIGHTEST),
        };
        let to = (granted / per_second).clamp(was * DEEPEST, was * lightest).max(LEAST);
        let ceiling = (granted / per_second).clamp(to, was.max(to));
        self.cut = Some(Cut { at: now, to, ceiling });
    }

    /// Forgets every cut.
    pub(super) fn forget(&mut self, now: Instant) {
        (self.cut, self.incident, self.through, self.began) = (None, None, 0.0, now);
    }

    fn through_at(&self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.measured).as_secs_f64();
        self.through * (-passed / MEASURED).exp()
    }
}

impl Cut {
    fn grown(&self, now: Instant) -> f64 {
        let way = now.saturating_duration_since(self.at).as_secs_f64() / PLATEAU - 1.0;
        let depth = if way < 0.0 { 1.0 - self.to / self.ceiling } else { STEEPNESS };
        (self.ceiling * (1.0 + depth * way.powi(3))).clamp(LEAST, 1.0)
    }
}

/// How long after the last refusal a share of `from` is whole again, at most.
#[cfg(test)]
fn recovered_after(from: f64) -> Duration {
    Duration::from_secs_f64(PLATEAU * (1.0 + ((1.0 / from - 1.0) / STEEPNESS).cbrt()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lets `share` go for so many seconds at its own rate against a provider that grants `granted` of
    /// 20 a second, and returns how many calls were taken and how many refused.
    fn play(share: &mut Share, start: Instant, seconds: u64, granted: f64) -> (u32, u32) {
        let (mut bucket, mut owed) = (0.0_f64, 0.0);
        let (mut taken, mut refused) = (0, 0);
        for tick in 0..seconds * 1_000 {
            let now = start + Duration::from_millis(tick);
            bucket = (bucket + 0.02 * granted).min(20.0 * granted);
            owed += 0.02 * share.value(now);
            if owed >= 1.0 {
                owed -= 1.0;
                share.left(1);
                if bucket >= 1.0 {
                    bucket -= 1.0;
                    taken += 1;
                    share.went_through(1, now);
                } else {
                    refused += 1;
                    share.refused(1, 20.0, now, now);
                }
            }
        }
        (taken, refused)
    }

    #[test]
    fn a_stray_refusal_costs_next_to_nothing() {
        let start = Instant::now();
        let mut share = Share::new(start);
        assert_eq!(play(&mut share, start, 20, 1.1).1, 0);
        let now = start + Duration::from_secs(20);
        share.refused(1, 20.0, now, now);
        assert!(share.value(now) > 0.9, "{}", share.value(now));
        assert!(share.value(now + Duration::from_secs(10)) > 0.95);
    }

    #[test]
    fn a_limit_that_falls_to_a_third_is_found_and_used() {
        let start = Instant::now();
        let mut share = Share::new(start);
        play(&mut share, start, 20, 1.0);
        let fallen = start + Duration::from_secs(20);
        let (taken, refused) = play(&mut share, fallen, 60, 1.0 / 3.0);
        assert!(taken > 340, "{taken} of 400");
        assert!(refused <= 16, "{refused}");
        let back = fallen + Duration::from_secs(60);
        assert_eq!(play(&mut share, back, 30, 1.0).1, 0);
        assert!(share.value(back + Duration::from_secs(30)) > 0.9);
    }

    #[test]
    fn calls_of_one_incident_cut_once() {
        let start = Instant::now();
        let mut share = Share::new(start);
        let now = start + Duration::from_secs(1);
        share.refused(1, 20.0, now, now);
        let once = share.value(now);
        (0..50).for_each(|_| share.refused(1, 20.0, now, now + Duration::from_millis(5)));
        assert_eq!(share.value(now), once);
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds_and_always_recovers(
            events in prop::collection::vec((0u64..20_000, any::<bool>()), 1..200),
        ) {
            let mut now = Instant::now();
            let mut share = Share::new(now);
            for (pause, refused) in events {
                now += Duration::from_millis(pause);
                if refused { share.refused(1, 20.0, now, now) } else { share.went_through(1, now) }
                let value = share.value(now);
                prop_assert!((LEAST..=1.0).contains(&value), "{value}");
            }
            prop_assert!(share.value(now + recovered_after(LEAST)) > 0.999);
        }
    }
}
