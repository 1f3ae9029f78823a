//! Handles `POST /summary` in an actix-web app. Pointsman selects the provider, applies its limits and fails over.
//!
//! ```sh
//! cargo run --example embed
//! curl --json '{"text": "The points froze at six; trains ran an hour late."}' localhost:8080/summary
//! ```
//!
//! The text may also be plain. After Ctrl-C, requests in flight are completed before the program exits.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{App, HttpMessage, HttpRequest, HttpResponse, HttpServer, web};
use pointsman::router::Request;
use pointsman::types::{Class, Priority, Prompt, RequestContext};
use pointsman::{Config, Pointsman};
use serde_json::{Value, json};
use tokio::signal::{ctrl_c, unix};
use tokio::time::Instant;

/// Deadline of a request, and maximum duration of the shutdown.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) async fn summary(
    pointsman: web::Data<Pointsman>,
    request: HttpRequest,
    body: web::Bytes,
) -> HttpResponse {
    let text = match request.content_type() {
        "application/json" => {
            serde_json::from_slice(&body).ok().and_then(|body: Value| Some(body["text"].as_str()?.to_owned()))
        }
        _ => String::from_utf8(body.into()).ok(),
    };
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else {
        let message = "send a text, plain or as JSON like {\"text\": \"...\"}";
        return error_response(StatusCode::BAD_REQUEST, "bad_request", message);
    };
    let system = Some("Summarise the text in one sentence, in its own language.".into());
    let prompt = Prompt { system, max_tokens: Some(500), ..Prompt::text(text) }.into();
    let deadline = Instant::now() + REQUEST_TIMEOUT;
    match pointsman
        .send(Request {
            prompt,
            route: "default".into(),
            priority: Priority::Interactive,
            context: RequestContext::default(),
            deadline,
            counts: None,
            budget: None,
            memory: pointsman::guard::HeldMemory::default(),
            stop: None,
        })
        .await
    {
        Ok(response) => HttpResponse::Ok()
            .json(json!({ "summary": response.completion.text, "target": response.target, "simulated": response.simulated })),
        Err(error) => error_response(status(error.failure.class), error.failure.class.as_str(), &error.failure.message),
    }
}

/// Returns the status for an error class. There is no `_` arm, so a new class is a compile error.
fn status(class: Class) -> StatusCode {
    use Class::*;
    match class {
        RateLimit => StatusCode::TOO_MANY_REQUESTS,
        Quota | Budget | Overloaded | Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        Timeout | Deadline => StatusCode::GATEWAY_TIMEOUT,
        TooLong | ContentFilter | ValidationError | TemplateError => StatusCode::UNPROCESSABLE_ENTITY,
        ServerError | NetworkError | Unreadable | Truncated => StatusCode::BAD_GATEWAY,
        // Errors of this server, not of the client: its key, its model or its request.
        Auth | NotFound | ApiError => StatusCode::BAD_GATEWAY,
        Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn error_response(status: StatusCode, class: &str, message: &str) -> HttpResponse {
    HttpResponse::build(status).json(json!({ "error": { "class": class, "message": message } }))
}

#[expect(clippy::print_stderr, reason = "prints the address on which it listens")]
#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    let pointsman = Pointsman::start(&Config::load(None, &|name| std::env::var(name).ok())?)?;
    pointsman.notes().iter().for_each(|note| eprintln!("{note}"));
    eprintln!("POST /summary is answered at http://127.0.0.1:8080");
    let data = web::Data::new(pointsman.clone());
    let app = move || App::new().app_data(data.clone()).route("/summary", web::post().to(summary));
    // By default actix-web drops requests in flight on Ctrl-C.
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
    let stop = async move { tokio::select!(_ = ctrl_c() => {}, _ = terminate.recv() => {}) };
    // Returns after the shutdown signal, when the last response is sent.
    let server = HttpServer::new(app).shutdown_timeout(REQUEST_TIMEOUT.as_secs()).shutdown_signal(stop);
    server.bind("127.0.0.1:8080")?.run().await?;
    pointsman.drain(Instant::now() + REQUEST_TIMEOUT).await;
    Ok(())
}
