//! One call over the wire: out with the request, in with the stream, under four clocks.
//!
//! Decides nothing about what comes next, and never gives a reply whose end mark did not come.

use std::borrow::Cow;
use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt};
use tokio::runtime::Handle;
use tokio::task::{consume_budget, yield_now};
use tokio::time::{Instant, timeout, timeout_at};

use crate::chaos;
use crate::types::{Cause, Class, Failure, Priority, Prompt, Reply};
use crate::wire::{Decoder, Dialect, Format, LeftOut, Progress, without_echo};

use super::call::Call;
use super::clocks::Clocks;
use super::events::Events;
use super::key::ReadyKey;
use super::model::Model;
use super::outlet::Outlet;
use super::permit::Permit;
use super::redirect;
use super::reply_limit::ReplyLimit;
use super::state::State;
use super::transport::Response;
use super::usage_bounds::UsageBounds;

/// How long the body of a refusal is waited for: its status says most of what there is to know.
const REFUSAL: Duration = Duration::from_secs(1);

/// How often a call lets others have their turn before it waits for the end of a stream after its end mark.
/// Mostly the end has come with the mark, and the connection's own task has only to pass it on; an alarm as
/// near as `LINGER` wakes a thread each time.
const TURNS: usize = 2;

/// How long a call then waits for it, so that the next call finds the connection free.
const LINGER: Duration = Duration::from_millis(3);

/// How long somebody else then waits for it, so that the connection can be used again after all.
const LINGER_APART: Duration = Duration::from_secs(1);

/// How long more is waited for after what may be the last event of an answer. A server that closes its streams takes a
/// fraction of it, and one that goes on has its next event ready within it.
const REST: Duration = Duration::from_secs(5);

/// The body of a response, unpacked.
trait Pieces: Stream<Item = Result<Bytes, Failure>> + Unpin + Send + 'static {}

impl<T: Stream<Item = Result<Bytes, Failure>> + Unpin + Send + 'static> Pieces for T {}

/// What was asked, and in which format.
struct Asked<'a> {
    format: Format,
    prompt: &'a Prompt,
    dialect: &'a Dialect,
}

impl Asked<'_> {
    fn decoder(&self) -> Decoder {
        self.format.decoder(self.prompt, self.dialect)
    }

    /// Classifies a failure by what its `source` says without the words of the request, where it repeats them: those may
    /// change no other request. Its message stays.
    fn apart(&self, failure: Failure, source: &[u8], read: impl FnOnce(&[u8]) -> Option<Failure>) -> Failure {
        match without_echo(source, self.prompt).and_then(|rest| read(&rest)) {
            Some(apart) => Failure { message: failure.message, text: failure.text, ..apart },
            None => failure,
        }
    }

    /// The same for an event of a stream.
    fn event_apart(&self, failure: Failure, name: Option<&str>, data: &str) -> Failure {
        let (usage, charged) = (failure.usage.clone(), failure.charged);
        let failure = self.apart(failure, data.as_bytes(), |rest| {
            self.decoder().event(name, str::from_utf8(rest).ok()?).err()
        });
        Failure { usage, charged, ..failure }
    }
}

/// What a call brought.
pub(super) struct Exchanged {
    pub(super) result: Result<Reply, Failure>,
    pub(super) first_token: Option<Duration>,
    /// What the request had left out.
    pub(super) left_out: LeftOut,
}

