//! Requests for embeddings: the same vectors in every format, with the limits, the failover and the budgets of any
//! request.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pointsman::router::{EmbeddingRequest, Embeddings};
use pointsman::simulator::{Fault, FaultKind, Settings, Simulator, Vendor};
use pointsman::types::{Class, NanoUsd, Outcome, RequestError, Tokens, Usage};
use serde_json::{Value, json};

use super::scripted_server::{ScriptedServer, response};
use super::support::*;

const TEXTS: [&str; 3] = ["low tide", "high tide", "a walk on the beach"];

fn embedding_request(route: &str) -> EmbeddingRequest {
    EmbeddingRequest::new(route, TEXTS).with_deadline(Duration::from_secs(20))
}

/// Returns the provider of each attempt, and whether it answered.
fn attempts(embeddings: &Embeddings) -> Vec<(&str, bool)> {
    let attempts = embeddings.attempts.0.iter();
    attempts.map(|attempt| (attempt.target.provider.as_str(), attempt.outcome == Outcome::Answered)).collect()
}

fn in_format(name: &str, format: &str, simulator: &Simulator, vendor: Vendor) -> String {
    let more = format!("format = \"{format}\"\n{LONG_TIMEOUTS}");
    provider_config_at(name, &simulator.base_url(vendor), &more)
}

