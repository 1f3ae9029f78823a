//! `POST /summary` with plain text or JSON, in an actix-web app. Pointsman applies limits and fails over.
//!
//! ```sh
//! cargo run --example embed
//! curl --json '{"text": "The points froze at six; trains ran an hour late."}' localhost:8080/summary
//! ```
use std::time::Duration;

use actix_web::web::{Bytes, Data, post};
use actix_web::{App, HttpMessage, HttpRequest, HttpResponse, HttpServer, http::StatusCode};
use pointsman::{Class, Config, Pointsman, Prompt, Request, RouterHandle};
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(30);
const SYSTEM: &str = "Summarize the text in one sentence, in its own language.";

pub(crate) async fn summary(router: Data<RouterHandle>, http: HttpRequest, body: Bytes) -> HttpResponse {
    let text = match http.content_type() {
        "application/json" => serde_json::from_slice(&body).ok().map(|body: Value| body["text"].clone()),
        _ => String::from_utf8(body.into()).ok().map(Value::from),
    };
    let Some(text) = text.as_ref().and_then(Value::as_str).filter(|text| !text.trim().is_empty()) else {
        return failed(StatusCode::BAD_REQUEST, "bad_request", "send a text");
    };
    let prompt = Prompt::text(text).with_system(SYSTEM).with_max_tokens(500);
    let response = match router.send(Request::new("default", prompt).with_deadline(TIMEOUT)).await {
        Ok(response) => response,
        Err(error) => return failed(status(error.class()), error.class().as_str(), &error.failure.message),
    };
    HttpResponse::Ok().json(json!({
        "summary": response.text(), "target": response.target, "simulated": response.simulated
    }))
}

fn failed(status: StatusCode, class: &str, message: &str) -> HttpResponse {
    HttpResponse::build(status).json(json!({ "error": { "class": class, "message": message } }))
}

fn status(class: Class) -> StatusCode {
    match class {
        Class::RateLimit => StatusCode::TOO_MANY_REQUESTS,
        Class::Timeout | Class::Deadline => StatusCode::GATEWAY_TIMEOUT,
        Class::TooLong | Class::ContentFilter => StatusCode::UNPROCESSABLE_ENTITY,
        Class::Auth | Class::NotFound | Class::ServerError => StatusCode::BAD_GATEWAY,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    }
}

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    let pointsman = Pointsman::start(&Config::load()?).await?;
    let router = Data::new(pointsman.router());
    let app = move || App::new().app_data(router.clone()).route("/summary", post().to(summary));
    // After SIGTERM, requests in flight are completed. After Ctrl-C, actix-web drops them.
    HttpServer::new(app).bind("127.0.0.1:8080")?.run().await?;
    pointsman.drain(TIMEOUT).await;
    Ok(())
}
