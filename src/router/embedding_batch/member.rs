//! The requests that are joined: the request for all of them, and the parts that each gets of its outcome.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::guard::HeldMemory;
use crate::router::attempt;
use crate::router::execution::RequestResult;
use crate::router::live_log::{InFlightCall, LiveAttempts, LiveLog};
use crate::router::pending_call::AbortedCall;
use crate::router::provider_time::TimedResult;
use crate::router::request::Request;
use crate::types::{
    Attempt, AttemptLog, FailedAttempt, Failure, Message, NanoUsd, Part, Prompt, RequestError, Response, Role,
};

use super::join_queue::JoinSize;
use super::shares::{self, Shares};

/// How much later than that of a member the deadline of the joined request may be without the member ending on its
/// own. The joined request then reports how it failed, and waits for memory prolong it.
const MAX_LATER_DEADLINE: Duration = Duration::from_secs(1);

/// A request that is joined with others.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) request: Request,
    /// Its place in a division.
    pub(super) number: usize,
    /// Whether it is sent again, after its joined request failed.
    pub(super) is_divided: bool,
    size: JoinSize,
    shared: Arc<SharedState>,
    answer: oneshot::Sender<TimedResult>,
}

/// What a member shares with its caller.
#[derive(Debug, Default)]
pub(super) struct SharedState {
    /// Whether it ends at its own deadline, because that of the joined request is much later.
    ends_on_its_own: AtomicBool,
    earlier: Mutex<EarlierAttempts>,
}

/// The attempts of failed joined requests that a member was part of.
#[derive(Debug, Default)]
struct EarlierAttempts {
    attempts: Vec<Attempt>,
    failed_attempts: Vec<FailedAttempt>,
    resends: u32,
    /// The joined request that is executed now, if the member ends on its own.
    current: Option<CurrentRequest>,
}

/// A joined request that is executed, and the part of a member in it.
#[derive(Debug)]
struct CurrentRequest {
    live_log: Arc<LiveLog>,
    shares: Arc<Shares>,
    index: usize,
}

impl CurrentRequest {
    /// Returns the part of the member in the attempts up to now, and those that failed. A call in flight stays in flight
    /// for the others, and may be charged: for the member it has failed. The log of another member counts each call.
    fn attempts_until_now(&self) -> (AttemptLog, Vec<FailedAttempt>) {
        let LiveAttempts { mut attempts, mut failed_attempts, in_flight } = self.live_log.snapshot();
        for InFlightCall { target, hedge, submitted_at, dispatched } in in_flight {
            let call = AbortedCall {
                number: dispatched.number,
                key: dispatched.key,
                waited: dispatched.at.saturating_duration_since(submitted_at),
                took: dispatched.at.elapsed(),
                // The call continues for the others, and what it costs is booked when it ends.
                uncertain_cost: NanoUsd(0),
            };
            failed_attempts.push(FailedAttempt { target: target.clone(), number: call.number });
            let (attempt, _) = attempt::record_timed_out(&target, hedge, call);
            attempts.0.push(attempt);
        }
        (self.shares.attempts(&attempts, self.index, true), failed_attempts)
    }
}

impl SharedState {
    pub(super) fn ends_on_its_own(&self) -> bool {
        self.ends_on_its_own.load(Relaxed)
    }

    /// Returns the error of a member that ends with this failure, with its attempts so far. Those of a joined request that
    /// is executed are among them.
    pub(super) fn error(&self, failure: Failure) -> Box<RequestError> {
        let EarlierAttempts { mut attempts, mut failed_attempts, resends, current } = self.take_earlier();
        if let Some(current) = current {
            let (more_attempts, more_failed) = current.attempts_until_now();
            attempts.extend(more_attempts.0);
            failed_attempts.extend(more_failed);
        }
        let attempts = AttemptLog(attempts);
        Box::new(RequestError { attempts, failed_attempts, resends, ..failure.into() })
    }

