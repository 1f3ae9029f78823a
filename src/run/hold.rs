//! When a run holds: every target of a route is unusable for reasons that are not the requests'.
//!
//! A hold begins when requests come back for such a reason and none that has not failed is under way whose end could show
//! otherwise, or when the providers say that no target can be used. While it lasts requests of the route wait, and one at a
//! time is sent to find out. It ends with the first answer. One that fails for its own reasons must not be the one that finds
//! out again and again: first are requests that have not failed (those that wait at the router, or one of an item that has
//! not begun), then those that came back least often and longest ago. After a hold the requests that came back are sent a
//! few at a time, more with each that is answered. Pure: it is given `now`, and what the providers have counted.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use crate::guard::Backoff;
use crate::provider::Outage;
use crate::types::{Failure, LaneName};

/// How long a route rests between two requests that find out, where its providers name no time.
const RETRY: Backoff = Backoff { base: Duration::from_secs(2), max: Duration::from_secs(60) };

/// A provider that names as long a wait as this, or one of years, does not mean it. The providers' own state ignores it too.
const MAX_CREDIBLE_RETRY_AFTER: Duration = Duration::from_hours(24);

/// How long one that has not failed is left to find out before one is sent that has.
const HEAD_START: Duration = Duration::from_secs(1);

/// How often it is looked whether an attempt has found out that the provider itself has chosen.
const LOOK: Duration = Duration::from_millis(200);

/// Requests that came back with no answer between them after which a hold begins.
const IN_A_ROW: u32 = 3;

/// The same while attempts that left before the first of them came back are without a word: their answers would show that
/// the targets work.
const IN_A_ROW_WHILE_OTHERS_WAIT: u32 = 12;

/// How long nothing is answered, and how many requests come back meanwhile, before those that failed while others were
/// answered are taken for the reason themselves, where none but such is left. Where a run may hold only for a shorter time,
/// they are given up before it pauses.
const ONLY_SUSPECTED: (Duration, u32) = (Duration::from_secs(20), 3);

/// The part of the time for which a run may hold that is as long at most.
const PART_OF_MAX_HOLD: u32 = 2;

/// One of so many requests under way may be one that came back.
const ONE_OF: usize = 8;

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
    /// Whether its requests are not sent any more, and fail.
    gives_up: bool,
    /// Whether that is because all of them failed while others were answered.
    for_suspicion: bool,
    /// Requests that found nothing better.
    tries: u32,
    /// Requests that came back.
    came_back: u32,
    is_probing: bool,
    /// Whether the targets say that an attempt is finding out.
    is_probed_by_target: bool,
    /// Whether the targets said that none can be used.
    is_outage: bool,
    /// The time of the retry for which an item was begun.
    begun_for: Option<Instant>,
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
    /// Not while others are under way.
    Await,
    /// It is not sent any more, and fails.
    GiveUp,
}

/// The order in which requests are sent again: those first that came back least often, and longest ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    lives: u32,
    number: u64,
}

/// What a route knows of one of its requests.
#[derive(Debug, Default)]
pub(super) struct Member {
    has_come_back: bool,
    /// Whether it failed while others were answered.
    is_suspected: bool,
    /// The row in which it is counted.
    row: u64,
}

impl Member {
    /// Returns whether it failed while others were answered.
    pub(super) fn is_suspected(&self) -> bool {
        self.is_suspected
    }
}

/// Requests that came back with no answer between them.
#[derive(Debug, Default)]
struct Row {
    number: u64,
    requests: u32,
    /// When the first of them came back, and what the targets had answered by then.
    since: Option<(Instant, u64)>,
}

/// How a request came back, and what is known of the others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Back<'a> {
    pub(super) why: &'a Failure,
    pub(super) target: Option<&'a LaneName>,
    /// Whether waiting does not mend it if it is so with every request.
    pub(super) is_lasting: bool,
    /// What the targets have answered by now.
    pub(super) answered: u64,
    /// When the oldest attempt left that has had no word yet.
    pub(super) oldest_unheard: Option<Instant>,
    /// Whether items can begin that have not.
    pub(super) more: bool,
}

