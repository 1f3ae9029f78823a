//! Builds the response of a call: a completion, whole or as a stream, or an error, each with the effect of a fault.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use jiff::Timestamp;

use crate::simulator::account::LimitStatuses;
use crate::simulator::api_error::ApiError;
use crate::simulator::body::{Body, BodyStep};
use crate::simulator::event_stream::EventStream;
use crate::simulator::parsed_request::ParsedRequest;
use crate::simulator::request_scope::RequestScope;
use crate::simulator::response_data::ResponseData;
use crate::simulator::{Fault, FaultKind, gateway, vendor_format};

use super::{CallHandler, Disposition, first_token_delay};

/// Requests per minute reported by a simulated 429 if no limit is set.
const DEFAULT_REPORTED_LIMIT: u64 = 500;

pub(in crate::simulator) const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream; charset=utf-8";

const HTML_PAGE: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1>\
    </center>\r\n<hr><center>simulated</center>\r\n</body>\r\n</html>\r\n";

/// Response of a content delivery network's firewall. The request does not reach the API.
const FIREWALL_PAGE: &str = "<!DOCTYPE html>\n<html lang=\"en-US\">\n<head>\n<title>Attention Required! | Firewall</title>\n\
    </head>\n<body>\n<h1>Sorry, you have been blocked</h1>\n<p>The action you just performed triggered the security \
    solution, such as submitting a certain word or phrase.</p>\n</body>\n</html>\n";