    fn with_earlier(&self, mut error: Box<RequestError>) -> Box<RequestError> {
        let EarlierAttempts { attempts, failed_attempts, resends, current: _ } = self.take_earlier();
        error.attempts.0.splice(0..0, attempts);
        error.failed_attempts.splice(0..0, failed_attempts);
        error.resends += resends;
        error
    }

    fn take_earlier(&self) -> EarlierAttempts {
        std::mem::take(&mut *self.earlier.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, attempts: AttemptLog, error: &RequestError) {
        let mut earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner);
        earlier.attempts.extend(attempts.0);
        earlier.failed_attempts.extend(error.failed_attempts.iter().cloned());
        earlier.resends += error.resends;
        // It has ended, and these are its attempts.
        earlier.current = None;
    }

    /// Sets the joined request that is executed now; `None` if the member waits for its end.
    fn set_current(&self, current: Option<CurrentRequest>) {
        let ends_on_its_own = current.is_some();
        self.earlier.lock().unwrap_or_else(PoisonError::into_inner).current = current;
        self.ends_on_its_own.store(ends_on_its_own, Relaxed);
    }
}

impl Member {
    /// Creates the member for a request, with what its caller awaits.
    pub(super) fn new(
        request: Request,
        size: JoinSize,
    ) -> (Self, oneshot::Receiver<TimedResult>, Arc<SharedState>) {
        let (answer, result) = oneshot::channel();
        let shared = Arc::new(SharedState::default());
        let member = Self { request, number: 0, is_divided: false, size, shared: shared.clone(), answer };
        (member, result, shared)
    }

    /// Returns whether its caller waits.
    pub(super) fn waits(&self) -> bool {
        !self.answer.is_closed()
    }

    fn answer(self, result: RequestResult, provider_time: Option<Duration>) {
        let Self { shared, answer, is_divided, .. } = self;
        let result = match result {
            Ok(mut response) => {
                let EarlierAttempts { attempts, resends, .. } = shared.take_earlier();
                response.attempts.0.splice(0..0, attempts);
                response.resends += resends;
                Ok(response)
            }
            Err(error) => Err(shared.with_earlier(error)),
        };
        // A member that is sent again also waits for the calls of the other members.
        let provider_time = provider_time.filter(|_| !is_divided);
        // The caller may be gone.
        let _ = answer.send(TimedResult { result, provider_time });
    }

    /// Returns the estimated tokens of its inputs.
    pub(super) fn tokens(&self) -> u64 {
        self.size.tokens
    }

    /// Returns its weight in the division of tokens and cost: the bytes of its inputs.
    fn weight(&self) -> u64 {
        self.request.prompt.text_bytes() as u64
    }
}

/// Returns the sum of the sizes of the members.
pub(super) fn size_of_all(members: &[Member]) -> JoinSize {
    members.iter().fold(JoinSize::default(), |sum, member| sum.plus(member.size))
}

/// Returns the request for the inputs of all members; `None` without members. A single member's is its own.
pub(super) fn joined_request(members: &[Member]) -> Option<Request> {
    let (first, others) = members.split_first()?;
    let first = &first.request;
    if others.is_empty() {
        return Some(first.clone());
    }
    let requests = || members.iter().map(|member| &member.request);
    let messages = requests().flat_map(|request| &request.prompt.messages);
    let inputs: Vec<Part> = messages.flat_map(|message| &message.parts).cloned().collect();
    let prompt = Prompt { messages: vec![Message::new(Role::User, inputs)], ..Prompt::clone(&first.prompt) };
    let mut request = first.clone().with_memory(HeldMemory::default());
    request.prompt = Arc::new(prompt);
    request.deadline = requests().map(|request| request.deadline).max()?;
    request.context.rank = requests().map(|request| request.context.rank).min()?;
    Some(request)
}