/// One route of a run.
#[derive(Debug, Default)]
pub(super) struct RouteHold {
    /// Requests that have no answer yet, those included that wait.
    open: usize,
    /// Of those, the ones that came back.
    returned: usize,
    /// Of those, the ones that failed while others were answered.
    suspected: usize,
    /// Those that came back and are to be sent again, as soon as they may.
    waiting: BTreeSet<Place>,
    /// Numbers those that came back.
    last: u64,
    /// Those that were sent again and are not back.
    out_again: usize,
    /// How many of those there may be.
    may_be_out: usize,
    row: Row,
    hold: Option<Hold>,
}

impl RouteHold {
    /// Returns the hold in force.
    pub(super) fn hold(&self) -> Option<&Hold> {
        self.hold.as_ref()
    }

    /// Notes a request that is to be sent.
    pub(super) fn opened(&mut self) -> Member {
        self.open += 1;
        Member::default()
    }

    /// Notes that a request has its end.
    pub(super) fn closed(&mut self, member: &Member) {
        self.open = self.open.saturating_sub(1);
        self.returned = self.returned.saturating_sub(usize::from(member.has_come_back));
        self.suspected = self.suspected.saturating_sub(usize::from(member.is_suspected));
    }

    /// Returns whether requests wait for an answer.
    pub(super) fn is_asked(&self) -> bool {
        self.open > 0
    }

    /// Returns how many requests that came back are not under way.
    pub(super) fn resting(&self) -> usize {
        self.returned.saturating_sub(self.out_again)
    }

    fn not_returned(&self) -> usize {
        self.open - self.returned
    }

    /// Puts a request among those that are to be sent again.
    pub(super) fn wait(&mut self, lives: u32) -> Place {
        self.last += 1;
        let place = Place { lives, number: self.last };
        self.waiting.insert(place);
        place
    }

    /// Forgets a request that was to be sent again.
    pub(super) fn waits_no_more(&mut self, place: Place) {
        self.waiting.remove(&place);
    }

    /// Says whether a request may be sent that has come back before. `more` is whether items can begin that have not.
    pub(super) fn turn(&mut self, place: Place, more: bool, now: Instant) -> Turn {
        if let Some(hold) = self.hold.as_mut().filter(|hold| hold.for_suspicion)
            && self.suspected < self.returned
        {
            // One has come that is not suspected.
            (hold.gives_up, hold.for_suspicion) = (false, false);
        }
        let is_first = self.waiting.first() == Some(&place);
        let others_find_out = more || self.not_returned() > 0;
        let may_be_out = self.may_be_out.max(self.not_returned() / ONE_OF).max(1);
        let turn = match &mut self.hold {
            Some(hold) if hold.gives_up => Turn::GiveUp,
            None if !is_first || self.out_again >= may_be_out => Turn::Await,
            None => Turn::Send,
            Some(hold) if hold.is_probing || !is_first => Turn::Await,
            Some(hold) if hold.is_probed_by_target => Turn::Wait(now + LOOK),
            Some(hold) => {
                let at = if others_find_out { hold.retry_at + HEAD_START } else { hold.retry_at };
                if now < at {
                    Turn::Wait(at)
                } else {
                    hold.is_probing = true;
                    Turn::Probe
                }
            }
        };
        if matches!(turn, Turn::Send | Turn::Probe) {
            self.waits_no_more(place);
            self.out_again += 1;
        }
        turn
    }

    /// Notes that a request which was sent again is back.
    pub(super) fn is_back(&mut self, turn: Turn, answered: bool) {
        self.out_again = self.out_again.saturating_sub(1);
        self.may_be_out = if answered { self.may_be_out + 1 } else { self.may_be_out / 2 };
        if let (Turn::Probe, Some(hold)) = (turn, &mut self.hold) {
            hold.is_probing = false;
        }
    }

    /// Returns whether an item is to begin that has not, to find out with a request that has not failed. Once for each time.
    pub(super) fn wants_another(&mut self, now: Instant) -> bool {
        if self.not_returned() > 0 {
            return false;
        }
        let Some(hold) = &mut self.hold else { return false };
        let is_due = !hold.gives_up && !hold.is_probing && !hold.is_probed_by_target && now >= hold.retry_at;
        if !is_due || hold.begun_for == Some(hold.retry_at) {
            return false;
        }
        hold.begun_for = Some(hold.retry_at);
        true
    }

    /// Learns that a request came back for a reason that is not known to be its own.
    pub(super) fn returned(&mut self, member: &mut Member) {
        self.returned += usize::from(!std::mem::replace(&mut member.has_come_back, true));
    }

