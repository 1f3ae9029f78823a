//! Plays one call: reads it, decides its fate, and answers in the vendor's way.
//!
//! Everything is decided before the first wait, so a client that leaves early changes no one's fate.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use tokio::time::Instant;

use super::account::{Cost, Standing};
use super::answer::{Answer, answer};
use super::ask::{Ask, Delivery};
use super::body::{Body, Broken, Step};
use super::draw::{Draws, Purpose, fingerprint, mix};
use super::fault::{Case, pick};
use super::gateway;
use super::line::ResetSwitch;
use super::reply::{self, Head, Reply};
use super::settings::OutputCounts;
use super::trouble::{Hint, Trouble};
use super::visit::{AccountId, Shared, Visit};
use super::writing::Writing;
use super::{Fault, FaultKind, RetryAfter, Settings, Vendor};

/// How late the first piece of a `slow_first_token` is when it is not said.
const SLOW: Duration = Duration::from_secs(30);
/// The limit that a played 429 names where none is set.
const PLAYED_LIMIT: u64 = 500;
/// Values of Retry-After that nobody should believe.
const ABSURD: [i64; 4] = [-5, 0, 999_999_999, i64::MAX];

const HTML: &str = "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\r\n<center><h1>502 Bad Gateway</h1>\
    </center>\r\n<hr><center>practice</center>\r\n</body>\r\n</html>\r\n";

/// What a content network's firewall answers: the API never saw the request.
const FIREWALL: &str = "<!DOCTYPE html>\n<html lang=\"en-US\">\n<head>\n<title>Attention Required! | Firewall</title>\n\
    </head>\n<body>\n<h1>Sorry, you have been blocked</h1>\n<p>The action you just performed triggered the security \
    solution, such as submitting a certain word or phrase.</p>\n</body>\n</html>\n";

/// A call as it came.
pub(super) struct Call<'a> {
    pub(super) vendor: Vendor,
    pub(super) head: Head<'a>,
    pub(super) key: Option<&'a str>,
    pub(super) body: &'a [u8],
}

/// Answers a call.
pub(super) async fn play(
    shared: &Arc<Shared>,
    switch: &ResetSwitch,
    call: Call<'_>,
) -> Result<Response<Body>, Broken> {
    let now = Instant::now();
    let settings = shared.settings.load_full();
    let request = fingerprint(call.body)
        ^ mix(fingerprint(call.head.model.unwrap_or_default().as_bytes())
            ^ call.vendor as u64
            ^ u64::from(call.head.stream));
    let (visit, occurrence, elapsed) = shared.arrive(call.vendor, request, now);
    let stage = Stage {
        settings: &settings,
        vendor: call.vendor,
        key: call.key,
        draws: Draws::new(settings.seed, request, occurrence),
        serial: shared.serial(),
        now,
    };
    match stage.decide(&call, visit, occurrence, elapsed) {
        Fate::Now(response) => Ok(response),
        Fate::Later(then, response) => {
            tokio::time::sleep_until(then).await;
            Ok(response)
        }
        Fate::Silent(visit) => {
            // Held until the client gives up, which drops this future.
            let _visit = visit;
            std::future::pending().await
        }
        Fate::Reset => {
            switch.turn_on();
            Err(Broken)
        }
    }
}

/// What becomes of a call.
enum Fate {
    Now(Response<Body>),
    Later(Instant, Response<Body>),
    Silent(Visit),
    Reset,
}

/// What one call's reply is made from.
struct Stage<'a> {
    settings: &'a Settings,
    vendor: Vendor,
    key: Option<&'a str>,
    draws: Draws,
    serial: u64,
    now: Instant,
}

