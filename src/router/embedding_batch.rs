//! Joins small requests for embeddings into one call, and divides its response.
//!
//! Requests that go to the same targets with the same options, for the same caller, wait for each other: until their
//! inputs reach the limit of the targets, or for [`MAX_JOIN_WAIT`] from the first. A joined request that fails
//! where one input may be the reason is divided, down to single requests, so that one bad input fails alone. One that
//! costs more than what is left of a budget is divided into groups that fit.
//!
//! ```text
//! callers        JoinQueue                       joined request
//!   | add           |                                  |
//!   | ------------> |                                  |
//!   | ------------> | (limit reached, or 20 ms)        |
//!   |               | ----- members of the batch ----> | send_timed
//!   | <------------- each its vectors and its share -- |
//! ```
//!
//! A joined request has the latest deadline of its members; a member with a much earlier one ends on its own. A member
//! whose caller is gone is not sent, and a joined request without callers is cancelled.

mod budget_division;
mod division;
mod join_queue;
mod learned_limit;
mod member;
mod shares;

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, join_all};
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep_until};

use crate::provider;
use crate::supervisor::Slot;
use crate::types::{
    Attribution, Class, EmbeddingLimits, EmbeddingOptions, Failure, Outcome, Priority, RequestError,
    RouteName, RunId, ScopeName, StepName,
};

use super::actor::Router;
use super::client::send_timed;
use super::execution::RequestResult;
use super::provider_time::TimedResult;
use super::request::Request;
use super::request_metrics::{RequestMetrics, RequestTimer};
use super::shared_routes::SharedRoutes;
use budget_division::BudgetDivision;
use division::{Division, DivisionKind, GroupEnd, division_of, failed_end};
use join_queue::{Added, JoinQueue, JoinSize};
use learned_limit::LearnedLimit;
use member::{
    Member, add_attempts, all_gone, answer_all, fail_all, joined_request, set_own_ends, size_of_all,
};

/// How long the first request of a batch waits for others.
const MAX_JOIN_WAIT: Duration = Duration::from_millis(20);

/// A request with less time than this is sent at once.
const MIN_REMAINING_TIME: Duration = Duration::from_millis(500);

/// How much longer than to its own deadline a member waits, as for a request that is sent alone.
const DEADLINE_GRACE: Duration = Duration::from_millis(250);

/// Most estimated tokens of a refused request from which a smaller number of inputs is learned. With more, the refusal
/// may be because of the tokens.
const MAX_UNSUSPICIOUS_TOKENS: u64 = 16_000;

/// Joins the requests for embeddings of the callers that share it.
#[derive(Debug)]
pub struct EmbeddingBatcher {
    routes: SharedRoutes,
    learned: Mutex<HashMap<RouteName, RouteLimits>>,
    waiting: Mutex<JoinQueue<JoinKey, Member>>,
    metrics: Option<Arc<RequestMetrics>>,
}

/// What was learned about how much a joined request to the targets of a route may contain.
#[derive(Debug)]
struct RouteLimits {
    /// The limits of the vendors for which it was learned.
    of_vendors: EmbeddingLimits,
    learned: LearnedLimit,
}

/// What the requests of a batch have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct JoinKey {
    route: RouteName,
    options: EmbeddingOptions,
    user: Option<Arc<str>>,
    priority: Priority,
    scope: ScopeName,
    run: RunId,
    step: Option<StepName>,
    has_failed: bool,
    /// The addresses of the budget and of the counts that its calls belong to.
    shared: [usize; 2],
}

/// How a request for some members ended.
enum Sent {
    /// They have their answers.
    Answered,
    /// Their callers are gone.
    Gone,
    /// It failed, after this time of waiting for providers. They have no results yet.
    Failed(Vec<Member>, Box<RequestError>, Option<Duration>),
}

/// How a part of a divided request ended.
struct SentPart {
    end: GroupEnd,
    /// Its members that have no results yet.
    unanswered: Vec<Member>,
    /// Why the provider failed it.
    outage: Option<Box<RequestError>>,
}

impl EmbeddingBatcher {
    /// Creates a batcher for these routes, which may be replaced at any time. Requests along other routes are not joined.
    pub fn new(routes: SharedRoutes) -> Arc<Self> {
        Arc::new(Self { routes, learned: Mutex::default(), waiting: Mutex::default(), metrics: None })
    }