    /// Notes whether a request failed while others were answered.
    pub(super) fn suspects(&mut self, member: &mut Member, is_suspected: bool) {
        let is_new = is_suspected && !std::mem::replace(&mut member.is_suspected, true);
        self.suspected += usize::from(is_new);
    }

    /// Learns why a request came back that has [returned](Self::returned), and holds if it tells something of the targets.
    pub(super) fn came_back(&mut self, member: &mut Member, back: Back<'_>, (now, jitter): (Instant, f64)) {
        let Back { why, target, is_lasting, answered, oldest_unheard, more } = back;
        if self.row.since.is_none_or(|(_, before)| answered > before) {
            self.row = Row { number: self.row.number + 1, requests: 0, since: Some((now, answered)) };
        }
        if std::mem::replace(&mut member.row, self.row.number) != self.row.number {
            self.row.requests += 1;
        }
        let requests = self.row.requests;
        let others_wait =
            oldest_unheard.zip(self.row.since).is_some_and(|(oldest, (since, _))| oldest <= since);
        let telling = if others_wait { IN_A_ROW_WHILE_OTHERS_WAIT } else { IN_A_ROW };
        if self.hold.is_none() && requests < telling && self.not_returned() > 0 {
            return;
        }
        let hold = self.hold.get_or_insert_with(|| Hold::new(why, target, answered, now));
        hold.came_back = hold.came_back.saturating_add(1);
        let asks_others = more && requests < IN_A_ROW;
        hold.can_mend &= !is_lasting || asks_others || requests < telling && more;
        if hold.retry_at > now {
            return;
        }
        hold.tries = hold.tries.saturating_add(1);
        let credible = why.retry_after.filter(|wait| *wait < MAX_CREDIBLE_RETRY_AFTER);
        hold.named = credible.map(|wait| now + wait);
        let wait = if is_lasting && asks_others {
            Duration::ZERO
        } else {
            RETRY.wait(hold.tries, jitter).max(RETRY.base)
        };
        hold.retry_at = hold.named.unwrap_or(now + wait);
    }

    /// Learns how the targets are doing: `outage` where none of them can be used, of the one that is worth trying first.
    /// Returns whether requests that wait may be sent earlier than was known.
    pub(super) fn look(&mut self, outage: Option<(Outage, LaneName)>, answered: u64, now: Instant) -> bool {
        let Some((outage, target)) = outage else {
            if let Some(hold) = &mut self.hold {
                hold.is_probed_by_target = false;
            }
            let is_over = |hold: &Hold| answered > hold.answered || self.open == 0;
            let has_ended = self.hold.take_if(|hold| is_over(hold)).is_some();
            // What the outage waited for has come early, such as another key in its file.
            let Some(hold) = self.hold.as_mut().filter(|hold| hold.is_outage) else { return has_ended };
            (hold.retry_at, hold.named, hold.is_outage) = (now, None, false);
            return true;
        };
        if self.open == 0 {
            return self.hold.take().is_some();
        }
        let hold = self.hold.get_or_insert_with(|| Hold::new(&outage.failure, None, answered, now));
        hold.is_outage = true;
        hold.named = outage.retry_at.filter(|_| outage.is_named);
        hold.can_mend = outage.can_mend;
        hold.is_probed_by_target = outage.is_probed;
        if let Some(at) = outage.retry_at {
            hold.retry_at = at;
        }
        (hold.why, hold.target) = (outage.failure, Some(target));
        false
    }

    /// Returns whether the requests of a hold are given up once each of them is suspected: only such are left that came back,
    /// and nothing has been answered for a while, or waiting does not mend it. `more` is whether items can begin that have not.
    pub(super) fn would_give_up(&self, more: bool, max_hold: Option<Duration>, now: Instant) -> bool {
        let are_last = !more && self.returned > 0 && self.not_returned() == 0;
        let (time, requests) = ONLY_SUSPECTED;
        let time = max_hold.map_or(time, |max| time.min(max / PART_OF_MAX_HOLD));
        let is_long = |hold: &Hold| {
            hold.came_back >= requests
                && hold.since.checked_add(time).is_some_and(|end| now >= end)
                && hold.named.is_none_or(|at| at <= now)
        };
        are_last && self.hold.as_ref().is_some_and(|hold| !hold.gives_up && (!hold.can_mend || is_long(hold)))
    }