/// Makes `call` to `model` with `key`.
pub(super) async fn exchange(
    state: &State,
    outlet: &Outlet,
    call: &Call,
    model: &Model,
    key: &ReadyKey,
    permit: &Permit,
) -> Exchanged {
    let (settings, transport) = (state.settings(), &outlet.transport);
    let mut clocks = Clocks::start(&settings.timeouts, call.deadline, Instant::now());
    let left_out = state.left_out(&call.model);
    let prompt = with_defaults(&call.prompt, model, left_out);
    let dialect = left_out.dialect(&settings.dialect);
    let asked = Asked { format: settings.format, prompt: &prompt, dialect: &dialect };
    let mut bounds = None;
    let mut limit =
        ReplyLimit::new(call.held.reply(call.priority == Priority::Batch), call.departure.as_deref());
    let mut result = async {
        chaos::point("call.encode");
        let format = settings.format;
        let request = format.encode(&prompt, &model.name, state.base_url(), &dialect)?;
        bounds = Some(UsageBounds::new(&prompt, format, request.body.len()));
        chaos::point("call.send");
        let path = request.path.clone();
        let mut response = clocks.wait(transport.post(request, key.header())).await??;
        chaos::point("call.headers");
        state.silence.ended(clocks.elapsed());
        call.departure.iter().for_each(|departure| departure.had_word());
        let hints = format.read_hints(&response.headers, SystemTime::now());
        permit.heard(&hints, response.is_success());
        if !response.is_success() {
            let redirect = redirect::failure(response.status, &response.headers, state.base_url(), &path);
            let Some(redirect) = redirect else {
                return Err(read_error(&asked, response, &mut clocks).await);
            };
            return Err(redirect);
        }
        let (request_id, media_type) = (response.request_id(), response.media_type());
        let is_event_stream = media_type == "text/event-stream";
        let headers = std::mem::take(&mut response.headers);
        let reply = match media_type.as_str() {
            "text/html" => Err(html(response, &mut clocks).await),
            "application/json" => read_whole(&asked, response.stream(), &mut clocks, &mut limit).await,
            _ => read_stream(&asked, response.stream(), (&mut clocks, &mut limit), &outlet.runtime).await,
        };
        let mut reply = reply.map_err(|mut failure| {
            // What comes as a stream of events is an API's, broken or not.
            failure.cause = failure.cause.filter(|cause| *cause != Cause::NoApi || !is_event_stream);
            format.complete(failure, &headers, SystemTime::now())
        })?;
        // What the provider's support asks for; the body's id names the answer.
        reply.request_id = request_id.or(reply.request_id);
        limit.hold_answer(&reply.text, &prompt.shape, &mut clocks).await;
        Ok(reply)
    }
    .await;
    if let Some(bounds) = bounds {
        bounds.apply(&mut result);
    }
    match &mut result {
        Ok(reply) => {
            key.cover_reply(reply);
            transport.cover_reply(reply);
        }
        Err(failure) => {
            key.cover(failure);
            transport.cover(failure);
            if failure.class == Class::Auth && key.header().is_none() {
                failure.message = format!("{} (no key is configured for it)", failure.message).into();
                failure.cause = Some(Cause::NoKeyConfigured);
            }
        }
    }
    limit.end(&result);
    Exchanged { result, first_token: clocks.first_token(), left_out }
}

/// Fills in what the model's own settings say where the prompt says nothing, and leaves out what it refused.
fn with_defaults<'a>(prompt: &'a Prompt, model: &Model, left_out: LeftOut) -> Cow<'a, Prompt> {
    let max_tokens = prompt.max_tokens.or(model.max_tokens.map(NonZeroU32::get));
    let temperature = prompt.temperature.or(model.temperature);
    let temperature = temperature.filter(|_| !left_out.leaves_out_temperature());
    if (max_tokens, temperature) == (prompt.max_tokens, prompt.temperature) {
        return Cow::Borrowed(prompt);
    }
    Cow::Owned(Prompt { max_tokens, temperature, ..prompt.clone() })
}

async fn read_error(asked: &Asked<'_>, response: Response, clocks: &mut Clocks<'_>) -> Failure {
    let (status, headers) = (response.status, response.headers.clone());
    let body = clocks.wait(response.error_body(REFUSAL)).await.unwrap_or_default();
    let read = |body: &[u8]| asked.format.read_error(status, &headers, body, SystemTime::now());
    asked.apart(read(&body), &body, |rest| Some(read(rest)))
}

