//! Answers `POST /summary` inside an actix-web app; Pointsman finds the provider, paces and fails over.
//!
//! ```sh
//! cargo run --example embed
//! curl --json '{"text": "The points froze at six; trains ran an hour late."}' localhost:8080/summary
//! ```
//!
//! The text may come plain, too. Ctrl-C lets the questions under way end first.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{App, HttpMessage, HttpRequest, HttpResponse, HttpServer, web};
use pointsman::router::Ask;
use pointsman::types::{Asker, Class, Priority, Prompt};
use pointsman::{Config, Pointsman};
use serde_json::{Value, json};
use tokio::signal::{ctrl_c, unix};
use tokio::time::Instant;

const PATIENCE: Duration = Duration::from_secs(30); // of a client

pub(crate) async fn summary(to: web::Data<Pointsman>, head: HttpRequest, body: web::Bytes) -> HttpResponse {
    let text = match head.content_type() {
        "application/json" => {
            serde_json::from_slice(&body).ok().and_then(|body: Value| Some(body["text"].as_str()?.to_owned()))
        }
        _ => String::from_utf8(body.into()).ok(),
    };
    let Some(text) = text.filter(|text| !text.trim().is_empty()) else {
        let message = "send a text, plain or as JSON like {\"text\": \"...\"}";
        return refuse(StatusCode::BAD_REQUEST, "bad_request", message);
    };
    let system = Some("Summarise the text in one sentence, in its own language.".into());
    let prompt = Prompt { system, max_tokens: Some(500), ..Prompt::text(text) }.into();
    let (priority, deadline) = (Priority::Interactive, Instant::now() + PATIENCE);
    match to
        .send(Ask {
            prompt,
            route: "default".into(),
            priority,
            asker: Asker::default(),
            deadline,
            counts: None,
            purse: None,
            held: pointsman::guard::HeldMemory::default(),
            stop: None,
        })
        .await
    {
        Ok(answer) => HttpResponse::Ok()
            .json(json!({ "summary": answer.reply.text, "lane": answer.lane, "practice": answer.practice })),
        Err(why) => refuse(status(why.failure.class), why.failure.class.as_str(), &why.failure.message),
    }
}

/// No `_` arm: a new class does not compile until someone has decided.
fn status(class: Class) -> StatusCode {
    use Class::*;
    match class {
        RateLimit => StatusCode::TOO_MANY_REQUESTS,
        Quota | Budget | Overloaded | Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        Timeout | Deadline => StatusCode::GATEWAY_TIMEOUT,
        TooLong | ContentFilter | ValidationError | TemplateError => StatusCode::UNPROCESSABLE_ENTITY,
        ServerError | NetworkError | Unreadable | Truncated => StatusCode::BAD_GATEWAY,
        // Ours to mend, not the client's: our key, our model, our request.
        Auth | NotFound | ApiError => StatusCode::BAD_GATEWAY,
        Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn refuse(status: StatusCode, class: &str, message: &str) -> HttpResponse {
    HttpResponse::build(status).json(json!({ "error": { "class": class, "message": message } }))
}

#[expect(clippy::print_stderr, reason = "a program that says where it listens")]
#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    let pointsman = Pointsman::start(&Config::load(None, &|name| std::env::var(name).ok())?)?;
    pointsman.notes().iter().for_each(|note| eprintln!("{note}"));
    eprintln!("POST /summary is answered at http://127.0.0.1:8080");
    let data = web::Data::new(pointsman.clone());
    let app = move || App::new().app_data(data.clone()).route("/summary", web::post().to(summary));
    // By itself actix-web drops what is under way at a Ctrl-C.
    let mut terminate = unix::signal(unix::SignalKind::terminate())?;
    let stop = async move { tokio::select!(_ = ctrl_c() => {}, _ = terminate.recv() => {}) };
    // Returns when it was told to stop and the last response is out.
    let server = HttpServer::new(app).shutdown_timeout(PATIENCE.as_secs()).shutdown_signal(stop);
    server.bind("127.0.0.1:8080")?.run().await?;
    pointsman.drain(Instant::now() + PATIENCE).await;
    Ok(())
}
