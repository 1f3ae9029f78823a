//! `examples/embed.rs`, as its clients see it.

use actix_web::http::header::ContentType;
use actix_web::http::{Method, StatusCode};
use actix_web::test::{TestRequest, call_service, init_service, read_body_json};
use actix_web::{App, web};
use pointsman::{Config, Pointsman};
use serde_json::{Value, json};

#[path = "../../examples/embed.rs"]
mod example;

/// Starts it with a simulated provider that behaves so.
fn start(simulator: &str) -> Pointsman {
    let config = format!("[provider.simulated]\nbase_url = 'simulator'\n{simulator}");
    Pointsman::start(&Config::parse("config.toml", &config, &|_| None).unwrap()).unwrap()
}

async fn post(pointsman: &Pointsman, request: TestRequest) -> (StatusCode, Value) {
    let data = web::Data::new(pointsman.clone());
    let app = App::new().app_data(data).route("/summary", web::post().to(example::summary));
    let service = init_service(app).await;
    let response = call_service(&service, request.uri("/summary").method(Method::POST).to_request()).await;
    (response.status(), read_body_json(response).await)
}

fn plain(text: &'static str) -> TestRequest {
    TestRequest::default().insert_header(ContentType::plaintext()).set_payload(text)
}

#[actix_web::test]
async fn a_text_is_summarised_whether_it_comes_plain_or_as_json() {
    let pointsman = start("");
    let json = TestRequest::default().set_json(json!({ "text": "The points froze at six." }));
    for request in [json, plain("The points froze at six.")] {
        let (status, answer) = post(&pointsman, request).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert!(answer["summary"].as_str().unwrap().contains("points froze"), "{answer}");
        assert_eq!((&answer["lane"], &answer["practice"]), (&json!("simulated/any"), &json!(true)));
    }
}

#[actix_web::test]
async fn what_holds_no_text_is_a_bad_request() {
    let pointsman = start("");
    let bad = TestRequest::default().set_payload("{\"txt\": 1}").insert_header(ContentType::json());
    for request in [bad, plain(" \n")] {
        let (status, answer) = post(&pointsman, request).await;
        assert_eq!((status, &answer["error"]["class"]), (StatusCode::BAD_REQUEST, &json!("bad_request")));
    }
}

#[actix_web::test]
async fn a_failure_comes_with_its_status_class_and_message() {
    // A busy machine keeps the long wait; only the silent one has to be waited for.
    for (fault, expected, class) in [
        ("kind = 'rate_limited', retry_after = 'absurd'", StatusCode::TOO_MANY_REQUESTS, "rate_limit"),
        ("kind = 'quota'", StatusCode::SERVICE_UNAVAILABLE, "quota"),
        ("kind = 'silent'", StatusCode::GATEWAY_TIMEOUT, "timeout"),
        ("kind = 'auth'", StatusCode::BAD_GATEWAY, "auth"),
        ("kind = 'refusal'", StatusCode::UNPROCESSABLE_ENTITY, "content_filter"),
    ] {
        let first_token = if class == "timeout" { "50ms" } else { "10s" };
        let pointsman = start(&format!(
            "timeouts = {{ first_token = '{first_token}' }}\n[retry]\nrounds = 1\nattempts_per_lane = 1\n\
             [simulator]\nfaults = [{{ {fault} }}]"
        ));
        let (status, answer) = post(&pointsman, plain("The points froze at six.")).await;
        assert_eq!((status, &answer["error"]["class"]), (expected, &json!(class)), "{answer}");
        assert!(!answer["error"]["message"].as_str().unwrap().is_empty(), "{answer}");
    }
}

#[actix_web::test]
async fn once_drained_it_is_unavailable() {
    let pointsman = start("");
    pointsman.drain(tokio::time::Instant::now() + std::time::Duration::from_secs(5)).await;
    let (status, answer) = post(&pointsman, plain("The points froze at six.")).await;
    assert_eq!((status, &answer["error"]["class"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("cancelled")));
}