impl Stage<'_> {
    fn decide(&self, call: &Call<'_>, mut visit: Visit, occurrence: u32, elapsed: Duration) -> Fate {
        let ask = match self.read(call) {
            Ok(ask) => ask,
            Err(trouble) => return Fate::Now(self.refuse(visit, &trouble, None, &Standing::default())),
        };
        let contains = |text: &str| ask.conversation.contains(text);
        let case = Case {
            elapsed,
            vendor: self.vendor,
            model: &ask.model,
            key: self.key,
            stream: ask.delivery != Delivery::Whole,
            structured: ask.shape != super::ask::Shape::Text,
            occurrence,
            in_flight: visit.others(),
            contains: &contains,
        };
        let draw = || self.draws.stream(Purpose::Fault).f64();
        let fault =
            if self.settings.faults.is_empty() { None } else { pick(&self.settings.faults, &case, draw()) };
        if let Some(fault) = fault.filter(|fault| fault.kind.at_the_door()) {
            return self.at_the_door(visit, fault, &ask);
        }
        let answer = answer(self.settings, &ask, self.draws, fault.map(|fault| fault.kind));
        let input_tokens = ask.conversation.tokens();
        let (foreseen, written) = self.output(&ask, &answer);
        let (standing, verdict) =
            visit.admit(self.account(&ask.model), Cost::call(input_tokens, foreseen), self.now);
        if let Err(refusal) = verdict {
            let hint = self.hint(self.settings.retry_after, refusal.wait.unwrap_or(Duration::from_secs(60)));
            let trouble = Trouble::refused(refusal, &ask.model, hint);
            return Fate::Now(self.refuse(visit, &trouble, None, &standing));
        }
        if self.settings.track_prompts {
            visit.answers(ask.conversation.fingerprint());
        }
        visit.reply(Some(200), fault.map(|fault| fault.kind));
        let created = crate::clock::now();
        let reply = Reply {
            model: &ask.model,
            answer: &answer,
            input_tokens,
            serial: self.serial,
            created: created.as_second(),
        };
        visit.writes(self.writing(written, ask.delivery, fault));
        let mut headers = HeaderMap::with_capacity(16);
        self.add_headers(&mut headers, &standing);
        match ask.delivery {
            Delivery::Whole => {
                let body = reply::whole(self.vendor, &reply);
                self.whole(visit, headers, body, fault)
            }
            Delivery::Array => {
                let body = self.events(&reply, false, fault).into_array();
                self.whole(visit, headers, body, fault.filter(|fault| fault.kind != FaultKind::ErrorInStream))
            }
            Delivery::Events { usage } => self.stream(visit, headers, &reply, usage, fault),
        }
    }

    fn read<'a>(&self, call: &Call<'a>) -> Result<Ask<'a>, Trouble> {
        if !self.settings.keys.is_empty() {
            let key = call.key.ok_or(Trouble::NoKey)?;
            if !self.settings.keys.iter().any(|accepted| accepted == key) {
                return Err(Trouble::Key { given: key.to_owned() });
            }
        }
        let ask = reply::read(self.vendor, &call.head, call.body, self.settings)?;
        if !self.settings.models.is_empty() && !self.settings.models.iter().any(|model| *model == ask.model) {
            return Err(Trouble::NoModel { model: ask.model.into_owned() });
        }
        Ok(ask)
    }

    fn account(&self, model: &str) -> AccountId {
        let key = self.key.map_or(0, |key| fingerprint(key.as_bytes()));
        AccountId { vendor: self.vendor, key, model: fingerprint(model.as_bytes()) }
    }

    /// Returns the output tokens to charge when the call comes, and those to charge while they are written.
    fn output(&self, ask: &Ask<'_>, answer: &Answer) -> (u64, u64) {
        match self.settings.limits.output_counts {
            OutputCounts::Used => (0, answer.output_tokens),
            OutputCounts::MaxTokens => (ask.max_tokens.unwrap_or(answer.output_tokens), 0),
            OutputCounts::Foreseen => (answer.output_tokens, 0),
        }
    }

    /// Says when an answer's tokens are written: in a stream, from the first piece on.
    fn writing(&self, tokens: u64, delivery: Delivery, fault: Option<&Fault>) -> Writing {
        let latency = self.latency();
        let first = match delivery {
            Delivery::Events { .. } => self.settings.first_token.of(latency),
            Delivery::Whole | Delivery::Array => Duration::ZERO,
        };
        let tokens = match fault.map(|fault| fault.kind) {
            // They end in the middle.
            Some(FaultKind::Cut | FaultKind::Stalled | FaultKind::ErrorInStream) => tokens.div_ceil(2),
            _ => tokens,
        };
        Writing::new(tokens, self.now + slow(fault) + first, latency - first)
    }

    fn hint(&self, retry_after: RetryAfter, wait: Duration) -> Hint {
        match retry_after {
            RetryAfter::Truthful => Hint::After(wait),
            RetryAfter::Missing => Hint::Nothing,
            RetryAfter::After(time) => Hint::After(time),
            RetryAfter::Absurd => {
                Hint::Absurd(ABSURD[self.draws.stream(Purpose::RetryAfter).usize(..ABSURD.len())])
            }
        }
    }

    fn at_the_door(&self, mut visit: Visit, fault: &Fault, ask: &Ask<'_>) -> Fate {
        let hint = self.hint(fault.retry_after.unwrap_or(self.settings.retry_after), Duration::from_secs(1));
        let limit = self.settings.limits.requests_per_minute.map_or(PLAYED_LIMIT, |limit| limit.get());
        if let Some(trouble) = Trouble::of_fault(fault, &ask.model, self.key, limit, ask.max_tokens, hint) {
            return Fate::Now(self.refuse(visit, &trouble, Some(fault.kind), &Standing::default()));
        }
        if matches!(fault.kind, FaultKind::Html | FaultKind::Firewall) {
            let is_firewall = fault.kind == FaultKind::Firewall;
            let status = fault.status.unwrap_or(if is_firewall { 403 } else { 200 });
            visit.reply(Some(status), Some(fault.kind));
            let body = Body::whole(if is_firewall { FIREWALL } else { HTML }, Some(visit));
            return Fate::Now(response(status, "text/html; charset=UTF-8", HeaderMap::new(), body));
        }
        visit.reply(None, Some(fault.kind));
        if fault.kind == FaultKind::Silent { Fate::Silent(visit) } else { Fate::Reset }
    }

    fn refuse(
        &self,
        mut visit: Visit,
        trouble: &Trouble,
        fault: Option<FaultKind>,
        standing: &Standing,
    ) -> Response<Body> {
        let (status, body) = reply::error(self.vendor, trouble, self.serial);
        visit.reply(Some(status), fault);
        let mut headers = HeaderMap::with_capacity(16);
        self.add_headers(&mut headers, standing);
        reply::add_retry_after(&mut headers, self.vendor, trouble);
        response(status, JSON, headers, Body::whole(body, Some(visit)))
    }

    fn add_headers(&self, headers: &mut HeaderMap, standing: &Standing) {
        reply::add_headers(self.vendor, headers, self.serial);
        if self.settings.headers && standing.iter().any(Option::is_some) {
            match self.settings.gateway {
                Some(gateway) => {
                    gateway::add_standing(gateway, self.settings.limits.bucket, headers, standing);
                }
                None => reply::add_standing(self.vendor, headers, standing, self.clock()),
            }
        }
        if !self.settings.clock_ahead.is_zero() {
            reply::add_date(headers, self.clock());
        }
    }

    /// Returns what the vendor's clock shows.
    fn clock(&self) -> Timestamp {
        crate::clock::now().saturating_add(self.settings.clock_ahead).unwrap_or(Timestamp::MAX)
    }

    fn latency(&self) -> Duration {
        self.settings.latency.draw(&mut self.draws.stream(Purpose::Latency))
    }

    fn whole(&self, visit: Visit, headers: HeaderMap, body: Vec<u8>, fault: Option<&Fault>) -> Fate {
        let length = Some(body.len() as u64);
        let half = || Bytes::copy_from_slice(&body[..body.len() / 2]);
        let mut latency = self.latency();
        let body = match fault.map(|fault| fault.kind) {
            Some(FaultKind::Cut) => Body::script(vec![Step::Send(half()), Step::Break], length, visit),
            Some(FaultKind::Stalled) => Body::script(vec![Step::Send(half()), Step::Hang], length, visit),
            Some(FaultKind::TruncatedJson) => Body::whole(half(), Some(visit)),
            Some(FaultKind::MalformedChunk) => {
                let mut broken = body;
                if let Some(last) = broken.last_mut() {
                    *last = b',';
                }
                Body::whole(broken, Some(visit))
            }
            Some(FaultKind::ErrorInStream) => Body::whole(
                reply::error(self.vendor, &Trouble::Server { status: 500 }, self.serial).1,
                Some(visit),
            ),
            Some(FaultKind::SlowFirstToken) => {
                latency += slow(fault);
                Body::whole(body, Some(visit))
            }
            _ => Body::whole(body, Some(visit)),
        };
        self.after(latency, response(200, JSON, headers, body))
    }

    fn after(&self, wait: Duration, response: Response<Body>) -> Fate {
        if wait.is_zero() { Fate::Now(response) } else { Fate::Later(self.now + wait, response) }
    }

    fn events(&self, reply: &Reply<'_>, usage: bool, fault: Option<&Fault>) -> super::events::Events {
        let pieces = usize::try_from(self.settings.chunks.get()).unwrap_or(usize::MAX);
        let mut events = reply::events(self.vendor, reply, pieces, usage);
        match fault.map(|fault| fault.kind) {
            Some(FaultKind::NoEnd) => events.drop_end(),
            Some(FaultKind::MalformedChunk) => events.break_json(reply::line_end(self.vendor)),
            Some(FaultKind::ErrorInStream) => events.end_with(&reply::error_event(self.vendor, self.serial)),
            _ => {}
        }
        events
    }

    fn stream(
        &self,
        visit: Visit,
        headers: HeaderMap,
        reply: &Reply<'_>,
        usage: bool,
        fault: Option<&Fault>,
    ) -> Fate {
        let mut events = self.events(reply, usage, fault);
        let end = match fault.map(|fault| fault.kind) {
            Some(FaultKind::Cut) => Some(Step::Break),
            Some(FaultKind::Stalled) => Some(Step::Hang),
            _ => None,
        };
        if end.is_some() {
            events.cut(matches!(end, Some(Step::Break)));
        }
        let (slow, latency) = (slow(fault), self.latency());
        if latency.is_zero() && end.is_none() && slow.is_zero() {
            let body = Body::stream(events.into_bytes(), visit);
            return Fate::Now(response(200, EVENTS, headers, body));
        }
        // Status and headers leave with the first piece, as at a vendor, and tell how the limits stood when
        // the call was admitted; a slow first token lets them leave alone, at once.
        let first = self.settings.first_token.of(latency);
        let parts = events.into_parts();
        let apart = (latency - first) / u32::try_from(parts.len().max(2) - 1).unwrap_or(u32::MAX);
        let begin = self.now + slow + first;
        let mut steps = Vec::with_capacity(parts.len() * 2 + 1);
        for (at, part) in (0u32..).zip(parts) {
            if at > 0 || !slow.is_zero() {
                steps.push(Step::Until(begin + apart * at));
            }
            steps.push(Step::Send(part));
        }
        steps.extend(end);
        let response = response(200, EVENTS, headers, Body::script(steps, None, visit));
        self.after(if slow.is_zero() { first } else { Duration::ZERO }, response)
    }
}

/// Returns how late a fault makes the first piece.
fn slow(fault: Option<&Fault>) -> Duration {
    let slow = fault.filter(|fault| fault.kind == FaultKind::SlowFirstToken);
    slow.map_or(Duration::ZERO, |fault| fault.delay.unwrap_or(SLOW).min(SLOW * 1_000))
}

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream; charset=utf-8";

/// Makes a response.
pub(super) fn response(status: u16, kind: &'static str, headers: HeaderMap, body: Body) -> Response<Body> {
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
