//! When a run holds: every target of a route is unusable for reasons that are not the requests'.
//!
//! A hold begins when a request comes back for such a reason, or when the providers say that no target can be used. While
//! it lasts requests of the route wait, and one at a time is sent to find out. It ends with the first answer. Pure: it is
//! given `now`, and what the providers have counted.

use std::time::Duration;

use tokio::time::Instant;

use crate::guard::Backoff;
use crate::provider::Outage;
use crate::types::{Failure, LaneName};

/// How long a route rests between two requests that find out, where its providers name no time.
const RETRY: Backoff = Backoff { base: Duration::from_secs(2), max: Duration::from_secs(60) };

/// A provider that names as long a wait as this, or one of years, does not mean it. The providers' own state ignores it too.
const MAX_CREDIBLE_RETRY_AFTER: Duration = Duration::from_hours(24);

/// A hold that is in force.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Hold {
    /// Since when.
    pub(super) since: Instant,
    /// Why.
    pub(super) why: Failure,
    /// Whose failure it is, where it is that of one target.
    pub(super) target: Option<LaneName>,
    /// When the next request finds out.
    pub(super) retry_at: Instant,
    /// The time before which no request can succeed, where the provider named one.
    pub(super) named: Option<Instant>,
    /// Whether waiting can mend it.
    pub(super) can_mend: bool,
    /// Requests that found nothing better.
    tries: u32,
    /// Requests that came back.
    came_back: u32,
    is_probing: bool,
    /// Whether `retry_at` and `named` are those of an outage.
    is_of_outage: bool,
    /// Answers that the targets had given when it began.
    answered: u64,
}

/// Whether a request may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It may.
    Send,
    /// It may, and finds out for the others.
    Probe,
    /// Not before that instant.
    Wait(Instant),
    /// Not while another finds out.
    Await,
}

/// One route of a run.
#[derive(Debug, Default)]
pub(super) struct RouteHold {
    /// Requests that have no answer yet, those included that wait.
    open: usize,
    hold: Option<Hold>,
}

impl RouteHold {
    /// Returns the hold in force.
    pub(super) fn hold(&self) -> Option<&Hold> {
        self.hold.as_ref()
    }

    /// Notes a request that is to be sent.
    pub(super) fn opened(&mut self) {
        self.open += 1;
    }

    /// Notes that a request has its end.
    pub(super) fn closed(&mut self) {
        self.open = self.open.saturating_sub(1);
    }

    /// Returns whether requests wait for an answer.
    pub(super) fn is_asked(&self) -> bool {
        self.open > 0
    }

    /// Says whether a request may be sent that has come back before.
    pub(super) fn turn(&mut self, now: Instant) -> Turn {
        match &mut self.hold {
            None => Turn::Send,
            Some(hold) if hold.is_probing => Turn::Await,
            Some(hold) if now < hold.retry_at => Turn::Wait(hold.retry_at),
            Some(hold) => {
                hold.is_probing = true;
                Turn::Probe
            }
        }
    }

    /// Notes that the request which found out is back.
    pub(super) fn probed(&mut self) {
        if let Some(hold) = &mut self.hold {
            hold.is_probing = false;
        }
    }

    /// Learns that a request came back for a reason that is not its own. `answered` is what the targets have answered by
    /// now. After `lasting_after` requests that came back waiting does not help any more.
    pub(super) fn came_back(
        &mut self,
        why: &Failure,
        target: Option<&LaneName>,
        (answered, lasting_after): (u64, Option<u32>),
        (now, jitter): (Instant, f64),
    ) {
        let hold = self.hold.get_or_insert_with(|| Hold {
            since: now,
            why: why.clone(),
            target: target.cloned(),
            retry_at: now,
            named: None,
            can_mend: true,
            tries: 0,
            came_back: 0,
            is_probing: false,
            is_of_outage: false,
            answered,
        });
        hold.came_back = hold.came_back.saturating_add(1);
        hold.can_mend &= lasting_after.is_none_or(|after| hold.came_back < after);
        if hold.retry_at > now {
            return;
        }
        hold.tries = hold.tries.saturating_add(1);
        let credible = why.retry_after.filter(|wait| *wait < MAX_CREDIBLE_RETRY_AFTER);
        hold.named = credible.map(|wait| now + wait);
        hold.retry_at = hold.named.unwrap_or_else(|| now + RETRY.wait(hold.tries, jitter).max(RETRY.base));
    }