async fn html(response: Response, clocks: &mut Clocks<'_>) -> Failure {
    let body = clocks.wait(response.error_body(REFUSAL)).await.unwrap_or_default();
    let start: String = String::from_utf8_lossy(&body).chars().take(80).collect();
    let message = format!("a web page came instead of an answer: {start}");
    Failure::new(Class::Unreadable, message).because(Cause::NoApi).maybe_charged()
}

async fn read_whole(
    asked: &Asked<'_>,
    mut pieces: impl Pieces,
    clocks: &mut Clocks<'_>,
    limit: &mut ReplyLimit<'_>,
) -> Result<Reply, Failure> {
    let mut body = Vec::new();
    let mut decoder = asked.decoder();
    while let Some(piece) = clocks.wait(pieces.next()).await? {
        clocks.answering(Instant::now());
        let piece = piece?;
        limit.hold(body.len() + piece.len(), clocks).await?;
        body.extend_from_slice(&piece);
        consume_budget().await;
    }
    let read = decoder.whole(&body);
    read.map_err(|failure| asked.apart(failure, &body, |rest| asked.decoder().whole(rest).err()))?;
    decoder.finish()
}

/// A small body can unpack to very many events: other calls get their turn between them, and the clocks are looked at
/// for each piece, whether one has to be waited for or not.
async fn read_stream(
    asked: &Asked<'_>,
    mut pieces: impl Pieces,
    (clocks, limit): (&mut Clocks<'_>, &mut ReplyLimit<'_>),
    runtime: &Handle,
) -> Result<Reply, Failure> {
    let mut decoder = asked.decoder();
    let mut events = Events::default();
    // Until when the end of the body is waited for, once the answer may be complete.
    let mut rest = None;
    loop {
        let piece = clocks.wait(pieces.next());
        let piece = match rest {
            None => piece.await?,
            Some(until) => {
                let waited = timeout_at(until, piece).await;
                // A connection that stays open keeps no complete answer back.
                let Ok(Ok(piece)) = waited else { break };
                piece
            }
        };
        let Some(piece) = piece else { break };
        events.add(piece?)?;
        consume_budget().await;
        let waited = limit.hold(events.held_bytes() + decoder.held_bytes(), clocks).await?;
        rest = rest.map(|rest| rest + waited);
        while let Some(event) = events.next()? {
            consume_budget().await;
            chaos::point("call.piece");
            let Some(data) = &event.data else {
                events.waited()?;
                continue;
            };
            let name = event.event.as_deref();
            match decoder.event(name, data).map_err(|failure| asked.event_apart(failure, name, data))? {
                Progress::Waiting => events.waited()?,
                Progress::Answering => {
                    rest = None;
                    clocks.answering(Instant::now());
                    events.answered();
                }
                Progress::Complete => {
                    clocks.answering(Instant::now());
                    events.answered();
                    rest = Some(Instant::now() + REST);
                }
                Progress::Ended => {
                    linger(pieces, runtime).await;
                    return decoder.finish();
                }
            }
        }
    }
    // The last event needs no empty line after it: the end of the body ends it, too. Half an event is `unreadable`.
    events.end()?;
    while let Some(event) = events.next()? {
        if let Some(data) = &event.data {
            let name = event.event.as_deref();
            decoder.event(name, data).map_err(|failure| asked.event_apart(failure, name, data))?;
        }
    }
    // Some formats have no mark but the last event's own words: the decoder knows.
    decoder.finish()
}

/// Waits for the end of the stream; whether it comes changes only whether the connection is used again.
async fn linger(mut pieces: impl Pieces, runtime: &Handle) {
    for _ in 0..TURNS {
        if pieces.next().now_or_never().is_some() {
            return;
        }
        yield_now().await;
    }
    if timeout(LINGER, pieces.next()).await.is_err() {
        // The answer is there: nobody has to wait for a server that takes its time to say so.
        drop(runtime.spawn(async move { drop(timeout(LINGER_APART, pieces.next()).await) }));
    }
}

#[cfg(test)]
mod tests;
