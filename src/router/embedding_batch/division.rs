//! Decides which members of a failed joined request are sent again, and which of them together. Pure.
//!
//! Members are sent in waves. The first waves are probes: single members, which show whether the failure is that of
//! all requests. If [`MAX_OUTAGE_PROBES`] of them fail because of the provider, or [`COMMON_FAILURES`] exactly as the
//! whole did, the others fail without further calls. Otherwise the others are divided into halves, down to single
//! members. The number of requests is bounded by the number of members plus twice its logarithm.

use crate::types::{Attribution, Cause, Class, FailureScope, RequestError};

/// Probes of the first wave.
const FIRST_PROBES: usize = 2;

/// Probes that fail because of the provider, before any was answered, after which the others fail: it is an outage.
const MAX_OUTAGE_PROBES: usize = 2;

/// Probes that fail exactly as the whole did, and no other way, after which the others fail: all requests have the
/// same defect. More than two, because some inputs of a batch may have the same defect.
const COMMON_FAILURES: usize = 8;

/// Requests that fail because of the provider, with no answer between them, after which the others fail.
const MAX_UNANSWERED: usize = 8;

/// Whether and how a failed joined request is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DivisionKind {
    /// An input, or the number of inputs, may be the reason.
    Search,
    /// It was lost. Each member is sent alone, as if it had not been joined.
    Alone,
}

/// How the request of a group ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupEnd {
    /// It was answered.
    Answered,
    /// It failed exactly as the whole, for a reason that all requests may share.
    Alike,
    /// It failed for a reason of the provider, the account or the caller: others would fail too.
    Outage,
    /// It failed for another reason of its own.
    Failed,
    /// It was lost.
    Lost,
    /// All its callers were gone.
    Gone,
}

/// Returns how a failed joined request is divided; `None` if its members fail with it.
pub(super) fn division_of(error: &RequestError) -> Option<DivisionKind> {
    let was_sent = error.attempts.calls() > 0;
    let may_be_one_input = match error.failure.class {
        Class::TooLong | Class::ContentFilter => true,
        // Without a call, the route or all its targets refuse every request for embeddings.
        Class::ApiError => was_sent && error.failure.cause != Some(Cause::DimensionsIgnored),
        // Others are answered: the provider refuses this request after any wait.
        Class::RateLimit => error.failure.scope == FailureScope::Target,
        // One input may make the server fail, or its response unreadable. Without a call, the target is known to be
        // out.
        Class::ServerError | Class::Unreadable | Class::Timeout => was_sent,
        Class::Internal if !was_sent => return Some(DivisionKind::Alone),
        // It is divided by what is left of the budget.
        Class::Budget
        | Class::Quota
        | Class::Overloaded
        | Class::NetworkError
        | Class::Auth
        | Class::NotFound
        | Class::Truncated
        | Class::ValidationError
        | Class::TemplateError
        | Class::Deadline
        | Class::Cancelled
        | Class::Internal => false,
    };
    may_be_one_input.then_some(DivisionKind::Search)
}

/// Returns how a group ended that failed with `error`, as a part of a request that failed with `whole`.
pub(super) fn failed_end(error: &RequestError, whole: &RequestError) -> GroupEnd {
    let failure = &error.failure;
    match failure.class.attribution() {
        Attribution::Router if division_of(error) == Some(DivisionKind::Alone) => GroupEnd::Lost,
        Attribution::Limit if failure.scope == FailureScope::Target => GroupEnd::Failed,
        // A part of it may fit, and the provider has not failed.
        Attribution::Account if failure.class == Class::Budget => GroupEnd::Failed,
        Attribution::Request if failure.class == Class::NotFound => GroupEnd::Outage,
        // Too long or filtered are inputs, each by itself.
        Attribution::Request if failure.class != Class::ApiError => GroupEnd::Failed,
        Attribution::Request => {
            let is_alike = whole.class() == Class::ApiError && whole.failure.message == failure.message;
            if is_alike { GroupEnd::Alike } else { GroupEnd::Failed }
        }
        Attribution::Attempt | Attribution::Limit | Attribution::Account | Attribution::Router => {
            GroupEnd::Outage
        }
    }
}

/// The division of one request with members that are numbered from 0.
#[derive(Debug)]
pub(super) struct Division {
    /// Members that have not been sent since the whole failed, in order.
    untested: Vec<usize>,
    /// Groups to be sent.
    groups: Vec<Vec<usize>>,
    is_probing: bool,
    /// Requests that may be sent before each open member is sent alone. Never less than the number of these.
    requests_left: usize,
    answered: usize,
    alike: usize,
    failed: usize,
    outages: usize,
    /// Requests that failed because of the provider since the last answer.
    unanswered: usize,
}