/// Lets the members whose deadlines are much earlier than that of the joined request end on their own.
pub(super) fn set_own_ends(members: &[Member], joined: &mut Request) {
    let deadline = joined.deadline;
    let ends_on_its_own = |member: &Member| deadline > member.request.deadline + MAX_LATER_DEADLINE;
    joined.live_log = members.iter().any(ends_on_its_own).then(Arc::<LiveLog>::default);
    let parts = joined.live_log.clone().map(|live_log| {
        let shares = Arc::new(Shares::of(members.iter().map(Member::weight)));
        (live_log, shares)
    });
    for (index, member) in members.iter().enumerate() {
        let part = parts.clone().filter(|_| ends_on_its_own(member));
        member.shared.set_current(part.map(|(live_log, shares)| CurrentRequest { live_log, shares, index }));
    }
}

/// Waits until the callers of all members are gone.
pub(super) async fn all_gone(members: &mut [Member]) {
    for member in members {
        member.answer.closed().await;
    }
}

/// Adds the attempts of a failed joined request to its members, which are sent again.
pub(super) fn add_attempts(members: &[Member], error: &RequestError) {
    let shares = Shares::of(members.iter().map(Member::weight));
    let counting = counting_member(members);
    for (index, member) in members.iter().enumerate() {
        member.shared.add(shares.attempts(&error.attempts, index, index != counting), error);
    }
}

/// Answers the members with their parts of the outcome of their request.
pub(super) fn answer_all(members: Vec<Member>, outcome: TimedResult) {
    let sizes: Vec<usize> = members.iter().map(|member| member.size.inputs).collect();
    let weights: Vec<u64> = members.iter().map(Member::weight).collect();
    let counting = counting_member(&members);
    let TimedResult { result, provider_time } = outcome;
    let parts: Vec<Result<Response, _>> = shares::divide(result, &sizes, &weights, counting);
    for (member, part) in members.into_iter().zip(parts) {
        member.answer(part, provider_time);
    }
}

/// Fails members that are not sent again with the failure of a request, the attempts of which they have.
pub(super) fn fail_all(members: Vec<Member>, error: &RequestError) {
    for member in members {
        let RequestError { failure, target, expected_wait, .. } = error.clone();
        let error = RequestError { target, expected_wait, ..failure.into() };
        member.answer(Err(Box::new(error)), None);
    }
}

