//! How a run holds, and when it pauses instead.

use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Run;
use crate::clock;
use crate::pipeline::walk::Settled;
use crate::run::advice::advice;
use crate::run::hold::Hold;
use crate::run::progress::Holding;
use crate::run::report::Ended;
use crate::types::{Failure, ItemStatus};

/// A longer wait is shown as this one.
const LONGEST: Duration = Duration::from_hours(24 * 366);

/// How long requests that wait at the router have to come back and fail, where those of their hold are given up.
const GIVING_UP: Duration = Duration::from_secs(15);

impl Run {
    /// Looks whether the targets can be used, and pauses where waiting does not help.
    pub(super) fn look_at_holds(&mut self) {
        let now = Instant::now();
        self.gate.look(self.max_hold, now);
        // What waits at the router for a provider that stays out is left for later.
        if self.gave_up.is_some_and(|at| now.saturating_duration_since(at) >= GIVING_UP) {
            self.stop.send_replace(true);
        }
        // A run whose input or output has failed goes on with what is under way, and holds as any other.
        if *self.stop.borrow() {
            return;
        }
        match self.gate.too_long(self.max_hold, now) {
            Some(hold) if self.gives_up => return self.give_up_hold(of_hold(&hold), now),
            Some(hold) => return self.pause(of_hold(&hold)),
            None => {}
        }
        let held = self.gate.holding();
        // A hold also begins between two looks, when a request comes back.
        match (std::mem::replace(&mut self.logs_hold, held.is_some()), held) {
            (false, Some((route, hold))) => warn!(%route, why = %of_hold(&hold), "the run holds"),
            (true, None) => info!("the run holds no longer"),
            (false, None) | (true, Some(_)) => {}
        }
    }

    /// Counts an item that has settled, and pauses when too many have failed. With the last item known, the input decides
    /// whether there is anything left to pause.
    pub(super) fn count_failure(&mut self, settled: &Settled) {
        let (failed, completed) =
            (settled.status == ItemStatus::Failed, settled.status == ItemStatus::Completed);
        let Some(limit) = self.failures.count(failed, completed) else { return };
        if self.ended != Ended::Whole {
            return;
        }
        let Some((step, failure)) = &settled.error else { return };
        let message = format!("{limit}; the last one at step {step}: {}", failure.message);
        let why = Failure { message: message.into(), ..Failure::new(failure.class, "") };
        if self.in_flight.is_empty() {
            self.too_many.get_or_insert(why);
        } else {
            self.pause(why);
        }
    }

    /// Pauses before another item begins, where too many have failed.
    pub(super) fn pause_before_another(&mut self) {
        if let Some(why) = self.too_many.take().filter(|_| self.ended == Ended::Whole) {
            self.pause(why);
        }
    }

    /// Takes no more items, and fails those whose requests hold.
    fn give_up_hold(&mut self, why: Failure, now: Instant) {
        warn!(%why, "the run gives up what holds");
        self.gate.give_up();
        self.gave_up.get_or_insert(now);
        self.paused.get_or_insert(why);
        self.stop_intake(Ended::Paused);
    }

    /// Takes no more items, and leaves those unfinished whose requests wait.
    fn pause(&mut self, why: Failure) {
        info!(%why, "the run pauses");
        self.paused.get_or_insert(why);
        self.stop_intake(Ended::Paused);
        self.stop.send_replace(true);
    }

    /// Returns why the run holds now, if it does.
    pub(super) fn holding(&self, now: Instant) -> Option<Holding> {
        let (route, hold) = self.gate.holding()?;
        let until = |at: Instant| at.saturating_duration_since(now).as_secs_f64();
        Some(Holding {
            route,
            target: hold.target.as_ref().map(ToString::to_string),
            class: hold.why.class,
            message: hold.why.message,
            seconds: now.saturating_duration_since(hold.since).as_secs_f64(),
            retry_in_seconds: until(hold.retry_at),
            until_in_seconds: hold.named.map(until),
        })
    }
}

/// Shows when that time will have passed.
fn until(wait: Duration) -> String {
    let wait = SignedDuration::try_from(wait.min(LONGEST)).unwrap_or_default();
    match clock::now().checked_add(wait) {
        Ok(at) => format!(" (until {})", at.strftime("%Y-%m-%d %H:%M UTC")),
        Err(_) => String::new(),
    }
}

/// Returns the failure that says why a run cannot go on, with what a user can do about it.
fn of_hold(hold: &Hold) -> Failure {
    let Hold { why, target, named, .. } = hold;
    let advice = advice(why, target.as_ref()).map_or_else(String::new, |advice| format!("; {advice}"));
    let target = target.as_ref().map_or_else(String::new, |target| format!("{target}: "));
    let until = named.map_or_else(String::new, |at| until(at.saturating_duration_since(Instant::now())));
    let message = format!("{target}{}{until}{advice}", why.message);
    Failure { message: message.into(), ..Failure::new(why.class, "") }
}
