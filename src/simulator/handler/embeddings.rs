//! Handles one call for embeddings: as a call for a completion, but without output tokens and never as a stream.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Response};
use tokio::time::Instant;

use crate::simulator::account::{Cost, LimitStatuses};
use crate::simulator::api_error::ApiError;
use crate::simulator::body::{Body, ConnectionAborted};
use crate::simulator::connection::ResetSwitch;
use crate::simulator::embedding::{EmbeddingApi, EmbeddingInput, ParsedEmbeddings};
use crate::simulator::fault::{FaultContext, select_fault};
use crate::simulator::request_scope::{RequestScope, Shared};
use crate::simulator::rng::{Purpose, RequestRng, fingerprint, mix};
use crate::simulator::wire_format::WireFormat;
use crate::simulator::{Fault, FaultKind, Vendor, gemini, openai};

use super::{CallHandler, Disposition, check_key, perform};

/// A received call for embeddings.
pub(in crate::simulator) struct EmbeddingCall<'a> {
    pub(in crate::simulator) api: EmbeddingApi,
    /// The model, if the path contains it.
    pub(in crate::simulator) model: Option<&'a str>,
    pub(in crate::simulator) key: Option<&'a str>,
    pub(in crate::simulator) body: &'a [u8],
}

/// Handles a call.
pub(in crate::simulator) async fn handle_embeddings(
    shared: &Arc<Shared>,
    reset_switch: &ResetSwitch,
    call: EmbeddingCall<'_>,
) -> Result<Response<Body>, ConnectionAborted> {
    let now = Instant::now();
    let settings = shared.settings.load_full();
    let model_hash = fingerprint(call.model.unwrap_or_default().as_bytes());
    let request_hash = fingerprint(call.body) ^ mix(model_hash ^ call.api.hash_tag());
    let vendor = call.api.vendor();
    let (scope, occurrence, elapsed) = shared.begin_request(vendor, request_hash, now);
    let handler = CallHandler {
        settings: &settings,
        wire_format: match vendor {
            Vendor::OpenAi | Vendor::Anthropic => WireFormat::OpenAiChat,
            Vendor::Gemini => WireFormat::Gemini,
        },
        vendor,
        key: call.key,
        request_rng: RequestRng::new(settings.seed, request_hash, occurrence),
        serial: shared.next_serial(),
        now,
    };
    perform(handler.decide_embeddings(&call, scope, occurrence, elapsed), reset_switch).await
}

/// Returns whether a fault makes sense for embeddings, which have no text and no stream.
fn applies_to_embeddings(fault: &Fault) -> bool {
    match fault.kind {
        FaultKind::RateLimited
        | FaultKind::ServerError
        | FaultKind::Unavailable
        | FaultKind::Overloaded
        | FaultKind::Reset
        | FaultKind::Silent
        | FaultKind::SlowFirstToken
        | FaultKind::Cut
        | FaultKind::Stalled
        | FaultKind::MalformedChunk
        | FaultKind::TruncatedJson
        | FaultKind::Html
        | FaultKind::Empty
        | FaultKind::Auth
        | FaultKind::Quota
        | FaultKind::NotFound
        | FaultKind::ErrorInStream
        | FaultKind::Firewall
        | FaultKind::Forbidden
        | FaultKind::ModelForbidden
        | FaultKind::FileForbidden => true,
        FaultKind::NoEnd
        | FaultKind::WrongContent
        | FaultKind::Length
        | FaultKind::Refusal
        | FaultKind::MaxTokensUnaffordable
        | FaultKind::UnofferedToolCall => false,
    }
}

impl CallHandler<'_> {
    fn decide_embeddings(
        &self,
        call: &EmbeddingCall<'_>,
        mut scope: RequestScope,
        occurrence: u32,
        elapsed: Duration,
    ) -> Disposition {
        let parsed = match self.parse_embeddings(call) {
            Ok(parsed) => parsed,
            Err(api_error) => {
                let statuses = LimitStatuses::default();
                return Disposition::Now(self.error_response(scope, &api_error, None, &statuses));
            }
        };
        let request = &parsed.request;
        let contains = |text: &str| request.conversation.contains(text);
        let context = FaultContext {
            elapsed,
            vendor: self.vendor,
            model: &request.model,
            key: self.key,
            stream: false,
            structured: false,
            occurrence,
            in_flight: scope.concurrent_requests(),
            contains: &contains,
        };
        let draw = self.request_rng.for_purpose(Purpose::Fault).f64();
        let faults: Vec<_> =
            self.settings.faults.iter().filter(|fault| applies_to_embeddings(fault)).cloned().collect();
        let fault = select_fault(&faults, &context, draw);
        if let Some(fault) = fault.filter(|fault| fault.kind.precedes_admission()) {
            return self.fault_before_admission(scope, fault, request);
        }
        let cost = Cost::for_call(request.conversation.tokens(), 0);
        let (limit_statuses, admission) = scope.admit(self.account(&request.model), cost, self.now);
        if let Err(rejection) = admission {
            let retry_hint =
                self.retry_hint(self.settings.retry_after, rejection.wait.unwrap_or(Duration::from_secs(60)));
            let api_error = ApiError::rate_limited(rejection, &request.model, retry_hint);
            return Disposition::Now(self.error_response(scope, &api_error, None, &limit_statuses));
        }
        if self.settings.track_prompts {
            scope.set_prompt(request.conversation.fingerprint());
        }
        let kind = fault.map(|fault| fault.kind);
        scope.record_response(Some(200), kind);
        let mut headers = HeaderMap::with_capacity(16);
        self.add_headers(&mut headers, &limit_statuses);
        let inputs = if kind == Some(FaultKind::Empty) { &[][..] } else { &parsed.inputs[..] };
        let vectors: Vec<_> = inputs.iter().map(|input: &EmbeddingInput| input.vector()).collect();
        let body = match call.api {
            EmbeddingApi::OpenAi => openai::render_embeddings(&parsed, &vectors),
            EmbeddingApi::GeminiOne | EmbeddingApi::GeminiBatch => {
                gemini::render_embeddings(call.api, &vectors)
            }
        };
        self.full_response(scope, headers, body, fault)
    }

    fn parse_embeddings<'a>(&self, call: &EmbeddingCall<'a>) -> Result<ParsedEmbeddings<'a>, ApiError> {
        check_key(self.settings, call.key)?;
        let parsed = match call.api {
            EmbeddingApi::OpenAi => openai::parse_embeddings(call.body)?,
            EmbeddingApi::GeminiOne | EmbeddingApi::GeminiBatch => {
                gemini::parse_embeddings(call.api, call.model.unwrap_or_default(), call.body)?
            }
        };
        self.check_model(&parsed.request.model)?;
        Ok(parsed)
    }
}