    /// Learns how the targets are doing: `outage` where none of them can be used, of the one that is worth trying first.
    /// Returns whether requests that wait may be sent earlier than was known.
    pub(super) fn look(&mut self, outage: Option<(Outage, LaneName)>, answered: u64, now: Instant) -> bool {
        let Some((outage, target)) = outage else {
            let is_over = |hold: &Hold| answered > hold.answered || self.open == 0;
            let has_ended = self.hold.take_if(|hold| is_over(hold)).is_some();
            // What the outage waited for has come early, such as another key in its file.
            let Some(hold) = self.hold.as_mut().filter(|hold| hold.is_of_outage) else { return has_ended };
            (hold.retry_at, hold.named, hold.is_of_outage) = (now, None, false);
            return true;
        };
        if self.open == 0 {
            return self.hold.take().is_some();
        }
        let hold = self.hold.get_or_insert_with(|| Hold {
            since: now,
            why: outage.failure.clone(),
            target: None,
            retry_at: now,
            named: None,
            can_mend: outage.can_mend,
            tries: 0,
            came_back: 0,
            is_probing: false,
            is_of_outage: false,
            answered,
        });
        hold.named = outage.retry_at.filter(|_| outage.is_named);
        hold.can_mend = outage.can_mend;
        hold.is_of_outage = true;
        if let Some(at) = outage.retry_at {
            hold.retry_at = at;
        }
        (hold.why, hold.target) = (outage.failure, Some(target));
        false
    }
}