    /// Gives up the requests of a hold, where each of them failed while others were answered: that the targets went down when
    /// the last of the others had its answer is less likely. Returns whether it does.
    pub(super) fn give_up_suspected(&mut self, more: bool, max_hold: Option<Duration>, now: Instant) -> bool {
        if self.suspected < self.returned || !self.would_give_up(more, max_hold, now) {
            return false;
        }
        if let Some(hold) = &mut self.hold {
            hold.for_suspicion = true;
        }
        self.give_up()
    }

    /// Gives up the requests of a hold: they fail. Returns whether that is new.
    pub(super) fn give_up(&mut self) -> bool {
        self.hold.as_mut().is_some_and(|hold| !std::mem::replace(&mut hold.gives_up, true))
    }
}

impl Hold {
    fn new(why: &Failure, target: Option<&LaneName>, answered: u64, now: Instant) -> Self {
        Self {
            since: now,
            why: why.clone(),
            target: target.cloned(),
            retry_at: now,
            named: None,
            can_mend: true,
            gives_up: false,
            for_suspicion: false,
            tries: 0,
            came_back: 0,
            is_probing: false,
            is_probed_by_target: false,
            is_outage: false,
            begun_for: None,
            answered,
        }
    }

    /// Returns whether it is to end the session: waiting does not mend it, or not within `max_hold`.
    pub(super) fn is_too_long(&self, max_hold: Option<Duration>, now: Instant) -> bool {
        let is_over = |max: Duration| {
            let end = self.since.checked_add(max);
            end.is_some_and(|end| now >= end || self.named.is_some_and(|at| at > end))
        };
        !self.gives_up && (!self.can_mend || max_hold.is_some_and(is_over))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Class;

    /// A route, and one request of it that has come back.
    fn one_back(class: Class, answered: u64, now: Instant) -> (RouteHold, Member) {
        let mut route = RouteHold::default();
        let mut member = route.opened();
        route.returned(&mut member);
        route.suspects(&mut member, false);
        back(&mut route, &mut member, class, answered, now);
        (route, member)
    }

    fn back(route: &mut RouteHold, member: &mut Member, class: Class, answered: u64, now: Instant) {
        come_back(route, member, &Failure::new(class, "x"), (answered, false), None, now);
    }

    fn come_back(
        route: &mut RouteHold,
        member: &mut Member,
        why: &Failure,
        (answered, is_lasting): (u64, bool),
        oldest_unheard: Option<Instant>,
        now: Instant,
    ) {
        route.returned(member);
        route.suspects(member, false);
        let back = Back { why, target: None, is_lasting, answered, oldest_unheard, more: true };
        route.came_back(member, back, (now, 0.5));
    }

    fn outage(retry_at: Option<Instant>, is_named: bool) -> Option<(Outage, LaneName)> {
        let failure = Failure::new(Class::Quota, "spent");
        Some((
            Outage { failure, retry_at, is_probed: false, is_named, can_mend: true },
            "a/m".parse().unwrap(),
        ))
    }

    #[test]
    fn one_request_at_a_time_finds_out_and_the_first_answer_ends_the_hold() {
        let now = Instant::now();
        let (mut route, _member) = one_back(Class::ServerError, 7, now);
        let mut other = route.opened();
        back(&mut route, &mut other, Class::ServerError, 7, now);
        let places = [route.wait(1), route.wait(1)];
        let Turn::Wait(at) = route.turn(places[0], false, now) else { panic!("it does not wait") };
        assert!(at >= now + Duration::from_secs(1) && at <= now + Duration::from_secs(4));
        assert_eq!(places.map(|place| route.turn(place, false, at)), [Turn::Probe, Turn::Await]);
        assert!(!route.look(None, 7, at), "nothing has answered");
        route.is_back(Turn::Probe, false);
        assert!(route.look(None, 8, at));
        assert_eq!(route.turn(places[1], false, at), Turn::Send);
    }

    #[test]
    fn the_request_that_came_back_least_often_and_longest_ago_finds_out() {
        let now = Instant::now();
        let (mut route, _member) = one_back(Class::ServerError, 0, now);
        let late = now + Duration::from_mins(5);
        let [often, later, first] = [(3, 0), (1, 1), (1, 2)].map(|(lives, _)| route.wait(lives));
        let order = [later, first, often];
        assert_eq!([often, first].map(|place| route.turn(place, false, late)), [Turn::Await; 2]);
        for place in order {
            assert_eq!(route.turn(place, false, late), Turn::Probe);
            route.is_back(Turn::Probe, false);
        }
    }

    #[test]
    fn requests_that_have_not_failed_and_new_items_find_out_before_those_that_have() {
        let now = Instant::now();
        let (mut route, _member) = one_back(Class::ServerError, 0, now);
        let (place, retry_at) = (route.wait(1), route.hold().unwrap().retry_at);
        assert!(!route.wants_another(now));
        assert_eq!(route.turn(place, true, retry_at), Turn::Wait(retry_at + HEAD_START));
        assert!(route.wants_another(retry_at) && !route.wants_another(retry_at), "once for each time");
        let fresh = route.opened();
        assert_eq!(route.turn(place, false, retry_at), Turn::Wait(retry_at + HEAD_START));
        route.closed(&fresh);
        assert_eq!(route.turn(place, false, retry_at), Turn::Probe);
    }

    #[test]
    fn one_request_that_comes_back_while_others_are_under_way_is_no_reason_to_hold() {
        let (mut route, now) = (RouteHold::default(), Instant::now());
        let mut members: Vec<Member> = (0..40).map(|_| route.opened()).collect();
        let lasting = Failure::new(Class::NotFound, "x");
        let oldest = Some(now);
        for _ in 0..50 {
            come_back(&mut route, &mut members[0], &lasting, (0, true), None, now);
            assert!(route.hold().is_none(), "however often");
        }
        for member in &mut members[1..11] {
            come_back(&mut route, member, &lasting, (0, true), oldest, now);
            assert!(route.hold().is_none(), "others left before");
        }
        // Their answers are here.
        come_back(&mut route, &mut members[11], &lasting, (1, false), None, now);
        come_back(&mut route, &mut members[12], &lasting, (1, false), None, now);
        assert!(route.hold().is_none());
        come_back(&mut route, &mut members[13], &lasting, (1, false), None, now);
        assert!(route.hold().is_some_and(|hold| hold.can_mend));
    }

    #[test]
    fn what_no_waiting_mends_pauses_once_three_requests_or_all_have_come_back_for_it() {
        let now = Instant::now();
        let lasting = Failure::new(Class::NotFound, "x");
        let (mut route, mut pauses) = (RouteHold::default(), Vec::new());
        let mut members: Vec<Member> = (0..40).map(|_| route.opened()).collect();
        for member in &mut members {
            come_back(&mut route, member, &lasting, (0, true), None, now);
            pauses.push(route.hold().is_some_and(|hold| hold.is_too_long(None, now)));
        }
        assert_eq!(pauses.iter().position(|pauses| *pauses), Some(2));
        let mut only = RouteHold::default();
        let mut member = only.opened();
        only.returned(&mut member);
        only.suspects(&mut member, false);
        let alone = Back {
            why: &lasting,
            target: None,
            is_lasting: true,
            answered: 0,
            oldest_unheard: None,
            more: false,
        };
        only.came_back(&mut member, alone, (now, 0.5));
        assert!(only.hold().unwrap().is_too_long(None, now));
    }

    #[test]
    fn after_a_hold_more_requests_are_sent_again_with_each_that_is_answered() {
        let now = Instant::now();
        let (mut route, member) = one_back(Class::ServerError, 0, now);
        assert!(route.look(None, 1, now));
        let places: Vec<Place> = (0..20).map(|_| route.wait(1)).collect();
        let sent = |route: &mut RouteHold| {
            places.iter().filter(|place| route.turn(**place, true, now) == Turn::Send).count()
        };
        assert_eq!(sent(&mut route), 1);
        route.is_back(Turn::Send, true);
        assert_eq!(sent(&mut route), 1);
        (0..4).for_each(|_| route.is_back(Turn::Send, true));
        assert!(sent(&mut route) >= 4);
        route.closed(&member);
    }

    #[test]
    fn where_only_requests_are_left_that_failed_while_others_were_answered_they_fail_in_the_end() {
        let now = Instant::now();
        let mut route = RouteHold::default();
        let mut members = [route.opened(), route.opened()];
        let why = Failure::new(Class::ServerError, "x");
        let back = Back {
            why: &why,
            target: None,
            is_lasting: false,
            answered: 9,
            oldest_unheard: None,
            more: false,
        };
        for member in &mut members {
            route.returned(member);
            route.suspects(member, true);
            route.came_back(member, back, (now, 0.5));
        }
        let late = now + ONLY_SUSPECTED.0;
        assert!(!route.give_up_suspected(false, None, late), "so few came back");
        let late = late.max(route.hold().unwrap().retry_at) + Duration::from_mins(1);
        route.came_back(&mut members[0], back, (late, 0.5));
        route.came_back(&mut members[1], back, (late, 0.5));
        let clean = route.opened();
        assert!(!route.give_up_suspected(false, None, late), "one is under way that has not failed");
        route.closed(&clean);
        assert!(!route.give_up_suspected(true, None, late), "items can begin");
        assert!(!route.give_up_suspected(false, None, now), "so soon");
        let place = route.wait(1);
        assert!(route.give_up_suspected(false, None, late) && route.turn(place, false, late) == Turn::GiveUp);
        assert!(!route.hold().unwrap().is_too_long(Some(Duration::ZERO), late));
    }

    #[test]
    fn an_answer_that_was_under_way_does_not_end_a_hold_while_no_target_can_be_used() {
        let (mut route, now) = (RouteHold::default(), Instant::now());
        route.opened();
        let at = now + Duration::from_secs(9);
        assert!(!route.look(outage(Some(at), false), 7, now));
        assert!(!route.look(outage(Some(at), false), 12, now));
        let place = route.wait(1);
        assert_eq!(route.turn(place, false, now), Turn::Wait(at + HEAD_START));
        assert!(route.look(None, 13, now));
    }

    #[test]
    fn while_the_provider_finds_out_by_itself_no_request_is_sent_and_once_that_is_due_one_is() {
        let now = Instant::now();
        let (mut route, _member) = one_back(Class::ServerError, 3, now);
        let due = |is_probed| {
            let (outage, target) = outage(None, false).unwrap();
            Some((Outage { is_probed, ..outage }, target))
        };
        let (place, late) = (route.wait(1), now + Duration::from_mins(5));
        route.look(due(true), 3, late);
        assert_eq!(route.turn(place, false, late), Turn::Wait(late + LOOK));
        route.look(due(false), 3, late);
        assert_eq!(route.turn(place, false, late), Turn::Probe);
    }

    #[test]
    fn a_hold_whose_outage_is_over_is_tried_at_once() {
        let now = Instant::now();
        let (mut route, _member) = one_back(Class::Auth, 3, now);
        route.look(outage(Some(now + Duration::from_secs(300)), false), 3, now);
        assert!(route.look(None, 3, now) && route.hold().is_some(), "nothing has answered");
        let place = route.wait(1);
        assert_eq!(route.turn(place, false, now), Turn::Probe);
    }

    #[test]
    fn a_route_that_no_request_waits_for_holds_nothing() {
        let (mut route, now) = (RouteHold::default(), Instant::now());
        route.look(outage(None, false), 0, now);
        assert!(route.hold().is_none());
        let mut member = route.opened();
        back(&mut route, &mut member, Class::NetworkError, 0, now);
        route.closed(&member);
        assert!(route.look(None, 0, now) && route.hold().is_none());
    }

    #[test]
    fn a_hold_is_too_long_once_it_has_lasted_or_as_soon_as_it_is_known_that_it_will() {
        let now = Instant::now();
        let max = Some(Duration::from_secs(600));
        let (mut route, _member) = one_back(Class::ServerError, 0, now);
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
            let mut member = route.opened();
            let absurd = Failure { retry_after: Some(wait), ..Failure::new(Class::RateLimit, "x") };
            come_back(&mut route, &mut member, &absurd, (0, false), None, now);
            let hold = route.hold().unwrap();
            assert!(hold.named.is_none() && hold.retry_at <= now + RETRY.max, "{wait:?}");
            assert!(!hold.is_too_long(Some(Duration::from_mins(10)), now));
        }
    }

    #[test]
    fn requests_that_find_nothing_better_come_less_often() {
        let mut now = Instant::now();
        let began = now;
        let (mut route, mut member) = one_back(Class::ServerError, 0, now);
        let (mut probes, mut place) = (0, route.wait(1));
        while now < began + Duration::from_mins(10) {
            match route.turn(place, false, now) {
                Turn::Wait(at) => now = at,
                Turn::Probe => {
                    probes += 1;
                    back(&mut route, &mut member, Class::ServerError, 0, now);
                    route.is_back(Turn::Probe, false);
                    place = route.wait(probes);
                }
                turn => panic!("{turn:?}"),
            }
        }
        assert!((10..=30).contains(&probes), "{probes}");
    }
}
