//! `/requests`: sends one prompt to a route.

use std::collections::VecDeque;
use std::time::Duration;

use actix_web::web::{Bytes, Data, Payload, ServiceConfig};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::daemon::{Answer, NewRequest};
use crate::router::{Request, ResponseStream};
use crate::server::access::Requester;
use crate::server::access_log::{LogFields, log_stream_end};
use crate::server::api_state::ApiState;
use crate::server::body;
use crate::server::problem::Problem;
use crate::server::request_id;
use crate::server::sse;
use crate::telemetry::TraceContext;
use crate::types::{RequestError, StreamEvent};

use super::problems::{BodyProblems, Problems};

/// How long a stream waits for its first event, so that a failure before it is answered with its status.
const MAX_STATUS_WAIT: Duration = Duration::from_secs(5);

/// How often an idle stream is kept alive.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);

/// Adds the routes.
pub(super) fn configure(app: &mut ServiceConfig) {
    app.service(web::resource("/requests").route(web::post().to(send)));
}

/// Sends a request, and returns its answer.
///
/// With `"stream": true` the answer is an event stream: `started` (`target`), `text` and `reasoning` (`text`), `tool_call`
/// (`index`, `id`, `name`, `arguments`), `usage`, and at the end `finished` with the whole answer, or `error` with a problem.
/// An answer without `finished` is not complete. A failure before the first event has the status of its class. Closing the
/// connection cancels the request.
#[utoipa::path(
    post,
    path = "/api/v1/requests",
    tag = "requests",
    operation_id = "send_request",
    params(("traceparent" = Option<String>, Header, description = "The trace context of the caller.")),
    request_body(content = NewRequest, content_type = "application/json"),
    responses(
        (status = 200, description = "The answer, or its event stream.",
            content((Answer = "application/json"), (String = "text/event-stream"))),
        (status = 422, description = "The answer was filtered, cut or not valid.", body = Problem,
            content_type = "application/problem+json"),
        (status = 502, description = "The providers failed.", body = Problem,
            content_type = "application/problem+json"),
        (status = 504, description = "No target answered in time.", body = Problem,
            content_type = "application/problem+json"),
        Problems,
        BodyProblems,
    ),
)]
pub(super) async fn send(
    Requester(caller): Requester,
    http: HttpRequest,
    state: Data<ApiState>,
    payload: Payload,
) -> Result<HttpResponse, Problem> {
    let new: NewRequest = body::json(&http, payload, &state).await?;
    let is_streamed = new.stream;
    let request = new.into_request(&state.daemon.config());
    let request = request.map_err(|error| Problem::bad_request(error.to_string()))?;
    let request = traced(request, &http);
    if is_streamed {
        return respond_with_stream(state.daemon.stream(request, &caller)).await;
    }
    let response = state.daemon.send(request, &caller).await;
    let response = response.map_err(|error| Problem::of_request(&error))?;
    http.extensions_mut().insert(LogFields::of(&response));
    Ok(HttpResponse::Ok().json(Answer::of(response)))
}

/// Gives the request its place in the trace of the caller. A trace context that is not valid is not used, as the W3C
/// demands.
fn traced(request: Request, http: &HttpRequest) -> Request {
    let header = |name: &str| http.headers().get(name).and_then(|value| value.to_str().ok());
    let Some(context) = header("traceparent").and_then(|text| TraceContext::parse(text).ok()) else {
        return request;
    };
    request.with_trace(match header("tracestate") {
        Some(state) => context.with_state(state),
        None => context,
    })
}

async fn respond_with_stream(mut events: ResponseStream) -> Result<HttpResponse, Problem> {
    let first = timeout(MAX_STATUS_WAIT, events.next()).await;
    let mut forwarded =
        Forwarded { events, frames: VecDeque::new(), has_ended: false, request_id: request_id::current() };
    match first {
        Ok(Some(Err(error))) => return Err(Problem::of_request(&error)),
        Ok(event) => forwarded.take(event),
        // It may take long until a provider admits the request.
        Err(_) => {}
    }
    Ok(sse::response(forwarded.into_stream()))
}

/// A stream of events on its way to the caller. Dropping it cancels the request.
struct Forwarded {
    events: ResponseStream,
    frames: VecDeque<Bytes>,
    has_ended: bool,
    request_id: String,
}

impl Forwarded {
    fn into_stream(self) -> impl Stream<Item = Bytes> {
        stream::unfold(self, |mut forwarded| async move {
            loop {
                if let Some(frame) = forwarded.frames.pop_front() {
                    return Some((frame, forwarded));
                }
                if forwarded.has_ended {
                    return None;
                }
                match timeout(KEEP_ALIVE_INTERVAL, forwarded.events.next()).await {
                    Ok(event) => forwarded.take(event),
                    Err(_) => return Some((sse::KEEP_ALIVE, forwarded)),
                }
            }
        })
    }

    fn take(&mut self, event: Option<Result<StreamEvent, Box<RequestError>>>) {
        match event {
            None => self.has_ended = true,
            Some(Err(error)) => {
                let mut problem = Problem::of_request(&error);
                // The stream is polled outside of the request that began it.
                problem.request_id = self.request_id.as_str().into();
                self.push("error", &serde_json::to_value(problem).unwrap_or_default());
                self.has_ended = true;
            }
            Some(Ok(StreamEvent::Started { target })) => {
                self.push("started", &json!({ "target": target.to_string() }));
            }
            Some(Ok(StreamEvent::Text(text))) => self.push("text", &json!({ "text": text })),
            Some(Ok(StreamEvent::Reasoning(text))) => self.push("reasoning", &json!({ "text": text })),
            Some(Ok(StreamEvent::ToolCall(delta))) => {
                let call = json!({
                    "index": delta.index,
                    "id": delta.id,
                    "name": delta.name,
                    "arguments": delta.arguments,
                });
                self.push("tool_call", &call);
            }
            Some(Ok(StreamEvent::Finished(response))) => {
                log_stream_end(&self.request_id, &LogFields::of(&response));
                if let Some(usage) = response.completion.usage {
                    self.push("usage", &json!(usage));
                }
                self.push("finished", &json!(Answer::of(*response)));
                self.has_ended = true;
            }
        }
    }

    fn push(&mut self, event: &str, data: &Value) {
        self.frames.push_back(sse::frame(None, event, &data.to_string()));
    }
}