/// Returns the response of OpenAI with these vectors in base64, in the reverse order.
fn in_base64(vectors: &[Arc<[f32]>]) -> String {
    let item = |(index, vector): (usize, &Arc<[f32]>)| {
        let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
        json!({ "object": "embedding", "index": index, "embedding": STANDARD.encode(bytes) })
    };
    let data: Vec<Value> = vectors.iter().enumerate().map(item).rev().collect();
    let usage = json!({ "prompt_tokens": 9, "total_tokens": 9 });
    json!({ "object": "list", "data": data, "model": "m-1", "usage": usage }).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vectors_are_equal_in_every_format_and_notation() {
    let simulator = start_simulator(Settings::default());
    let openai = in_format("gpt", "openai", &simulator, Vendor::OpenAi);
    let gemini = in_format("gem", "gemini", &simulator, Vendor::Gemini);
    let routes = "route.gpt.targets = [\"gpt/m\"]\nroute.gem.targets = [\"gem/m\"]\n";
    let pointsman = start_pointsman(&format!("{routes}{openai}{gemini}"));
    let by_openai = pointsman.embed(embedding_request("gpt").with_dimensions(16)).await.unwrap();
    let by_gemini = pointsman.router().embed(embedding_request("gem").with_dimensions(16)).await.unwrap();
    assert_eq!(by_openai.vectors, by_gemini.vectors);
    assert!(by_openai.vectors.iter().all(|vector| vector.len() == 16));
    assert_ne!(by_openai.vectors[0], by_openai.vectors[1]);
    let tokens = Tokens(TEXTS.concat().len().div_ceil(4) as u64);
    assert_eq!(by_openai.usage, Some(Usage::new(tokens, Tokens(0))));
    assert_eq!((by_openai.target.to_string().as_str(), by_openai.model.as_str()), ("gpt/m", "m"));
    assert!(by_openai.request_id.is_some() && !by_openai.simulated);
    // Gemini counts no tokens.
    assert_eq!(by_gemini.usage, None);
    let default = pointsman.embed(embedding_request("gpt")).await.unwrap();
    assert_eq!(default.vectors[0].len(), 8);
    let body = in_base64(&by_openai.vectors);
    let server = ScriptedServer::start(move |_| {
        response("200 OK", "content-type: application/json; charset=utf-8\r\n", &body)
    });
    let server = server.await;
    let other = start_pointsman(&provider_config_at("b", &server.url(), LONG_TIMEOUTS));
    let in_base64 = other.embed(embedding_request("default").with_dimensions(16)).await.unwrap();
    assert_eq!(in_base64.vectors, by_openai.vectors);
    assert_eq!((in_base64.model.as_str(), in_base64.usage.unwrap().input), ("m-1", Tokens(9)));
}

/// Returns the vectors of a request along a route of two simulators, the first of which has a fault.
async fn embed_with_fault(kind: FaultKind) -> Result<Embeddings, Box<RequestError>> {
    let failing = start_faulty_simulator([Fault::new(kind)]);
    let healthy = start_simulator(Settings::default());
    let config = format!(
        "{QUICK_RETRY}[route.r]\ntargets = [\"a/m\", \"b/m\"]\n{}{}",
        provider_config("a", &failing, LONG_TIMEOUTS),
        provider_config("b", &healthy, LONG_TIMEOUTS)
    );
    start_pointsman(&config).embed(embedding_request("r")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_target_answers_if_one_fails_or_returns_something_else() {
    for (kind, class) in [
        (FaultKind::Unavailable, Class::Overloaded),
        (FaultKind::ServerError, Class::ServerError),
        (FaultKind::Empty, Class::Unreadable),
        (FaultKind::TruncatedJson, Class::Unreadable),
        (FaultKind::MalformedChunk, Class::Unreadable),
        (FaultKind::ErrorInStream, Class::ServerError),
        (FaultKind::Html, Class::Unreadable),
    ] {
        let embeddings = embed_with_fault(kind).await.unwrap();
        assert_eq!(embeddings.vectors.len(), 3, "{kind:?}");
        let attempts = attempts(&embeddings);
        assert_eq!((attempts[0], attempts.last()), (("a", false), Some(&("b", true))), "{kind:?}");
        let Outcome::Failed(failure) = &embeddings.attempts.0[0].outcome else { panic!("{embeddings:?}") };
        assert_eq!(failure.class, class, "{kind:?}: {failure}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_without_embeddings_is_skipped_and_named() {
    let simulator = start_simulator(Settings::default());
    let config = format!(
        "[route.r]\ntargets = [\"claude/m\", \"responses/m\", \"gpt/m\"]\n[route.none]\ntargets = [\"claude/m\"]\n{}{}{}",
        in_format("claude", "anthropic", &simulator, Vendor::Anthropic),
        in_format("responses", "openai_responses", &simulator, Vendor::OpenAi),
        in_format("gpt", "openai", &simulator, Vendor::OpenAi),
    );
    let pointsman = start_pointsman(&config);
    for _ in 0..5 {
        let embeddings = pointsman.embed(embedding_request("r")).await.unwrap();
        assert_eq!(attempts(&embeddings), [("claude", false), ("responses", false), ("gpt", true)]);
        let log = &embeddings.attempts;
        let Outcome::Refused(reason) = &log.0[0].outcome else { panic!("{log:?}") };
        assert!(reason.contains("Anthropic's format has no embeddings"), "{reason}");
        assert_eq!((log.calls(), log.possibly_charged()), (1, 0));
    }
    assert_eq!(simulator.counts().requests, 5);
    let error = pointsman.embed(embedding_request("none")).await.unwrap_err();
    assert_eq!((error.class(), error.attempts.calls()), (Class::ApiError, 0));
    assert!(error.failure.message.contains("has no embeddings"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inputs_that_no_provider_accepts_fail_without_attempts() {
    let simulator = start_simulator(Settings::default());
    let pointsman = start_pointsman(&provider_config("a", &simulator, LONG_TIMEOUTS));
    for (inputs, problem) in [
        (vec!["tide".to_owned(); 10_000], "10000 inputs; a request for embeddings has at most 2048"),
        (Vec::new(), "no input"),
        (vec!["tide".to_owned(), String::new()], "input 2 is empty"),
    ] {
        let error = pointsman.embed(EmbeddingRequest::new("default", inputs)).await.unwrap_err();
        assert_eq!((error.class(), error.attempts.0.len()), (Class::ApiError, 0));
        assert!(error.failure.message.contains(problem), "{error}");
    }
    assert_eq!(simulator.counts().requests, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_response_to_many_inputs_may_be_larger_than_any_answer() {
    let simulator = start_simulator(Settings::default());
    let patient = "timeouts = { total = \"120s\" }";
    let pointsman = start_pointsman(&provider_config("a", &simulator, patient));
    // About 19 MB.
    let most = EmbeddingRequest::new("default", vec!["tide".to_owned(); 2_048]).with_dimensions(768);
    let embeddings = pointsman.embed(most).await.unwrap();
    assert_eq!((embeddings.vectors.len(), embeddings.vectors[2_047].len()), (2_048, 768));
    assert_eq!(embeddings.attempts.0.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cost_is_booked_and_a_budget_ends_the_requests() {
    let simulator = start_simulator(Settings::default());
    let url = simulator.base_url(Vendor::OpenAi);
    let price = "models.m = { price = { input = 1.0, output = 5.0 } }";
    let pointsman = start_pointsman(&format!(
        "[provider.a]\nbase_url = \"{url}\"\n{price}\n{LONG_TIMEOUTS}\n[budget]\nday = 0.0019"
    ));
    let request = || EmbeddingRequest::new("default", ["The tide is low. ".repeat(250)]);
    let embeddings = pointsman.embed(request()).await.unwrap();
    let usage = embeddings.usage.unwrap();
    assert_eq!(usage, Usage::new(Tokens(1_063), Tokens(0)));
    assert_eq!(embeddings.cost, Some(NanoUsd(1_063_000)));
    let counts = simulator.counts();
    assert_eq!((counts.input_tokens, counts.output_tokens), (1_063, 0));
    let error = pointsman.embed(request()).await.unwrap_err();
    assert_eq!((error.class(), error.attempts.calls()), (Class::Budget, 0), "{error:?}");
    assert_eq!(simulator.counts().requests, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_count_against_the_limits() {
    let simulator = start_simulator(Settings::default());
    let config = format!(
        "[route.r]\ntargets = [\"a/m\", \"b/m\"]\n{}{}",
        provider_config("a", &simulator, &format!("limits.requests_per_day = 1\n{LONG_TIMEOUTS}")),
        provider_config("b", &simulator, LONG_TIMEOUTS)
    );
    let pointsman = start_pointsman(&config);
    assert_eq!(attempts(&pointsman.embed(embedding_request("r")).await.unwrap()), [("a", true)]);
    let second = pointsman.embed(embedding_request("r")).await.unwrap();
    assert_eq!(attempts(&second).last(), Some(&("b", true)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_context_of_a_model_bounds_each_input_and_not_their_sum() {
    let simulator = start_simulator(Settings::default());
    let url = simulator.base_url(Vendor::OpenAi);
    let pointsman = start_pointsman(&format!(
        "[provider.a]\nbase_url = \"{url}\"\nmodels.m = {{ context = 100 }}\n{LONG_TIMEOUTS}"
    ));
    let text = "The tide is low. ".repeat(10);
    let many = EmbeddingRequest::new("default", vec![text.clone(); 50]);
    assert_eq!(pointsman.embed(many).await.unwrap().vectors.len(), 50);
    let long = EmbeddingRequest::new("default", [text.repeat(10)]);
    assert_eq!(pointsman.embed(long).await.unwrap_err().class(), Class::TooLong);
}
