//! HTTP responses of `examples/embed.rs`.

use actix_web::http::header::ContentType;
use actix_web::http::{Method, StatusCode};
use actix_web::test::{TestRequest, call_service, init_service, read_body_json};
use actix_web::{App, web};
use pointsman::{Config, Pointsman};
use serde_json::{Value, json};

#[path = "../../examples/embed.rs"]
mod example;

/// Starts the library with a simulated provider and this additional configuration.
fn start(simulator: &str) -> Pointsman {
    let config = format!("[provider.simulated]\nbase_url = 'simulator'\n{simulator}");
    Pointsman::start_blocking(&Config::parse("config.toml", &config, &|_| None).unwrap()).unwrap()
}

async fn post(pointsman: &Pointsman, request: TestRequest) -> (StatusCode, Value) {
    let data = web::Data::new(pointsman.router());
    let app = App::new().app_data(data).route("/summary", web::post().to(example::summary));
    let service = init_service(app).await;
    let response = call_service(&service, request.uri("/summary").method(Method::POST).to_request()).await;
    (response.status(), read_body_json(response).await)
}

fn plain(text: &'static str) -> TestRequest {
    TestRequest::default().insert_header(ContentType::plaintext()).set_payload(text)
}

#[actix_web::test]
async fn plain_text_and_json_are_summarized() {
    let pointsman = start("");
    let json = TestRequest::default().set_json(json!({ "text": "The points froze at six." }));
    for request in [json, plain("The points froze at six.")] {
        let (status, answer) = post(&pointsman, request).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert!(answer["summary"].as_str().unwrap().contains("points froze"), "{answer}");
        assert_eq!((&answer["target"], &answer["simulated"]), (&json!("simulated/any"), &json!(true)));
    }
}

#[actix_web::test]
async fn a_request_without_text_is_a_bad_request() {
    let pointsman = start("");
    let bad = TestRequest::default().set_payload("{\"txt\": 1}").insert_header(ContentType::json());
    for request in [bad, plain(" \n")] {
        let (status, answer) = post(&pointsman, request).await;
        assert_eq!((status, &answer["error"]["class"]), (StatusCode::BAD_REQUEST, &json!("bad_request")));
    }
}

#[actix_web::test]
async fn a_failure_has_a_status_a_class_and_a_message() {
    // The timeout is short only where the provider does not respond. Elsewhere a busy machine needs a long one.
    for (fault, expected, class) in [
        ("kind = 'rate_limited', retry_after = 'absurd'", StatusCode::TOO_MANY_REQUESTS, "rate_limit"),
        ("kind = 'quota'", StatusCode::SERVICE_UNAVAILABLE, "quota"),
        ("kind = 'silent'", StatusCode::GATEWAY_TIMEOUT, "timeout"),
        ("kind = 'auth'", StatusCode::BAD_GATEWAY, "auth"),
        ("kind = 'refusal'", StatusCode::UNPROCESSABLE_ENTITY, "content_filter"),
    ] {
        let first_token = if class == "timeout" { "50ms" } else { "10s" };
        let pointsman = start(&format!(
            "timeouts = {{ first_token = '{first_token}' }}\n[retry]\nmax_rounds = 1\nattempts_per_target = 1\n\
             [simulator]\nfaults = [{{ {fault} }}]"
        ));
        let (status, answer) = post(&pointsman, plain("The points froze at six.")).await;
        assert_eq!((status, &answer["error"]["class"]), (expected, &json!(class)), "{answer}");
        assert!(!answer["error"]["message"].as_str().unwrap().is_empty(), "{answer}");
    }
}

#[actix_web::test]
async fn after_a_drain_requests_are_refused_as_unavailable() {
    let pointsman = start("");
    pointsman.drain(std::time::Duration::from_secs(5)).await;
    let (status, answer) = post(&pointsman, plain("The points froze at six.")).await;
    assert_eq!((status, &answer["error"]["class"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("cancelled")));
}
