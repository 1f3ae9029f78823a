//! Handles one API call: parses it, selects a fault, and applies the limits. `response.rs` builds the response.
//!
//! All decisions are made before the first wait, so a client that disconnects early does not affect other calls.

pub(super) mod embeddings;
pub(super) mod response;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Response};
use tokio::time::Instant;

use super::account::{Cost, LimitStatuses};
use super::api_error::{ApiError, RetryHint};
use super::body::{Body, ConnectionAborted};
use super::completion::{Completion, generate};
use super::connection::ResetSwitch;
use super::fault::{FaultContext, select_fault};
use super::parsed_request::{AnswerFormat, Delivery, ParsedRequest, RequestHead};
use super::prompt_cache::PromptToCache;
use super::request_scope::{AccountId, RequestScope, Shared};
use super::response_data::ResponseData;
use super::rng::{Purpose, RequestRng, fingerprint, mix};
use super::settings::OutputAccounting;
use super::token_stream::TokenStream;
use super::vendor_format;
use super::wire_format::WireFormat;
use super::{Fault, FaultKind, PromptCaching, RetryAfter, Settings, Vendor};

/// Delay of `slow_first_token` if the fault sets none.
const DEFAULT_FIRST_TOKEN_DELAY: Duration = Duration::from_secs(30);
/// Values of Retry-After that a client must ignore.
const IMPLAUSIBLE_RETRY_AFTER_SECONDS: [i64; 4] = [-5, 0, 999_999_999, i64::MAX];

/// A received API call.
pub(super) struct IncomingCall<'a> {
    pub(super) wire_format: WireFormat,
    pub(super) head: RequestHead<'a>,
    pub(super) key: Option<&'a str>,
    pub(super) body: &'a [u8],
}

/// Handles a call.
pub(super) async fn handle(
    shared: &Arc<Shared>,
    reset_switch: &ResetSwitch,
    call: IncomingCall<'_>,
) -> Result<Response<Body>, ConnectionAborted> {
    let now = Instant::now();
    let settings = shared.settings.load_full();
    let request_hash = fingerprint(call.body)
        ^ mix(fingerprint(call.head.model.unwrap_or_default().as_bytes())
            ^ call.wire_format.hash_tag()
            ^ u64::from(call.head.stream));
    let vendor = call.wire_format.vendor();
    let (scope, occurrence, elapsed) = shared.begin_request(vendor, request_hash, now);
    let handler = CallHandler {
        settings: &settings,
        wire_format: call.wire_format,
        vendor,
        key: call.key,
        request_rng: RequestRng::new(settings.seed, request_hash, occurrence),
        serial: shared.next_serial(),
        now,
    };
    perform(handler.decide(&call, scope, occurrence, elapsed), reset_switch).await
}

/// Answers a call as decided.
async fn perform(
    disposition: Disposition,
    reset_switch: &ResetSwitch,
) -> Result<Response<Body>, ConnectionAborted> {
    match disposition {
        Disposition::Now(response) => Ok(response),
        Disposition::Delayed(send_at, response) => {
            tokio::time::sleep_until(send_at).await;
            Ok(response)
        }
        Disposition::NoResponse(scope) => {
            // Held until the client disconnects, which drops this future.
            let _scope = scope;
            std::future::pending().await
        }
        Disposition::Reset => {
            reset_switch.turn_on();
            Err(ConnectionAborted)
        }
    }
}

/// How a call is answered.
enum Disposition {
    Now(Response<Body>),
    Delayed(Instant, Response<Body>),
    NoResponse(RequestScope),
    Reset,
}

/// Inputs of one call's response.
struct CallHandler<'a> {
    settings: &'a Settings,
    wire_format: WireFormat,
    vendor: Vendor,
    key: Option<&'a str>,
    request_rng: RequestRng,
    serial: u64,
    now: Instant,
}

