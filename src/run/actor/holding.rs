//! Decides when a run holds and when it pauses instead.

use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Run;
use crate::clock;
use crate::run::advice::advice;
use crate::run::hold::Hold;
use crate::run::item_result::ItemResult;
use crate::run::progress::Holding;
use crate::run::report::RunOutcome;
use crate::types::{Failure, ItemStatus};

/// A longer wait is displayed as this one.
const MAX_DISPLAYED_WAIT: Duration = Duration::from_hours(24 * 366);

/// How long requests in the router's queue have to return and fail, after the requests of their hold were
/// failed.
const TIME_TO_FAIL_QUEUED_REQUESTS: Duration = Duration::from_secs(15);

impl Run {
    /// Updates the holds, and pauses if waiting does not help.
    pub(super) fn update_holds(&mut self) {
        let now = Instant::now();
        self.gate.update(self.max_hold, now);
        // Requests that the router still queues for an unusable provider are deferred.
        if self
            .held_items_failed_at
            .is_some_and(|at| now.saturating_duration_since(at) >= TIME_TO_FAIL_QUEUED_REQUESTS)
        {
            self.stop.send_replace(true);
        }
        // A run whose input or output has failed finishes the items in flight, and holds like any other run.
        if *self.stop.borrow() {
            self.logged_hold = None;
            return;
        }
        match self.gate.hold_to_end_session(self.max_hold, now) {
            Some(hold) if self.fails_held_items => return self.fail_held_items(failure_of_hold(&hold), now),
            Some(hold) => return self.pause(failure_of_hold(&hold)),
            None => {}
        }
        let oldest = self.gate.oldest_hold();
        // A hold also begins between two updates, when a request fails.
        match (&self.logged_hold, oldest) {
            (None, Some((route, hold))) => {
                warn!(
                    run = self.number(),
                    pipeline = self.pipeline.name(),
                    %route,
                    why = %failure_of_hold(&hold),
                    "the run holds"
                );
                self.logged_hold = Some(self.metrics.begin_hold());
            }
            (Some(_), None) => {
                info!(run = self.number(), pipeline = self.pipeline.name(), "the run holds no longer");
                self.logged_hold = None;
            }
            (None, None) | (Some(_), Some(_)) => {}
        }
    }

    /// Counts a finished item, and pauses if too many have failed. If no item is in flight, the run pauses only
    /// if the input has another item.
    pub(super) fn count_failed(&mut self, result: &ItemResult) {
        let failed = result.status == ItemStatus::Failed;
        let completed = result.status == ItemStatus::Completed;
        let Some(limit) = self.failure_limit.count(failed, completed) else { return };
        if !self.outcome.is_regular() {
            return;
        }
        let Some((step, failure)) = &result.error else { return };
        let last_failure = format!("the last at step {step}: {}", failure.message);
        let message = format!("{limit}; {last_failure}");
        let why = Failure { message: message.into(), ..Failure::new(failure.class, "") };
        if self.in_flight.is_empty() {
            self.pending_pause.get_or_insert((why, last_failure));
        } else {
            self.pause_for_failures(why, last_failure);
        }
    }

    /// Pauses before another item starts, if too many have failed.
    pub(super) fn pause_before_another(&mut self) {
        if let Some((why, last_failure)) = self.pending_pause.take()
            && self.outcome.is_regular()
        {
            self.pause_for_failures(why, last_failure);
        }
    }

    /// Pauses because too many items have failed.
    fn pause_for_failures(&mut self, why: Failure, last_failure: String) {
        if self.paused.is_none() {
            self.last_counted_failure = Some(last_failure);
        }
        self.pause(why);
    }

    /// Stops reading items, and fails those whose requests hold.
    fn fail_held_items(&mut self, why: Failure, now: Instant) {
        warn!(
            run = self.number(),
            pipeline = self.pipeline.name(),
            %why,
            "the run fails the items that hold"
        );
        self.gate.fail_held();
        self.held_items_failed_at.get_or_insert(now);
        self.paused.get_or_insert(why);
        self.stop_intake(RunOutcome::Paused);
    }

    /// Stops reading items, and leaves those unfinished whose requests wait.
    pub(super) fn pause(&mut self, why: Failure) {
        info!(run = self.number(), pipeline = self.pipeline.name(), %why, "the run pauses");
        self.paused.get_or_insert(why);
        self.stop_intake(RunOutcome::Paused);
        self.stop.send_replace(true);
    }

    /// Returns why the run holds now, if it does.
    pub(super) fn holding(&self, now: Instant) -> Option<Holding> {
        let (route, hold) = self.gate.oldest_hold()?;
        let seconds_until = |at: Instant| at.saturating_duration_since(now).as_secs_f64();
        Some(Holding {
            route,
            target: hold.target.as_ref().map(ToString::to_string),
            class: hold.failure.class,
            message: hold.failure.message,
            duration_seconds: now.saturating_duration_since(hold.since).as_secs_f64(),
            retry_in_seconds: seconds_until(hold.retry_at),
            until_in_seconds: hold.provider_retry_at.map(seconds_until),
        })
    }
}

/// Returns the time after `wait` for messages.
fn time_text(wait: Duration) -> String {
    let wait = SignedDuration::try_from(wait.min(MAX_DISPLAYED_WAIT)).unwrap_or_default();
    match clock::now().checked_add(wait) {
        Ok(at) => format!(" (until {})", at.strftime("%Y-%m-%d %H:%M UTC")),
        Err(_) => String::new(),
    }
}

/// Returns the failure that explains why a run cannot continue, with advice for the user.
fn failure_of_hold(hold: &Hold) -> Failure {
    let Hold { failure, target, provider_retry_at, .. } = hold;
    let advice = advice(failure, target.as_ref()).map_or_else(String::new, |advice| format!("; {advice}"));
    let target = target.as_ref().map_or_else(String::new, |target| format!("{target}: "));
    let until = provider_retry_at
        .map_or_else(String::new, |at| time_text(at.saturating_duration_since(Instant::now())));
    let message = format!("{target}{}{until}{advice}", failure.message);
    Failure { message: message.into(), ..Failure::new(failure.class, "") }
}
