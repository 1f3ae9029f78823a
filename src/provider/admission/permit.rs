//! The resources that one call holds while it is in flight. They are released when the permit is dropped.
//!
//! Releases on every path: however a call ends, even by a panic, its permit is dropped.

use std::sync::Arc;

use tokio::time::Instant;

use crate::chaos;
use crate::types::Spend;
use crate::wire::RateLimitHeaders;

use super::budget::BudgetReservation;
use super::grant::{Abort, CallOutcome, Grant, SendTime};
use crate::provider::keys::key_set::KeyFault;
use crate::provider::state::State;
use crate::provider::unreported_usage::UnreportedUsage;

/// The permit of one call.
#[derive(Debug)]
pub(in crate::provider) struct Permit {
    state: Arc<State>,
    /// `None` before anything is granted, and after the release. Boxed because the permit is moved with its call.
    grant: Option<Box<Grant>>,
    /// If it is dropped before the call is sent, it is returned; if it is dropped later and before it is
    /// settled, it is booked as uncertain cost.
    budget: Option<BudgetReservation>,
}

impl Permit {
    /// Creates an empty permit, before anything is granted.
    pub(in crate::provider) fn empty(state: Arc<State>) -> Self {
        Self { state, grant: None, budget: None }
    }

    /// Attaches what a call has been granted.
    pub(in crate::provider) fn attach(&mut self, grant: Box<Grant>, budget: BudgetReservation) {
        self.grant = Some(grant);
        self.budget = Some(budget);
    }

    /// Returns the call's number among those of its provider.
    pub(in crate::provider) fn number(&self) -> u64 {
        self.grant.as_ref().map_or(0, |grant| grant.number)
    }

    /// Marks the call as sent: from now on it may cost something.
    pub(in crate::provider) fn mark_sent(&mut self, sent: SendTime) {
        if let Some(budget) = &mut self.budget {
            budget.mark_sent();
        }
        if let Some(grant) = &mut self.grant {
            grant.sent = Some(sent);
        }
    }

    /// Releases the permit of a call that its caller dropped while it was in flight.
    pub(in crate::provider) fn abort(mut self, abort: Abort) {
        if let Some(grant) = &mut self.grant {
            grant.abort = Some(abort);
        }
    }

    /// Releases the permit of a call that was not sent after all: it is no evidence about the provider, and its rate
    /// and its money are given back.
    pub(in crate::provider) fn withdraw(mut self) {
        if let Some(budget) = &mut self.budget {
            budget.mark_unsent();
        }
        if let Some(grant) = &mut self.grant {
            grant.is_unsent = true;
        }
    }

    /// Returns what the call has used, as long as its provider has not reported it.
    pub(in crate::provider) fn usage(&self) -> Arc<UnreportedUsage> {
        self.budget.as_ref().map(|budget| budget.usage().clone()).unwrap_or_default()
    }

    /// Passes what was received on to the grant, whose release charges it to the limits.
    fn record_received_output(&mut self) {
        if let Some((grant, budget)) = self.grant.as_mut().zip(self.budget.as_ref()) {
            grant.received_output = budget.usage().output_tokens();
        }
    }

    /// Returns whether the call is the probe of a breaker.
    pub(in crate::provider) fn is_probe(&self) -> bool {
        self.grant
            .as_ref()
            .is_some_and(|grant| grant.target_token.is_probe() || grant.endpoint_token.is_probe())
    }

    /// Returns whether the call passed an open breaker because no other target was available.
    pub(in crate::provider) fn is_forced(&self) -> bool {
        self.grant
            .as_ref()
            .is_some_and(|grant| grant.target_token.is_forced() || grant.endpoint_token.is_forced())
    }

    /// Forwards the rate-limit headers of the response, and whether the provider accepted the call.
    pub(in crate::provider) fn on_headers(&self, headers: &RateLimitHeaders, accepted: bool) {
        if let Some(grant) = &self.grant {
            self.state.on_headers(grant, headers, accepted, Instant::now());
        }
    }

    /// Releases the permit with the result of the call. Returns the booked spend and whether the key is at
    /// fault.
    pub(in crate::provider) fn finish(mut self, outcome: &CallOutcome<'_>) -> (Spend, KeyFault) {
        chaos::point("call.settle");
        self.record_received_output();
        // First: the calls that the release makes ready may need the budget.
        let booked = self.budget.as_mut().map(|budget| budget.settle(outcome.result)).unwrap_or_default();
        self.record_spend(booked);
        let key_fault = self.state.release_grant(&mut self.grant, Some(outcome), Instant::now());
        (booked, key_fault)
    }