impl CallHandler<'_> {
    fn decide(
        &self,
        call: &IncomingCall<'_>,
        mut scope: RequestScope,
        occurrence: u32,
        elapsed: Duration,
    ) -> Disposition {
        let parsed = self.parse(call).and_then(|request| {
            let prompt = self.prompt_to_cache(call, &request.model)?;
            Ok((request, prompt))
        });
        let (request, prompt) = match parsed {
            Ok(parsed) => parsed,
            Err(api_error) => {
                return Disposition::Now(self.error_response(
                    scope,
                    &api_error,
                    None,
                    &LimitStatuses::default(),
                ));
            }
        };
        let contains = |text: &str| request.conversation.contains(text);
        let context = FaultContext {
            elapsed,
            vendor: self.vendor,
            model: &request.model,
            key: self.key,
            stream: request.delivery != Delivery::Full,
            structured: request.format != AnswerFormat::Text,
            occurrence,
            in_flight: scope.concurrent_requests(),
            contains: &contains,
        };
        let draw = self.request_rng.for_purpose(Purpose::Fault).f64();
        let fault = if self.settings.faults.is_empty() {
            None
        } else {
            select_fault(&self.settings.faults, &context, draw)
        };
        if let Some(fault) = fault.filter(|fault| fault.kind.precedes_admission()) {
            return self.fault_before_admission(scope, fault, &request);
        }
        let completion = generate(self.settings, &request, self.request_rng, fault);
        let input_tokens = request.conversation.tokens();
        let (charged_on_arrival, charged_as_written) = self.output_charges(&request, &completion);
        let cache_use = prompt.as_ref().map(|prompt| scope.look_up_prompt(prompt, self.now));
        let cache_use = cache_use.unwrap_or_default();
        let cost = Cost::for_call(input_tokens, charged_on_arrival);
        let cost = match self.vendor {
            Vendor::Anthropic => cost.with_uncounted_input(cache_use.read),
            Vendor::OpenAi | Vendor::Gemini => cost,
        };
        let (limit_statuses, admission) = scope.admit(self.account(&request.model), cost, self.now);
        if let Err(rejection) = admission {
            let retry_hint =
                self.retry_hint(self.settings.retry_after, rejection.wait.unwrap_or(Duration::from_secs(60)));
            let api_error = ApiError::rate_limited(rejection, &request.model, retry_hint);
            return Disposition::Now(self.error_response(scope, &api_error, None, &limit_statuses));
        }
        if let Some(prompt) = &prompt {
            scope.use_prompt_cache(prompt, &cache_use, self.now, self.first_token_at(fault), self.serial);
        }
        if self.settings.track_prompts {
            scope.set_prompt(request.conversation.fingerprint());
        }
        scope.record_response(Some(200), fault.map(|fault| fault.kind));
        let created = crate::clock::now();
        let data = ResponseData {
            model: &request.model,
            completion: &completion,
            input_tokens,
            cache_use,
            serial: self.serial,
            created: created.as_second(),
        };
        scope.set_token_stream(self.token_stream(charged_as_written, request.delivery, fault));
        let mut headers = HeaderMap::with_capacity(16);
        self.add_headers(&mut headers, &limit_statuses);
        match request.delivery {
            Delivery::Full => {
                let body = vendor_format::render_response(self.wire_format, &data);
                self.full_response(scope, headers, body, fault)
            }
            Delivery::JsonArray => {
                let body = self.event_stream(&data, false, fault).into_array();
                self.full_response(
                    scope,
                    headers,
                    body,
                    fault.filter(|fault| fault.kind != FaultKind::ErrorInStream),
                )
            }
            Delivery::EventStream { usage } => self.streamed_response(scope, headers, &data, usage, fault),
        }
    }

    fn parse<'a>(&self, call: &IncomingCall<'a>) -> Result<ParsedRequest<'a>, ApiError> {
        check_key(self.settings, call.key)?;
        let request = vendor_format::parse_request(self.wire_format, &call.head, call.body, self.settings)?;
        self.check_model(&request.model)?;
        Ok(request)
    }

    fn check_model(&self, name: &str) -> Result<(), ApiError> {
        if !self.settings.models.is_empty() && !self.settings.models.iter().any(|model| model == name) {
            return Err(ApiError::ModelNotFound { model: name.to_owned() });
        }
        Ok(())
    }

    /// Returns the prompt with what decides about its caching; `None` without a prompt cache.
    fn prompt_to_cache(
        &self,
        call: &IncomingCall<'_>,
        model: &str,
    ) -> Result<Option<PromptToCache>, ApiError> {
        match self.settings.prompt_cache {
            PromptCaching::Off => return Ok(None),
            PromptCaching::Vendor => {}
        }
        let prompt = vendor_format::cacheable_prompt(self.wire_format, call.body)?;
        let account = self.account(model);
        let key = if self.settings.limits.shared_across_keys { 0 } else { account.key };
        let vendor = fingerprint(self.vendor.as_str().as_bytes());
        let owner = mix(mix(vendor ^ key) ^ account.model);
        let min_tokens = self.settings.prompt_cache_min_tokens.get();
        let hits_by_chance = self.request_rng.for_purpose(Purpose::PromptCache).bool();
        Ok(Some(PromptToCache::new(prompt, owner, min_tokens, hits_by_chance)))
    }

    /// Returns when the first token is generated: in a stream, the time of its first chunk.
    fn first_token_at(&self, fault: Option<&Fault>) -> Instant {
        self.now + first_token_delay(fault) + self.settings.first_token.delay_within(self.latency())
    }

    fn account(&self, model: &str) -> AccountId {
        let key = self.key.map_or(0, |key| fingerprint(key.as_bytes()));
        AccountId { vendor: self.vendor, key, model: fingerprint(model.as_bytes()) }
    }

    /// Returns the output tokens to charge on arrival, and those to charge as they are generated.
    fn output_charges(&self, request: &ParsedRequest<'_>, completion: &Completion) -> (u64, u64) {
        match self.settings.limits.output_accounting {
            OutputAccounting::Used => (0, completion.output_tokens),
            OutputAccounting::MaxTokens => (request.max_tokens.unwrap_or(completion.output_tokens), 0),
            OutputAccounting::Oracle => (completion.output_tokens, 0),
        }
    }

    /// Returns the schedule of the output tokens. In a stream it starts at the first chunk.
    fn token_stream(&self, tokens: u64, delivery: Delivery, fault: Option<&Fault>) -> TokenStream {
        let latency = self.latency();
        let first = match delivery {
            Delivery::EventStream { .. } => self.settings.first_token.delay_within(latency),
            Delivery::Full | Delivery::JsonArray => Duration::ZERO,
        };
        let tokens = match fault.map(|fault| fault.kind) {
            // These faults stop halfway.
            Some(FaultKind::Cut | FaultKind::Stalled | FaultKind::ErrorInStream) => tokens.div_ceil(2),
            _ => tokens,
        };
        TokenStream::new(tokens, self.now + first_token_delay(fault) + first, latency - first)
    }

    fn retry_hint(&self, retry_after: RetryAfter, wait: Duration) -> RetryHint {
        match retry_after {
            RetryAfter::Truthful => RetryHint::After(wait),
            RetryAfter::Missing => RetryHint::Missing,
            RetryAfter::After(time) => RetryHint::After(time),
            RetryAfter::Absurd => {
                let mut rng = self.request_rng.for_purpose(Purpose::RetryAfter);
                let index = rng.usize(..IMPLAUSIBLE_RETRY_AFTER_SECONDS.len());
                RetryHint::Implausible(IMPLAUSIBLE_RETRY_AFTER_SECONDS[index])
            }
        }
    }

    fn latency(&self) -> Duration {
        self.settings.latency.sample(&mut self.request_rng.for_purpose(Purpose::Latency))
    }
}

/// Returns the delay of the first chunk due to a fault.
/// Checks that the simulator accepts a key.
pub(super) fn check_key(settings: &Settings, key: Option<&str>) -> Result<(), ApiError> {
    if settings.keys.is_empty() {
        return Ok(());
    }
    let key = key.ok_or(ApiError::MissingKey)?;
    if !settings.keys.iter().any(|accepted| accepted == key) {
        return Err(ApiError::InvalidKey { given: key.to_owned() });
    }
    Ok(())
}

fn first_token_delay(fault: Option<&Fault>) -> Duration {
    let fault = fault.filter(|fault| fault.kind == FaultKind::SlowFirstToken);
    fault.map_or(Duration::ZERO, |fault| {
        fault.delay.unwrap_or(DEFAULT_FIRST_TOKEN_DELAY).min(DEFAULT_FIRST_TOKEN_DELAY * 1_000)
    })
}