    /// Counts the requests of [`send`](Self::send) in `metrics`. It has no effect on a batcher that is shared.
    #[must_use]
    pub fn with_metrics(mut self: Arc<Self>, metrics: Arc<RequestMetrics>) -> Arc<Self> {
        if let Some(batcher) = Arc::get_mut(&mut self) {
            batcher.metrics = Some(metrics);
        }
        self
    }

    /// Returns the most inputs of a joined request along these routes; 1 if none are joined.
    pub fn max_inputs<'a>(&self, routes: impl IntoIterator<Item = &'a RouteName>) -> usize {
        let limits = routes.into_iter().filter_map(|route| self.limits_of_vendors(route));
        limits.map(|limits| limits.max_inputs).max().unwrap_or(1)
    }

    /// Returns what each target of a route with embeddings accepts; `None` if none has embeddings.
    fn limits_of_vendors(&self, route: &RouteName) -> Option<EmbeddingLimits> {
        let table = self.routes.load();
        let targets = table.targets(route).iter();
        targets.filter_map(|target| target.provider.embedding_limits()).reduce(EmbeddingLimits::min)
    }

    /// Sends a request and returns its response. One for few embeddings is joined with others; the returned future must
    /// then be polled on a runtime with timers. Others are sent before this function returns, if a router is running and
    /// their scope has no limits.
    pub fn send(
        self: &Arc<Self>,
        router: &Slot<Router>,
        mut request: Request,
    ) -> impl Future<Output = RequestResult> + use<> {
        let timer = RequestTimer::start(self.metrics.as_ref(), &mut request);
        let timed = self.send_timed(router, request);
        async move { timer.end(timed.await) }
    }

    /// Sends a request as [`send`](Self::send) does, without counting it.
    pub(super) fn send_timed(
        self: &Arc<Self>,
        router: &Slot<Router>,
        request: Request,
    ) -> impl Future<Output = TimedResult> + use<> {
        let Some((key, size, limits)) = self.join_parameters(&request) else {
            // Boxed, so that the futures around it do not move it again and again.
            return Either::Left(Box::pin(send_timed(router, request)));
        };
        let batcher = self.clone();
        let router = router.clone();
        Either::Right(Box::pin(batcher.join(router, (key, size, limits), request)))
    }

    /// Returns how a request is joined; `None` if it is sent alone.
    fn join_parameters(&self, request: &Request) -> Option<(JoinKey, JoinSize, EmbeddingLimits)> {
        let prompt = &request.prompt;
        let options = prompt.embedding?;
        let limits = self.limits(&request.route)?;
        let remaining = request.deadline.saturating_duration_since(Instant::now());
        let is_plain = request.stream.is_none() && prompt.vendor_fields.is_empty();
        if !is_plain || remaining < MIN_REMAINING_TIME || prompt.check().is_err() {
            return None;
        }
        let size = JoinSize {
            inputs: prompt.embedding_inputs().count(),
            tokens: provider::prompt_tokens(prompt),
            bytes: prompt.text_bytes(),
        };
        let is_small = size.inputs <= limits.max_inputs / 2 && size.tokens < limits.max_tokens / 2;
        let key = JoinKey {
            route: request.route.clone(),
            options,
            user: prompt.user.clone(),
            priority: request.priority,
            scope: request.context.scope.clone(),
            run: request.context.run,
            step: request.context.step.clone(),
            has_failed: request.context.has_failed,
            shared: [
                request.budget.as_ref().map_or(0, |budget| Arc::as_ptr(budget).addr()),
                request.counts.as_ref().map_or(0, |counts| Arc::as_ptr(counts).addr()),
            ],
        };
        is_small.then_some((key, size, limits))
    }

    fn limits(&self, route: &RouteName) -> Option<EmbeddingLimits> {
        let of_vendors = self.limits_of_vendors(route)?;
        let learned = self.with_learned(route, |learned| learned.inputs(Instant::now()))?;
        Some(of_vendors.min(EmbeddingLimits::new(learned, u64::MAX)))
    }

    /// Calls `access` with the learned limit of a route; `None` if requests along the route are not joined.
    fn with_learned<T>(&self, route: &RouteName, access: impl FnOnce(&mut LearnedLimit) -> T) -> Option<T> {
        let of_vendors = self.limits_of_vendors(route)?;
        let mut routes = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || RouteLimits { of_vendors, learned: LearnedLimit::default() };
        let limits = routes.entry(route.clone()).or_insert_with(new);
        if limits.of_vendors != of_vendors {
            // A reload has changed the targets.
            *limits = new();
        }
        Some(access(&mut limits.learned))
    }

    fn lock(&self) -> MutexGuard<'_, JoinQueue<JoinKey, Member>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request to its batch, and waits for its part of the response.
    async fn join(
        self: Arc<Self>,
        router: Slot<Router>,
        (key, size, limits): (JoinKey, JoinSize, EmbeddingLimits),
        request: Request,
    ) -> TimedResult {
        let now = Instant::now();
        let deadline = request.deadline;
        let (member, result, shared) = Member::new(request, size);
        let added = self.lock().add(key.clone(), member, size, limits);
        let (opened, ready) = match added {
            Added::Waits { opened, ready } => (opened, ready),
            Added::Full(Member { request, .. }) => return send_timed(&router, request).await,
        };
        // Pointsman's own: the handle's tasks and the items run on it.
        let runtime = Handle::current();
        for members in ready {
            drop(runtime.spawn(self.clone().send_members(router.clone(), members)));
        }
        if let Some(batch) = opened {
            let batcher = self.clone();
            drop(runtime.spawn(async move {
                sleep_until(now + MAX_JOIN_WAIT).await;
                let members = batcher.lock().take(&key, batch);
                if let Some(members) = members {
                    batcher.clone().send_members(router, members).await;
                }
            }));
        }
        let own_end = async {
            sleep_until(deadline + DEADLINE_GRACE).await;
            if !shared.ends_on_its_own() {
                pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            result = result => result.unwrap_or_else(|_| {
                let failure = Failure::new(Class::Internal, "the joined request for embeddings was lost");
                TimedResult::unknown(Err(shared.error(failure.maybe_charged())))
            }),
            () = own_end => {
                let message = "no response was received before the deadline; the request was joined with others";
                let failure = Failure::new(Class::Deadline, message);
                TimedResult::unknown(Err(shared.error(failure.maybe_charged())))
            }
        }
    }

    /// Sends these members as one request, and in groups that fit if it costs more than what is left of a budget.
    async fn send_members(self: Arc<Self>, router: Slot<Router>, members: Vec<Member>) {
        let sent = self.send_whole(&router, members).await;
        let Some((members, error, provider_time)) = sent else { return };
        if !may_be_divided(&members) {
            return answer_all(members, TimedResult { result: Err(error), provider_time });
        }
        add_calls(&members, &error);
        let mut division = BudgetDivision::new(members, Member::tokens);
        // One after another: calls in flight would hold the rest of the budget.
        while let Some(group) = division.next_group() {
            let Some((group, error, _)) = self.send_whole(&router, group).await else { continue };
            add_calls(&group, &error);
            fail_all(division.record_rejected(group), &error);
        }
    }

    /// Sends these members as one request, unless their callers are gone, and divides it if it fails because of one of
    /// them. Returns them if a budget does not admit the request, with the time in which it waited for providers.
    async fn send_whole(
        &self,
        router: &Slot<Router>,
        members: Vec<Member>,
    ) -> Option<(Vec<Member>, Box<RequestError>, Option<Duration>)> {
        let sent = self.send_group(router, members, false).await;
        let Sent::Failed(members, error, provider_time) = sent else { return None };
        if error.class() == Class::Budget {
            return Some((members, error, provider_time));
        }
        match division_of(&error).filter(|_| may_be_divided(&members)) {
            Some(kind) => {
                add_attempts(&members, &error);
                self.divide(router, members, &error, kind).await;
            }
            None => answer_all(members, TimedResult { result: Err(error), provider_time }),
        }
        None
    }

    /// Sends the members of a joined request that failed with `whole` again, as a [`Division`] decides.
    async fn divide(
        &self,
        router: &Slot<Router>,
        mut members: Vec<Member>,
        whole: &RequestError,
        kind: DivisionKind,
    ) {
        members.retain(Member::waits);
        let Some(route) = members.first().map(|member| member.request.route.clone()) else { return };
        for (number, member) in members.iter_mut().enumerate() {
            member.number = number;
            member.is_divided = true;
        }
        let refused = size_of_all(&members);
        let mut division = Division::new(members.len(), kind);
        let mut open: Vec<Option<Member>> = members.into_iter().map(Some).collect();
        let mut answered_inputs = 0;
        let mut most_inputs = 0;
        let mut last_outage = None;
        loop {
            let wave = division.next_wave();
            if wave.is_empty() {
                break;
            }
            let mut sends = Vec::new();
            for group in wave {
                let members: Vec<Member> = group.iter().filter_map(|number| open[*number].take()).collect();
                let inputs = size_of_all(&members).inputs;
                sends.push(self.send_part(router, members, whole).map(move |part| (group, inputs, part)));
            }
            let mut ended = join_all(sends).await;
            // An answer shows that the provider works, although others of its wave may have failed.
            ended.sort_by_key(|(_, _, part)| part.end == GroupEnd::Answered);
            for (group, inputs, part) in ended {
                division.record(group, part.end);
                for member in part.unanswered {
                    let number = member.number;
                    open[number] = Some(member);
                }
                if part.end == GroupEnd::Answered {
                    answered_inputs += inputs;
                    most_inputs = most_inputs.max(inputs);
                }
                last_outage = part.outage.or(last_outage);
            }
        }
        fail_all(open.into_iter().flatten().collect(), last_outage.as_deref().unwrap_or(whole));
        // Each input is accepted, so the number of inputs was the reason.
        let is_by_number = answered_inputs == refused.inputs && most_inputs < refused.inputs;
        if whole.class() == Class::ApiError && is_by_number && refused.tokens <= MAX_UNSUSPICIOUS_TOKENS {
            self.with_learned(&route, |learned| learned.learn(most_inputs, Instant::now()));
        }
    }

    /// Sends a group of members of a request that failed with `whole`. A single one gets its result in any case.
    async fn send_part(&self, router: &Slot<Router>, members: Vec<Member>, whole: &RequestError) -> SentPart {
        // Retries at the same target are for the members that are sent alone, unless they were made for the whole.
        let has_failed = members.len() > 1 || whole.class().attribution() == Attribution::Attempt;
        let (members, error) = match self.send_group(router, members, has_failed).await {
            Sent::Answered => return SentPart::without_members(GroupEnd::Answered),
            Sent::Gone => return SentPart::without_members(GroupEnd::Gone),
            Sent::Failed(members, error, _) => (members, error),
        };
        let end = failed_end(&error, whole);
        let outage = (end == GroupEnd::Outage).then(|| error.clone());
        if members.len() > 1 {
            add_attempts(&members, &error);
            return SentPart { end, unanswered: members, outage };
        }
        answer_all(members, TimedResult::unknown(Err(error)));
        SentPart { outage, ..SentPart::without_members(end) }
    }

    /// Sends these members as one request, unless their callers are gone, and answers them if it is answered.
    /// `has_failed` is whether it gets one attempt at each target.
    async fn send_group(&self, router: &Slot<Router>, mut members: Vec<Member>, has_failed: bool) -> Sent {
        members.retain(Member::waits);
        let Some(mut request) = joined_request(&members) else { return Sent::Gone };
        request.context.has_failed |= has_failed;
        set_own_ends(&members, &mut request);
        let outcome = tokio::select! {
            biased;
            outcome = send_timed(router, request) => outcome,
            () = all_gone(&mut members) => return Sent::Gone,
        };
        let TimedResult { result, provider_time } = outcome;
        match result {
            Ok(response) => {
                if let [first, _, ..] = members.as_slice() {
                    let inputs = size_of_all(&members).inputs;
                    self.with_learned(&first.request.route, |learned| {
                        learned.record_answered(inputs, Instant::now());
                    });
                }
                answer_all(members, TimedResult { result: Ok(response), provider_time });
                Sent::Answered
            }
            Err(error) => Sent::Failed(members, error, provider_time),
        }
    }
}

/// Returns whether these members were joined, and have the time to be sent again.
fn may_be_divided(members: &[Member]) -> bool {
    let latest = members.iter().map(|member| member.request.deadline).max();
    let has_time = latest.is_some_and(|latest| latest > Instant::now() + MIN_REMAINING_TIME);
    members.len() > 1 && has_time
}

/// Adds the attempts of a request that a budget does not admit to its members. The rejections of a joined request say
/// nothing about its members, so that they are left out if no call was made.
fn add_calls(members: &[Member], error: &RequestError) {
    let is_call = |outcome: &Outcome| !matches!(outcome, Outcome::Refused(_));
    if members.len() == 1 || error.attempts.0.iter().any(|attempt| is_call(&attempt.outcome)) {
        add_attempts(members, error);
    }
}

impl SentPart {
    fn without_members(end: GroupEnd) -> Self {
        Self { end, unanswered: Vec::new(), outage: None }
    }
}
