//! An actix-web app with requests to models, and with the daemon below `/llm`.
//!
//! - `POST /summary` with plain text or JSON sends a request. Pointsman applies limits and fails over.
//! - `POST /title` with plain text asks an actor of this app, which sends a request.
//! - Below `/llm` is the API of the daemon, with runs that survive a restart. A middleware of this app guards it.
//!
//! ```sh
//! cargo run --example embed
//! curl --json '{"text": "The points froze at six; trains ran an hour late."}' localhost:8080/summary
//! curl -H 'x-user: ann' localhost:8080/llm/api/v1/runs
//! ```
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Actor, Addr, Arbiter, ArbiterHandle, Context, Handler, Message, ResponseFuture};
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::middleware::{Next, from_fn};
use actix_web::web::{Bytes, Data, ServiceConfig, post, scope};
use actix_web::{App, HttpMessage, HttpRequest, HttpResponse, HttpServer};
use pointsman::server::{ServerOptions, routes};
use pointsman::{Class, Config, Daemon, Pointsman, Prompt, Request, RequestError, RouterHandle};
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
        Err(error) => return unanswered(&error),
    };
    HttpResponse::Ok().json(json!({
        "summary": response.text(), "target": response.target, "simulated": response.simulated
    }))
}

async fn title(titles: Data<Titles>, text: String) -> HttpResponse {
    match titles.address().send(Title(text)).await {
        Ok(Ok(title)) => HttpResponse::Ok().json(json!({ "title": title })),
        Ok(Err(error)) => unanswered(&error),
        // The actor panicked before it had begun.
        Err(_) => failed(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "try again"),
    }
}

fn unanswered(error: &RequestError) -> HttpResponse {
    failed(status(error.class()), error.class().as_str(), &error.failure.message)
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

/// An actor of this app.
pub(crate) struct Titler {
    router: RouterHandle,
}

impl Actor for Titler {
    type Context = Context<Self>;
}

/// Asks for the title of a text.
#[derive(Message)]
#[rtype(result = "Result<String, Box<RequestError>>")]
pub(crate) struct Title(pub(crate) String);

impl Handler<Title> for Titler {
    type Result = ResponseFuture<Result<String, Box<RequestError>>>;

    fn handle(&mut self, Title(text): Title, _: &mut Context<Self>) -> Self::Result {
        let router = self.router.clone();
        // Its own task: a request in flight is answered also if the actor panics meanwhile.
        Box::pin(async move {
            let request = Request::new("default", format!("Write a title of at most six words for: {text}"));
            Ok(router.send(request.with_deadline(TIMEOUT)).await?.text().to_owned())
        })
    }
}

/// The supervision of this app: a `Titler` that has ended is replaced when it is needed again. A panic ends an actor, and
/// `actix::Supervisor` starts only actors that have stopped.
pub(crate) struct Titles {
    router: RouterHandle,
    arbiter: ArbiterHandle,
    address: Mutex<Addr<Titler>>,
}

impl Titles {
    /// Starts the actor on the arbiter of the caller.
    pub(crate) fn start(router: RouterHandle) -> Self {
        let arbiter = Arbiter::current();
        let address = Mutex::new(start_titler(&arbiter, &router));
        Self { router, arbiter, address }
    }

    pub(crate) fn address(&self) -> Addr<Titler> {
        let mut address = self.address.lock().unwrap_or_else(PoisonError::into_inner);
        if !address.connected() {
            *address = start_titler(&self.arbiter, &self.router);
        }
        address.clone()
    }
}

fn start_titler(arbiter: &ArbiterHandle, router: &RouterHandle) -> Addr<Titler> {
    let router = router.clone();
    Titler::start_in_arbiter(arbiter, move |_| Titler { router })
}

/// Stands for the authentication of this app: the proxy in front of it names the user.
async fn authenticate(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    if request.headers().contains_key("x-user") {
        return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    }
    Ok(request.into_response(failed(StatusCode::UNAUTHORIZED, "unauthorized", "log in first")))
}

/// Returns what mounts the app's own routes, and those of the daemon.
pub(crate) fn mount(daemon: &Daemon) -> impl FnOnce(&mut ServiceConfig) + Clone + Send + 'static {
    let router = daemon.pointsman().router();
    let titles = Data::new(Titles::start(router.clone()));
    let router = Data::new(router);
    let llm = routes(daemon, ServerOptions::new().with_prefix("/llm"));
    move |app| {
        app.app_data(router)
            .app_data(titles)
            .route("/summary", post().to(summary))
            .route("/title", post().to(title))
            .service(scope("/llm").wrap(from_fn(authenticate)).configure(llm));
    }
}

#[actix_web::main]
async fn main() -> anyhow::Result<()> {
    let pointsman = Pointsman::start(&Config::load()?).await?;
    // It loads the configuration again when the file changes.
    let daemon = Daemon::start(pointsman, Arc::new(Config::load)).await?;
    let mount = mount(&daemon);
    let server = HttpServer::new(move || App::new().configure(mount.clone()));
    // After SIGTERM, requests in flight have ten seconds to end. After Ctrl-C, actix-web drops them.
    server.bind("127.0.0.1:8080")?.shutdown_timeout(10).run().await?;
    // Runs that have not ended are resumed at the next start.
    daemon.drain(TIMEOUT).await;
    Ok(())
}