/// Returns the index of the member whose log counts the calls: the first whose caller waits.
fn counting_member(members: &[Member]) -> usize {
    members.iter().position(Member::waits).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::provider::{DispatchSignal, Dispatched, UnreportedUsage};
    use crate::types::{Class, EmbeddingOptions, NanoUsd};

    fn member(text: &str) -> (Member, oneshot::Receiver<TimedResult>, Arc<SharedState>) {
        let prompt = Prompt::embeddings([text.to_owned()], EmbeddingOptions::default());
        Member::new(Request::new("r", prompt), JoinSize { inputs: 1, tokens: 1, bytes: text.len() })
    }

    /// The error of a joined request with one call.
    fn error(number: u64) -> RequestError {
        let text = r#"{"target":"a/m","key":"k","queue_time":{"secs":0,"nanos":0},
            "duration":{"secs":1,"nanos":0},"usage":{"input":10,"cached":0,"cache_write":0,"output":0,"reasoning":0},
            "outcome":{"failed":{"class":"api_error","message":"x","charged":"no"}}}"#;
        let target = "a/m".parse().unwrap();
        RequestError {
            attempts: AttemptLog(vec![serde_json::from_str(text).unwrap()]),
            failed_attempts: vec![FailedAttempt { target, number }],
            resends: 1,
            ..Failure::new(Class::ApiError, "x").into()
        }
    }

    #[test]
    fn a_member_that_ends_at_its_own_deadline_has_its_attempts_so_far() {
        let (first, first_result, first_shared) = member("low tide");
        let (second, mut second_result, _) = member("ebb tide");
        let members = vec![first, second];
        add_attempts(&members, &error(7));
        let ended = first_shared.error(Failure::new(Class::Deadline, "late"));
        assert_eq!((ended.class(), ended.attempts.calls(), ended.resends), (Class::Deadline, 1, 1));
        assert_eq!(ended.attempts.0[0].usage.unwrap().input.0, 5, "its part");
        assert!(!ended.attempts.0[0].counted_elsewhere);
        assert_eq!(ended.failed_attempts.iter().map(|failed| failed.number).collect::<Vec<_>>(), [7]);
        drop(first_result);
        fail_all(members, &error(8));
        let failed = second_result.try_recv().unwrap().result.unwrap_err();
        assert_eq!(
            (failed.class(), failed.attempts.calls()),
            (Class::ApiError, 1),
            "without those of others"
        );
        assert!(failed.attempts.0[0].counted_elsewhere);
        assert_eq!(failed.failed_attempts[0].number, 7);
    }

    #[test]
    fn each_member_has_the_waits_of_the_joined_request_unless_it_was_sent_again() {
        let (first, mut first_result, _) = member("low tide");
        let (mut second, mut second_result, _) = member("ebb tide");
        second.is_divided = true;
        let provider_time = Some(Duration::from_secs(3));
        answer_all(vec![first, second], TimedResult { result: Err(Box::new(error(7))), provider_time });
        assert_eq!(first_result.try_recv().unwrap().provider_time, provider_time);
        assert_eq!(second_result.try_recv().unwrap().provider_time, None);
    }

    /// A member that ends on its own and another one, with the log of their joined request: one call has failed, one is
    /// in flight, and one is queued.
    fn joined_with_call_in_flight() -> (Vec<Member>, Arc<SharedState>, Arc<LiveLog>) {
        let (mut first, _, shared) = member("low tide");
        first.request.deadline = Instant::now() + Duration::from_secs(1);
        let (second, _, second_shared) = member("ebb tide");
        let members = vec![first, second];
        let mut joined = joined_request(&members).unwrap();
        set_own_ends(&members, &mut joined);
        assert!(shared.ends_on_its_own() && !second_shared.ends_on_its_own());
        let live_log = joined.live_log.unwrap();
        for number in [7, 8] {
            let signal = Arc::new(DispatchSignal::new());
            let at = Instant::now();
            let usage = Arc::new(UnreportedUsage::with_expected_cost(NanoUsd(10)));
            let dispatched = Dispatched { at, number, key: "k".into(), usage };
            assert!(signal.try_dispatch(dispatched));
            live_log.add_call(&"a/m".parse().unwrap(), false, &signal);
        }
        live_log.add_call(&"a/m".parse().unwrap(), false, &Arc::new(DispatchSignal::new()));
        let RequestError { attempts, failed_attempts, .. } = error(7);
        live_log.set_ended(&attempts, &failed_attempts);
        (members, shared, live_log)
    }

    #[test]
    fn a_member_that_ends_on_its_own_has_its_part_of_the_joined_call_in_flight_which_may_be_charged() {
        let (_members, shared, _) = joined_with_call_in_flight();
        let ended = shared.error(Failure::new(Class::Deadline, "late").maybe_charged());
        assert_eq!(ended.attempts.calls(), 2, "the queued call was not sent");
        assert_eq!(ended.failed_attempts.iter().map(|failed| failed.number).collect::<Vec<_>>(), [7, 8]);
        let charged: Vec<bool> = ended.attempts.0.iter().map(Attempt::is_possibly_charged).collect();
        assert_eq!(charged, [false, true]);
        assert_eq!(ended.attempts.0[1].uncertain_cost, NanoUsd(0), "the end of the call books what it costs");
        assert!(ended.attempts.0.iter().all(|attempt| attempt.counted_elsewhere));
    }

    #[test]
    fn the_attempts_of_a_joined_request_that_has_ended_are_logged_once() {
        let (members, shared, live_log) = joined_with_call_in_flight();
        let RequestError { attempts, failed_attempts, .. } = error(8);
        live_log.set_ended(&attempts, &failed_attempts);
        add_attempts(&members, &error(8));
        let ended = shared.error(Failure::new(Class::Deadline, "late").maybe_charged());
        assert_eq!(ended.attempts.calls(), 1);
        assert_eq!(ended.failed_attempts.iter().map(|failed| failed.number).collect::<Vec<_>>(), [8]);
    }
}
