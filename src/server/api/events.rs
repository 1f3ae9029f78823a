//! `/events` and `/runs/{run}/events`: what happens, as event streams.
//!
//! A stream begins with the number of the last event, so that a client that reconnects gets what it has missed. If some of
//! that is not remembered any more, a frame `reset` says that the client has to read the present state.

use std::time::Duration;

use actix_web::http::header::HeaderName;
use actix_web::web::{self, Bytes, Data, Path, ServiceConfig};
use actix_web::{HttpRequest, HttpResponse};
use futures_util::stream::{self, Stream, StreamExt};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::daemon::{Event, EventUpdate, EventWatch, RunUpdate, RunWatch};
use crate::server::access::{Reader, Viewer};
use crate::server::api_state::ApiState;
use crate::server::problem::Problem;
use crate::server::sse::{self, KEEP_ALIVE};
use crate::store::RunNumber;

use super::problems::Problems;

/// How often an idle stream sends something.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// The header with the number of the last event that a client has.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The beginning of the last frame of a run. A browser that does not close the stream does not come again soon.
const END_HEAD: &str = "retry: 86400000\nevent: end\ndata: ";

/// Adds the routes.
pub(super) fn configure(app: &mut ServiceConfig) {
    app.service(web::resource("/events").route(web::get().to(all)))
        .service(web::resource("/runs/{run}/events").route(web::get().to(of_run)));
}

/// Streams all events: `run_created`, `run_ended`, `provider_changed` and others.
///
/// After `reset`, read everything again: some events were missed.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    tag = "events",
    operation_id = "watch_events",
    params(
        ("Last-Event-ID" = Option<u64>, Header, description = "The number of the last event that the caller has."),
    ),
    responses(
        (status = 200, description = "The stream.", body = String, content_type = "text/event-stream"),
        Problems,
    ),
)]
pub(super) async fn all(
    _: Reader,
    request: HttpRequest,
    state: Data<ApiState>,
) -> Result<HttpResponse, Problem> {
    let watch = state.daemon.watch_events(last_event(&request)?);
    let start = sse::start(watch.position());
    Ok(sse::response(stream::once(async move { start }).chain(event_frames(watch))))
}

/// Streams a run: `run` with its view when it changes, its events, and `end` with its report.
///
/// After `reset`, read the run again: some events were missed.
#[utoipa::path(
    get,
    path = "/api/v1/runs/{run}/events",
    tag = "events",
    operation_id = "watch_run",
    params(
        ("run" = i64, Path, description = "The number of the run."),
        ("Last-Event-ID" = Option<u64>, Header, description = "The number of the last event that the caller has."),
    ),
    responses(
        (status = 200, description = "The stream.", body = String, content_type = "text/event-stream"),
        (status = 404, description = "There is no such run.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
    ),
)]
pub(super) async fn of_run(
    Viewer(caller): Viewer,
    request: HttpRequest,
    state: Data<ApiState>,
    run: Path<i64>,
) -> Result<HttpResponse, Problem> {
    let last = last_event(&request)?;
    let watch = state.daemon.watch_run(RunNumber(run.into_inner()), last, &caller).await?;
    let start = sse::start(watch.position());
    Ok(sse::response(stream::once(async move { start }).chain(run_frames(watch))))
}

fn last_event(request: &HttpRequest) -> Result<Option<u64>, Problem> {
    let Some(value) = request.headers().get(LAST_EVENT_ID) else { return Ok(None) };
    let number = value.to_str().ok().and_then(|number| number.trim().parse().ok());
    let wrong = || Problem::bad_request("`Last-Event-ID` is the number of an event of this stream");
    number.map(Some).ok_or_else(wrong)
}

fn keep_alive() -> Interval {
    let mut ticks = interval_at(Instant::now() + KEEP_ALIVE_INTERVAL, KEEP_ALIVE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

fn event_frames(watch: EventWatch) -> impl Stream<Item = Bytes> {
    stream::unfold((watch, keep_alive()), |(mut watch, mut ticks)| async move {
        let frame = tokio::select! {
            update = watch.next() => match update? {
                EventUpdate::Reset => reset(),
                EventUpdate::Event(event) => event_frame(&event),
            },
            _ = ticks.tick() => KEEP_ALIVE,
        };
        Some((frame, (watch, ticks)))
    })
}

/// The frames of a run. Those that many watchers get are shared and are not copied into one piece.
fn run_frames(watch: RunWatch) -> impl Stream<Item = Bytes> {
    let frames = stream::unfold((watch, keep_alive()), |(mut watch, mut ticks)| async move {
        let frame = tokio::select! {
            update = watch.next() => match update? {
                RunUpdate::Reset => [reset(), Bytes::new(), Bytes::new()],
                RunUpdate::View(view) => sse::shared_frame("event: run\ndata: ", view),
                RunUpdate::Event(event) => [event_frame(&event), Bytes::new(), Bytes::new()],
                RunUpdate::End(report) => sse::shared_frame(END_HEAD, report),
            },
            _ = ticks.tick() => [KEEP_ALIVE, Bytes::new(), Bytes::new()],
        };
        Some((frame, (watch, ticks)))
    });
    // An empty piece would end the body.
    frames.flat_map(stream::iter).filter(|piece| std::future::ready(!piece.is_empty()))
}

fn reset() -> Bytes {
    sse::frame(None, "reset", "{}")
}

fn event_frame(event: &Event) -> Bytes {
    let data = serde_json::to_string(event).unwrap_or_default();
    sse::frame(Some(event.number), event.kind.as_str(), &data)
}