    fn record_spend(&mut self, booked: Spend) {
        if let Some(grant) = &mut self.grant {
            grant.spend += booked;
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.record_received_output();
        // Before the release makes other calls ready.
        if let Some(mut budget) = self.budget.take() {
            self.record_spend(budget.settle_uncertain());
        }
        if self.grant.is_some() {
            self.state.release_grant(&mut self.grant, None, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::runtime::Handle;

    use super::*;
    use crate::guard::{BreakerState, TokenCost};
    use crate::provider::admission::decision::NextCall;
    use crate::provider::admission::queued_call::IncomingCall;
    use crate::provider::call::Call;
    use crate::provider::{Account, Settings};
    use crate::supervisor::Responder as ReplyTo;
    use crate::types::{
        AttemptCounts, Class, Completion, Failure, Priority, Prompt, RequestContext, Tokens, Usage,
    };

    fn state() -> Arc<State> {
        state_with("limits.output_tokens_per_minute = 60_000")
    }

    fn state_with(limits: &str) -> Arc<State> {
        let settings = format!("base_url = 'http://127.0.0.1:9'\nmodels.m = {{}}\n{limits}");
        let settings: Settings = toml::from_str(&settings).unwrap();
        let base_url = settings.base_url.clone().unwrap();
        let headers = http::HeaderMap::new();
        let account =
            Account { name: "a".into(), settings, base_url, keys: Vec::new(), headers, budgets: Vec::new() };
        State::new(account, Handle::current()).unwrap()
    }

    /// Sends a call of a step, after a pause in which every limit refills.
    async fn dispatch_call(state: &Arc<State>) -> Permit {
        tokio::time::sleep(Duration::from_secs(60)).await;
        let now = Instant::now();
        let context = RequestContext { step: Some("s".into()), ..RequestContext::default() };
        let prompt = Arc::new(Prompt::text("Anybody?"));
        let deadline = now + Duration::from_secs(60);
        let call = Call {
            prompt,
            model: "m".into(),
            priority: Priority::Batch,
            context,
            is_retry: false,
            only_option_now: false,
            only_option: true,
            excluded_keys: Vec::new(),
            dispatch_signal: None,
            stream: None,
            budget: None,
            scope_budget: None,
            memory: crate::guard::HeldMemory::default(),
            trace: crate::telemetry::CallTrace::default(),
            deadline,
        };
        // Without the receiver the call counts as abandoned and is not sent.
        let (responder, _receiver) = ReplyTo::channel();
        state.enqueue(IncomingCall { call, responder, requested_at: now }, now);
        match state.next(now) {
            NextCall::Ready(ready) => {
                let mut permit = ready.permit;
                permit.mark_sent(SendTime { at: now, queue_time: Duration::ZERO });
                permit
            }
            NextCall::WaitUntil(_) | NextCall::Idle => panic!("the call is not ready"),
        }
    }

    /// Output tokens in use now: a thousand are refilled per second, and nine hundred are available after a
    /// pause.
    fn tokens_in_use(state: &State) -> u128 {
        let now = Instant::now();
        (state.expected(TokenCost { input: 0, output: 900 }, now) - now).as_millis()
    }

    #[actix_web::test]
    async fn a_call_that_was_not_sent_after_all_gives_everything_back_and_is_no_evidence() {
        tokio::time::pause();
        let state = state();
        let permit = dispatch_call(&state).await;
        assert!(tokens_in_use(&state) > 0);
        permit.withdraw();
        assert_eq!(tokens_in_use(&state), 0);
        let snapshot = state.snapshot(Instant::now());
        let target = &snapshot.targets[0];
        assert_eq!((snapshot.in_flight, target.in_flight, target.reduced_from), (0, 0, None));
        assert!(target.breaker == BreakerState::Closed && target.last_failure.is_none());
        assert!(snapshot.keys_in_cooldown.is_empty() && snapshot.throttled == 0);
        assert_eq!(state.attempt_counts(&"m".into()), AttemptCounts::default());
        let first = state.with_first_attempts(&"m".into(), |first| first.counts_since(0, 9));
        assert_eq!(first, Some(AttemptCounts::default()));
        // Its request is given back as well.
        let state = state_with("limits.requests_per_day = 1");
        for _ in 0..3 {
            dispatch_call(&state).await.withdraw();
        }
        drop(dispatch_call(&state).await);
    }

    #[actix_web::test]
    async fn however_a_call_ends_no_more_stays_in_use_than_it_used() {
        tokio::time::pause();
        let state = state();
        let finish = |permit: Permit, result: Result<Completion, Failure>| {
            let took = Duration::from_secs(1);
            permit.finish(&CallOutcome { result: &result, took, first_token: Some(took) });
        };
        for output in [[10; 18].as_slice(), &[200, 200]].concat() {
            let usage = Usage { input: Tokens(9), output: Tokens(output), ..Usage::default() };
            let completion = Completion { usage: Some(usage), ..Completion::default() };
            finish(dispatch_call(&state).await, Ok(completion));
            assert_eq!(tokens_in_use(&state), u128::from(output));
        }
        let permit = dispatch_call(&state).await;
        assert_eq!(tokens_in_use(&state), 200);
        // Cancelled: its answer may have been as long as the mean.
        drop(permit);
        assert_eq!(tokens_in_use(&state), 29);
        finish(dispatch_call(&state).await, Err(Failure::new(Class::Overloaded, "not now")));
        assert_eq!(tokens_in_use(&state), 0);
        finish(dispatch_call(&state).await, Err(Failure::new(Class::Timeout, "silent").maybe_charged()));
        assert_eq!(tokens_in_use(&state), 29);
    }

    #[actix_web::test]
    async fn a_call_that_is_broken_off_uses_at_least_what_was_received() {
        tokio::time::pause();
        let state = state();
        let finish = |permit: Permit, result: Result<Completion, Failure>| {
            permit.finish(&CallOutcome {
                result: &result,
                took: Duration::from_secs(1),
                first_token: Some(Duration::from_secs(1)),
            });
        };
        // 500 tokens are assumed, and 700 are received.
        let broken_off = async || {
            let permit = dispatch_call(&state).await;
            permit.usage().record_output(2_100);
            permit
        };
        drop(broken_off().await);
        assert_eq!(tokens_in_use(&state), 700);
        finish(broken_off().await, Err(Failure::new(Class::Timeout, "silent").maybe_charged()));
        assert_eq!(tokens_in_use(&state), 700);
        // Nothing was charged, or the usage is known.
        finish(broken_off().await, Err(Failure::new(Class::Overloaded, "not now")));
        assert_eq!(tokens_in_use(&state), 0);
        let usage = Usage { input: Tokens(9), output: Tokens(10), ..Usage::default() };
        let cut = Failure::new(Class::Truncated, "cut").with_usage(Some(usage));
        finish(broken_off().await, Err(cut));
        assert_eq!(tokens_in_use(&state), 10);
    }
}