impl CallHandler<'_> {
    /// Answers a call that a fault keeps from being admitted.
    pub(super) fn fault_before_admission(
        &self,
        mut scope: RequestScope,
        fault: &Fault,
        request: &ParsedRequest<'_>,
    ) -> Disposition {
        let retry_hint =
            self.retry_hint(fault.retry_after.unwrap_or(self.settings.retry_after), Duration::from_secs(1));
        let limit =
            self.settings.limits.requests_per_minute.map_or(DEFAULT_REPORTED_LIMIT, |limit| limit.get());
        if let Some(api_error) =
            ApiError::from_fault(fault, &request.model, self.key, limit, request.max_tokens, retry_hint)
        {
            return Disposition::Now(self.error_response(
                scope,
                &api_error,
                Some(fault.kind),
                &LimitStatuses::default(),
            ));
        }
        if matches!(fault.kind, FaultKind::Html | FaultKind::Firewall) {
            let is_firewall = fault.kind == FaultKind::Firewall;
            let status = fault.status.unwrap_or(if is_firewall { 403 } else { 200 });
            scope.record_response(Some(status), Some(fault.kind));
            let body = Body::full(if is_firewall { FIREWALL_PAGE } else { HTML_PAGE }, Some(scope));
            return Disposition::Now(http_response(
                status,
                "text/html; charset=UTF-8",
                HeaderMap::new(),
                body,
            ));
        }
        scope.record_response(None, Some(fault.kind));
        if fault.kind == FaultKind::Silent { Disposition::NoResponse(scope) } else { Disposition::Reset }
    }

    pub(super) fn error_response(
        &self,
        mut scope: RequestScope,
        api_error: &ApiError,
        fault: Option<FaultKind>,
        limit_statuses: &LimitStatuses,
    ) -> Response<Body> {
        let (status, body) = vendor_format::render_error(self.vendor, api_error, self.serial);
        scope.record_response(Some(status), fault);
        let mut headers = HeaderMap::with_capacity(16);
        self.add_headers(&mut headers, limit_statuses);
        vendor_format::add_retry_after(&mut headers, self.vendor, api_error);
        http_response(status, JSON, headers, Body::full(body, Some(scope)))
    }

    pub(super) fn add_headers(&self, headers: &mut HeaderMap, limit_statuses: &LimitStatuses) {
        vendor_format::add_common_headers(self.vendor, headers, self.serial);
        if self.settings.headers && limit_statuses.iter().any(Option::is_some) {
            match self.settings.gateway {
                Some(gateway) => {
                    gateway::add_rate_limit_headers(
                        gateway,
                        self.settings.limits.bucket,
                        headers,
                        limit_statuses,
                    );
                }
                None => vendor_format::add_rate_limit_headers(
                    self.vendor,
                    headers,
                    limit_statuses,
                    self.vendor_clock(),
                ),
            }
        }
        if !self.settings.clock_ahead.is_zero() {
            vendor_format::add_date(headers, self.vendor_clock());
        }
    }

    /// Returns the time of the vendor's clock.
    fn vendor_clock(&self) -> Timestamp {
        crate::clock::now().saturating_add(self.settings.clock_ahead).unwrap_or(Timestamp::MAX)
    }

    pub(super) fn full_response(
        &self,
        scope: RequestScope,
        headers: HeaderMap,
        body: Vec<u8>,
        fault: Option<&Fault>,
    ) -> Disposition {
        let length = Some(body.len() as u64);
        let first_half = || Bytes::copy_from_slice(&body[..body.len() / 2]);
        let mut latency = self.latency();
        let body = match fault.map(|fault| fault.kind) {
            Some(FaultKind::Cut) => {
                Body::scripted(vec![BodyStep::Send(first_half()), BodyStep::Abort], length, scope)
            }
            Some(FaultKind::Stalled) => {
                Body::scripted(vec![BodyStep::Send(first_half()), BodyStep::Stall], length, scope)
            }
            Some(FaultKind::TruncatedJson) => Body::full(first_half(), Some(scope)),
            Some(FaultKind::MalformedChunk) => {
                let mut malformed = body;
                if let Some(last) = malformed.last_mut() {
                    *last = b',';
                }
                Body::full(malformed, Some(scope))
            }
            Some(FaultKind::ErrorInStream) => Body::full(
                vendor_format::render_error(self.vendor, &ApiError::ServerError { status: 500 }, self.serial)
                    .1,
                Some(scope),
            ),
            Some(FaultKind::SlowFirstToken) => {
                latency += first_token_delay(fault);
                Body::full(body, Some(scope))
            }
            _ => Body::full(body, Some(scope)),
        };
        self.delayed(latency, http_response(200, JSON, headers, body))
    }

    fn delayed(&self, wait: Duration, response: Response<Body>) -> Disposition {
        if wait.is_zero() {
            Disposition::Now(response)
        } else {
            Disposition::Delayed(self.now + wait, response)
        }
    }

    pub(super) fn event_stream(
        &self,
        data: &ResponseData<'_>,
        usage: bool,
        fault: Option<&Fault>,
    ) -> EventStream {
        let max_chunks = usize::try_from(self.settings.chunks.get()).unwrap_or(usize::MAX);
        let mut events = vendor_format::render_stream(self.wire_format, data, max_chunks, usage);
        match fault.map(|fault| fault.kind) {
            Some(FaultKind::NoEnd) => events.drop_terminator(),
            Some(FaultKind::MalformedChunk) => {
                events.corrupt_json(vendor_format::event_terminator(self.vendor))
            }
            Some(FaultKind::ErrorInStream) => {
                let events_before = events.truncated_len();
                events.truncate_with(&vendor_format::render_error_event(
                    self.wire_format,
                    self.serial,
                    events_before,
                ));
            }
            _ => {}
        }
        events
    }

    pub(super) fn streamed_response(
        &self,
        scope: RequestScope,
        headers: HeaderMap,
        data: &ResponseData<'_>,
        usage: bool,
        fault: Option<&Fault>,
    ) -> Disposition {
        let mut events = self.event_stream(data, usage, fault);
        let end = match fault.map(|fault| fault.kind) {
            Some(FaultKind::Cut) => Some(BodyStep::Abort),
            Some(FaultKind::Stalled) => Some(BodyStep::Stall),
            _ => None,
        };
        if end.is_some() {
            events.truncate(matches!(end, Some(BodyStep::Abort)));
        }
        let extra_delay = first_token_delay(fault);
        let latency = self.latency();
        if latency.is_zero() && end.is_none() && extra_delay.is_zero() {
            let body = Body::stream(events.into_bytes(), scope);
            return Disposition::Now(http_response(200, EVENTS, headers, body));
        }
        // As at a vendor, status and headers are sent with the first chunk, and they contain the limits at the
        // time of admission. With a slow first token they are sent alone and at once.
        let first = self.settings.first_token.delay_within(latency);
        let parts = events.into_parts();
        let interval = (latency - first) / u32::try_from(parts.len().max(2) - 1).unwrap_or(u32::MAX);
        let first_chunk_at = self.now + extra_delay + first;
        let mut steps = Vec::with_capacity(parts.len() * 2 + 1);
        for (index, part) in (0u32..).zip(parts) {
            if index > 0 || !extra_delay.is_zero() {
                steps.push(BodyStep::WaitUntil(first_chunk_at + interval * index));
            }
            steps.push(BodyStep::Send(part));
        }
        steps.extend(end);
        let response = http_response(200, EVENTS, headers, Body::scripted(steps, None, scope));
        self.delayed(if extra_delay.is_zero() { first } else { Duration::ZERO }, response)
    }
}

/// Builds an HTTP response.
pub(in crate::simulator) fn http_response(
    status: u16,
    kind: &'static str,
    headers: HeaderMap,
    body: Body,
) -> Response<Body> {
    let length = hyper::body::Body::size_hint(&body).exact();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = headers;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    response
}