impl Hold {
    /// Returns whether it is to end the session: waiting does not mend it, or not within `max_hold`.
    pub(super) fn is_too_long(&self, max_hold: Option<Duration>, now: Instant) -> bool {
        let is_over = |max: Duration| {
            let end = self.since.checked_add(max);
            end.is_some_and(|end| now >= end || self.named.is_some_and(|at| at > end))
        };
        !self.can_mend || max_hold.is_some_and(is_over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Class;

    fn back(route: &mut RouteHold, class: Class, answered: u64, now: Instant) {
        route.came_back(&Failure::new(class, "x"), None, (answered, None), (now, 0.5));
    }

    fn outage(retry_at: Option<Instant>, is_named: bool) -> Option<(Outage, LaneName)> {
        let failure = Failure::new(Class::Quota, "spent");
        Some((Outage { failure, retry_at, is_named, can_mend: true }, "a/m".parse().unwrap()))
    }

    #[test]
    fn one_request_at_a_time_finds_out_and_the_first_answer_ends_the_hold() {
        let (mut route, now) = (RouteHold::default(), Instant::now());
        route.opened();
        route.opened();
        assert_eq!(route.turn(now), Turn::Send);
        back(&mut route, Class::ServerError, 7, now);
        let Turn::Wait(at) = route.turn(now) else { panic!("it does not wait") };
        assert!(at >= now + Duration::from_secs(1) && at <= now + Duration::from_secs(4));
        assert_eq!([route.turn(at), route.turn(at)], [Turn::Probe, Turn::Await]);
        assert!(!route.look(None, 7, at), "nothing has answered");
        route.probed();
        assert!(route.look(None, 8, at));
        assert_eq!(route.turn(at), Turn::Send);
    }

    #[test]
    fn an_answer_that_was_under_way_does_not_end_a_hold_while_no_target_can_be_used() {
        let (mut route, now) = (RouteHold::default(), Instant::now());
        route.opened();
        assert!(!route.look(outage(Some(now + Duration::from_secs(9)), false), 7, now));
        assert!(!route.look(outage(Some(now + Duration::from_secs(9)), false), 12, now));
        assert_eq!(route.turn(now), Turn::Wait(now + Duration::from_secs(9)));
        assert!(route.look(None, 13, now));
    }

    #[test]
    fn a_target_that_can_be_used_before_the_time_it_was_held_until_is_tried_at_once() {
        let (mut route, now) = (RouteHold::default(), Instant::now());
        let (later, soon) = (now + Duration::from_mins(5), now + Duration::from_secs(2));
        route.opened();
        assert!(!route.look(outage(Some(later), true), 7, now));
        assert_eq!(route.turn(now), Turn::Wait(later));
        // Its key has been replaced: no answer yet, and nothing rests.
        assert!(route.look(None, 7, soon), "what waits is not called");
        assert!(route.hold().unwrap().named.is_none());
        assert_eq!(route.turn(soon), Turn::Probe);
        back(&mut route, Class::ServerError, 7, soon);
        route.probed();
        // What a request has found out since holds.
        assert!(!route.look(None, 7, soon));
        assert!(matches!(route.turn(soon), Turn::Wait(at) if at > soon));
    }

    #[test]
    fn a_route_that_no_request_waits_for_holds_nothing() {
        let (mut route, now) = (RouteHold::default(), Instant::now());
        route.look(outage(None, false), 0, now);
        assert!(route.hold().is_none());
        route.opened();
        back(&mut route, Class::NetworkError, 0, now);
        route.closed();
        assert!(route.look(None, 0, now) && route.hold().is_none());
    }

    #[test]
    fn a_hold_is_too_long_once_it_has_lasted_or_as_soon_as_it_is_known_that_it_will() {
        let (mut route, now) = (RouteHold::default(), Instant::now());
        let max = Some(Duration::from_secs(600));
        route.opened();
        back(&mut route, Class::ServerError, 0, now);
        let late = now + Duration::from_secs(600);
        let hold = route.hold().unwrap().clone();
        assert_eq!([hold.is_too_long(max, now), hold.is_too_long(max, late)], [false, true]);
        assert!(!hold.is_too_long(None, late));
        route.look(outage(Some(now + Duration::from_secs(900)), true), 0, now);
        assert!(route.hold().unwrap().is_too_long(max, now));
        assert!(!route.hold().unwrap().is_too_long(None, now));
        route.look(outage(Some(now + Duration::from_secs(900)), false), 0, now);
        assert!(!route.hold().unwrap().is_too_long(max, now), "a guess is no reason");
    }

    #[test]
    fn an_absurd_wait_is_no_time_that_the_provider_named() {
        for wait in [Duration::MAX, Duration::from_secs(u64::MAX / 4), Duration::from_hours(24)] {
            let (mut route, now) = (RouteHold::default(), Instant::now());
            route.opened();
            let absurd = Failure { retry_after: Some(wait), ..Failure::new(Class::RateLimit, "x") };
            route.came_back(&absurd, None, (0, None), (now, 0.5));
            let hold = route.hold().unwrap();
            assert!(hold.named.is_none() && hold.retry_at <= now + RETRY.max, "{wait:?}");
            assert!(!hold.is_too_long(Some(Duration::from_mins(10)), now));
        }
    }

    #[test]
    fn requests_that_find_nothing_better_come_less_often() {
        let (mut route, mut now) = (RouteHold::default(), Instant::now());
        let began = now;
        route.opened();
        back(&mut route, Class::ServerError, 0, now);
        let mut probes = 0;
        while now < began + Duration::from_mins(10) {
            match route.turn(now) {
                Turn::Wait(at) => now = at,
                Turn::Probe => {
                    probes += 1;
                    back(&mut route, Class::ServerError, 0, now);
                    route.probed();
                }
                Turn::Send | Turn::Await => panic!("nothing holds"),
            }
        }
        assert!((10..=30).contains(&probes), "{probes}");
    }
}