impl Division {
    pub(super) fn new(members: usize, kind: DivisionKind) -> Self {
        let all: Vec<usize> = (0..members).collect();
        let halvings = members.next_power_of_two().trailing_zeros() as usize;
        let mut division = Self {
            untested: Vec::new(),
            groups: Vec::new(),
            is_probing: false,
            requests_left: members + 2 * halvings,
            answered: 0,
            alike: 0,
            failed: 0,
            outages: 0,
            unanswered: 0,
        };
        match kind {
            DivisionKind::Search => {
                division.untested = all;
                division.is_probing = true;
            }
            DivisionKind::Alone => division.groups = alone(all),
        }
        division
    }

    /// Returns the groups that are sent now. It is over if there are none: the members that were not sent alone and
    /// not answered fail.
    pub(super) fn next_wave(&mut self) -> Vec<Vec<usize>> {
        if self.is_probing {
            if let Some(probes) = self.next_probes() {
                self.requests_left = self.requests_left.saturating_sub(probes.len());
                return probes;
            }
            self.is_probing = false;
            self.divide_untested();
        }
        if self.unanswered >= MAX_UNANSWERED {
            return Vec::new();
        }
        let mut wave = std::mem::take(&mut self.groups);
        // If all groups fail, each of their members must still be in reach.
        let in_groups =
            |wave: &[Vec<usize>]| wave.iter().map(Vec::len).filter(|size| *size > 1).sum::<usize>();
        while wave.len() + in_groups(&wave) > self.requests_left {
            let smallest = (0..wave.len()).filter(|at| wave[*at].len() > 1).min_by_key(|at| wave[*at].len());
            let Some(smallest) = smallest else { break };
            let members = wave.remove(smallest);
            wave.extend(alone(members));
        }
        self.requests_left = self.requests_left.saturating_sub(wave.len());
        wave
    }

    /// Returns the next probes; `None` if enough is known.
    fn next_probes(&mut self) -> Option<Vec<Vec<usize>>> {
        let is_known = self.answered + self.failed > 0
            || self.outages >= MAX_OUTAGE_PROBES
            || self.alike >= COMMON_FAILURES
            || self.untested.is_empty();
        if is_known {
            return None;
        }
        let are_first = self.alike + self.outages == 0;
        let wanted = if are_first { FIRST_PROBES } else { COMMON_FAILURES - self.alike };
        let count = wanted.min(self.untested.len());
        let last = self.untested.len() - 1;
        // The first, the last, and others evenly between them; from the end, so that the places stay valid.
        let mut probes: Vec<usize> = (0..count)
            .rev()
            .map(|number| self.untested.remove(if count == 1 { 0 } else { number * last / (count - 1) }))
            .collect();
        probes.reverse();
        Some(alone(probes))
    }

    /// Divides the members that were not probed, unless the probes have shown that all would fail.
    fn divide_untested(&mut self) {
        let works = self.answered + self.failed > 0;
        let rest = std::mem::take(&mut self.untested);
        if !works || rest.is_empty() {
            return;
        }
        // One of the probes may have been the reason.
        let may_be_found = self.answered > 0 && self.answered < FIRST_PROBES;
        self.groups = if may_be_found { vec![rest] } else { halves(rest) };
    }

    /// Records how a group of the last wave ended.
    pub(super) fn record(&mut self, group: Vec<usize>, end: GroupEnd) {
        match end {
            GroupEnd::Gone => return,
            GroupEnd::Answered => self.answered += 1,
            GroupEnd::Alike => self.alike += 1,
            GroupEnd::Failed => self.failed += 1,
            GroupEnd::Outage => {
                self.outages += 1;
                self.unanswered += 1;
            }
            GroupEnd::Lost if group.len() > 1 => return self.groups.extend(alone(group)),
            GroupEnd::Lost => self.failed += 1,
        }
        if end == GroupEnd::Answered {
            self.unanswered = 0;
        } else if group.len() > 1 {
            self.groups.extend(halves(group));
        }
    }
}

fn alone(members: Vec<usize>) -> Vec<Vec<usize>> {
    members.into_iter().map(|member| vec![member]).collect()
}

fn halves(mut members: Vec<usize>) -> Vec<Vec<usize>> {
    let second = members.split_off(members.len() / 2);
    [members, second].into_iter().filter(|half| !half.is_empty()).collect()
}

#[cfg(test)]
mod tests;
