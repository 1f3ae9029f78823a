//! Joined requests for embeddings: few calls, and each caller gets its own vectors and its part of the cost.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures_util::future::join_all;
use pointsman::router::{EmbeddingRequest, Embeddings};
use pointsman::runtime::Pointsman;
use pointsman::simulator::{Fault, FaultKind, Settings, Simulator, Vendor};
use pointsman::types::{Charged, Class, NanoUsd, RequestError, Tokens, UsageTotals};
use serde_json::{Value, json};

use super::scripted_server::{ScriptedServer, response};
use super::support::*;

type Outcome = Result<Embeddings, Box<RequestError>>;

fn request(text: &str) -> EmbeddingRequest {
    EmbeddingRequest::new("default", [text.to_owned()]).with_deadline(Duration::from_secs(30))
}

fn texts(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("Passage {number} about the tides.")).collect()
}

/// Sends a request for each text at once.
async fn embed_all(pointsman: &Pointsman, texts: &[String]) -> Vec<Outcome> {
    join_all(texts.iter().map(|text| pointsman.embed(request(text)))).await
}

fn start_with_price(simulator: &Simulator) -> Pointsman {
    let url = simulator.base_url(Vendor::OpenAi);
    let price = "models.m = { price = { input = 1.0, output = 5.0 }, context = 100 }";
    start_pointsman(&format!("[provider.a]\nbase_url = \"{url}\"\n{price}\n{LONG_TIMEOUTS}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_at_once_are_few_calls_and_each_gets_its_own_vector() {
    let simulator = start_simulator(Settings::default());
    let pointsman = start_with_price(&simulator);
    let texts = texts(1_000);
    let all: Vec<Embeddings> = embed_all(&pointsman, &texts).await.into_iter().map(Result::unwrap).collect();
    let counts = simulator.counts();
    assert!((10..=100).contains(&counts.requests), "{} calls", counts.requests);
    let distinct: HashSet<String> = all.iter().map(|one| format!("{:?}", one.vectors)).collect();
    assert_eq!(distinct.len(), 1_000);
    for index in [0, 499, 999] {
        let alone = pointsman.embed(request(&texts[index])).await.unwrap();
        assert_eq!(all[index].vectors, alone.vectors, "{index}");
        assert_eq!(alone.vectors.len(), 1);
    }
    let tokens: Tokens = all.iter().filter_map(|one| one.usage).map(|usage| usage.input).sum();
    assert_eq!(tokens, Tokens(counts.input_tokens));
    assert_eq!(all.iter().filter_map(|one| one.cost).sum::<NanoUsd>(), NanoUsd(1_000 * tokens.0));
    let mut totals = UsageTotals::default();
    for one in &all {
        totals += UsageTotals::of(&one.attempts);
        assert_eq!(one.attempts.calls(), 1, "each log has its call");
    }
    assert_eq!((totals.calls, totals.tokens.input), (counts.requests, tokens));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_is_too_long_fails_alone() {
    let simulator = start_simulator(Settings::default());
    let pointsman = start_with_price(&simulator);
    let mut texts = texts(60);
    texts[23] = "The tide is low. ".repeat(100);
    let all = embed_all(&pointsman, &texts).await;
    for (index, outcome) in all.iter().enumerate() {
        let class = outcome.as_ref().err().map(|error| error.class());
        assert_eq!(class, (index == 23).then_some(Class::TooLong), "{index}: {outcome:?}");
    }
    assert!(simulator.counts().requests <= 30, "{:?}", simulator.counts());
}

/// Returns the inputs of a request.
fn inputs(request: &str) -> Vec<String> {
    let (_, body) = request.split_once("\r\n\r\n").unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    body["input"].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// Returns the response of OpenAI: of each text its length and the sum of its bytes.
fn vectors_of(inputs: &[String]) -> String {
    let vector = |text: &String| json!([text.len(), text.bytes().map(u32::from).sum::<u32>()]);
    let item = |(index, text): (usize, &String)| json!({ "index": index, "embedding": vector(text) });
    let data: Vec<Value> = inputs.iter().enumerate().map(item).collect();
    let body = json!({ "data": data, "model": "m", "usage": { "prompt_tokens": 7 * inputs.len() } });
    response("200 OK", "content-type: application/json\r\n", &body.to_string())
}

fn invalid(message: &str) -> String {
    let body = json!({ "error": { "message": message, "type": "invalid_request_error", "param": "input" } });
    response("400 Bad Request", "content-type: application/json\r\n", &body.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_the_provider_refuses_fails_alone() {
    let server = ScriptedServer::start(|request| {
        let inputs = inputs(request);
        if inputs.iter().any(|text| text.contains("BAD")) {
            invalid("bad input")
        } else {
            vectors_of(&inputs)
        }
    });
    let server = server.await;
    let pointsman = start_pointsman(&provider_config_at("b", &server.url(), LONG_TIMEOUTS));
    let mut texts = texts(64);
    texts[40] = "BAD".to_owned();
    let all = embed_all(&pointsman, &texts).await;
    for (index, outcome) in all.iter().enumerate() {
        match outcome {
            Ok(one) => {
                assert_ne!(index, 40);
                assert_eq!(one.vectors[0][0] as usize, texts[index].len());
                assert_eq!(one.vectors[0][1] as u32, texts[index].bytes().map(u32::from).sum::<u32>());
            }
            Err(error) => assert_eq!((index, error.class()), (40, Class::ApiError), "{error:?}"),
        }
    }
    // One call is divided six times into two halves.
    assert!(server.requests() <= 40, "{}", server.requests());
    let mut totals = UsageTotals::default();
    for outcome in &all {
        let attempts = outcome.as_ref().map_or_else(|error| &error.attempts, |one| &one.attempts);
        totals += UsageTotals::of(attempts);
    }
    assert_eq!(totals.calls, server.requests() as u64, "each call is counted once");
}

/// Starts the library with a server of the test that is reached along the default route.
fn start_with_server(server: &ScriptedServer) -> Pointsman {
    start_pointsman(&format!("{QUICK_RETRY}{}", provider_config_at("b", &server.url(), LONG_TIMEOUTS)))
}

fn server_error() -> String {
    let body = json!({ "error": { "message": "internal error", "type": "server_error" } });
    response("500 Internal Server Error", "content-type: application/json\r\n", &body.to_string())
}

/// Returns a response whose last vector has a number that is none.
fn unreadable_vectors(inputs: &[String]) -> String {
    let item = |index: usize| {
        let last = if index + 1 == inputs.len() { Value::Null } else { json!(1) };
        json!({ "index": index, "embedding": [1, last] })
    };
    let data: Vec<Value> = (0..inputs.len()).map(item).collect();
    let body = json!({ "data": data, "model": "m" }).to_string();
    response("200 OK", "content-type: application/json\r\n", &body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_input_that_the_server_fails_on_fails_alone() {
    for (class, at) in [(Class::ServerError, 40), (Class::Unreadable, 40), (Class::ServerError, 0)] {
        let server = ScriptedServer::start(move |request| {
            let inputs = inputs(request);
            match inputs.iter().any(|text| text.contains("BAD")) {
                true if class == Class::ServerError => server_error(),
                true => unreadable_vectors(&inputs),
                false => vectors_of(&inputs),
            }
        });
        let server = server.await;
        let pointsman = start_with_server(&server);
        let mut texts = texts(64);
        texts[at] = "BAD".to_owned();
        for (index, outcome) in embed_all(&pointsman, &texts).await.iter().enumerate() {
            let failed = outcome.as_ref().err().map(|error| error.class());
            assert_eq!(failed, (index == at).then_some(class), "{index}: {outcome:?}");
        }
        assert!(server.requests() <= 50, "{}", server.requests());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_does_not_multiply_the_calls() {
    let server = ScriptedServer::start(|_| server_error()).await;
    let pointsman = start_with_server(&server);
    let all = embed_all(&pointsman, &texts(90)).await;
    assert!(
        all.iter().all(|outcome| outcome.as_ref().is_err_and(|error| error.class() == Class::ServerError)),
        "{all:?}"
    );
    // Each joined request is retried three times and then probed twice.
    assert!(server.requests() <= 42, "{}", server.requests());
    let mut totals = UsageTotals::default();
    for outcome in &all {
        totals += UsageTotals::of(&outcome.as_ref().unwrap_err().attempts);
    }
    assert_eq!(totals.calls, server.requests() as u64, "each call is counted once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_defect_of_all_requests_takes_few_calls() {
    let server = ScriptedServer::start(|_| invalid("this request is invalid")).await;
    let pointsman = start_with_server(&server);
    let all = embed_all(&pointsman, &texts(90)).await;
    assert!(
        all.iter().all(|outcome| outcome.as_ref().is_err_and(|error| error.class() == Class::ApiError)),
        "{all:?}"
    );
    assert!(server.requests() <= 60, "{}", server.requests());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ignores_the_dimensions_fails_the_requests_and_another_target_answers() {
    let server = ScriptedServer::start(|request| vectors_of(&inputs(request))).await;
    let simulator = start_simulator(Settings::default());
    let pointsman = start_pointsman(&format!(
        "[route.one]\ntargets = [\"b/m\"]\n[route.both]\ntargets = [\"b/m\", \"a/m\"]\n{QUICK_RETRY}{}{}",
        provider_config_at("b", &server.url(), LONG_TIMEOUTS),
        provider_config("a", &simulator, LONG_TIMEOUTS),
    ));
    let embed = |route: &'static str| {
        let of_text = |text: String| EmbeddingRequest::new(route, [text]).with_dimensions(16);
        join_all(texts(40).into_iter().map(|text| pointsman.embed(of_text(text))).collect::<Vec<_>>())
    };
    for outcome in embed("one").await {
        let error = outcome.unwrap_err();
        assert_eq!(error.class(), Class::ApiError);
        assert!(error.failure.message.contains("remove `dimensions`"), "{error}");
    }
    // It is the same for every input, so that the joined requests are not divided.
    assert!(server.requests() <= 20, "{}", server.requests());
    for outcome in embed("both").await {
        assert_eq!(outcome.unwrap().vectors[0].len(), 16);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn later_calls_have_as_many_inputs_as_the_server_accepts() {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = refused.clone();
    let server = ScriptedServer::start(move |request| {
        let inputs = inputs(request);
        if inputs.len() <= 16 {
            return vectors_of(&inputs);
        }
        count.fetch_add(1, SeqCst);
        invalid("batch size exceeds the maximum")
    });
    let server = server.await;
    let pointsman = start_pointsman(&provider_config_at("b", &server.url(), LONG_TIMEOUTS));
    let texts = texts(64);
    assert!(embed_all(&pointsman, &texts).await.iter().all(Result::is_ok));
    let before = refused.load(SeqCst);
    assert!(before >= 1);
    assert!(embed_all(&pointsman, &texts).await.iter().all(Result::is_ok));
    assert_eq!(refused.load(SeqCst), before, "the server was not asked for more than it accepts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_with_embedding_inputs_gets_calls_with_at_most_so_many_texts() {
    for (embedding_inputs, min_calls, max_calls) in [(1, 64, 64), (2, 32, 64), (8, 8, 64), (500, 1, 63)] {
        let largest = Arc::new(AtomicUsize::new(0));
        let most = largest.clone();
        let server = ScriptedServer::start(move |request| {
            let inputs = inputs(request);
            most.fetch_max(inputs.len(), SeqCst);
            vectors_of(&inputs)
        });
        let server = server.await;
        let more = format!("embedding_inputs = {embedding_inputs}\n{LONG_TIMEOUTS}");
        let pointsman = start_pointsman(&provider_config_at("b", &server.url(), &more));
        let texts = texts(64);
        for (index, outcome) in embed_all(&pointsman, &texts).await.into_iter().enumerate() {
            assert_eq!(outcome.unwrap().vectors[0][0] as usize, texts[index].len(), "{index}");
        }
        let largest = largest.load(SeqCst);
        assert!(largest <= embedding_inputs, "{largest} texts with embedding_inputs = {embedding_inputs}");
        assert!(largest > 1 || embedding_inputs == 1, "none were joined with {embedding_inputs}");
        let calls = server.requests();
        assert!((min_calls..=max_calls).contains(&calls), "{calls} calls with {embedding_inputs}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_requests_with_the_same_options_are_joined() {
    let simulator = start_simulator(Settings::default());
    let pointsman = start_with_price(&simulator);
    let requests = [
        request("low tide"),
        request("low tide").with_dimensions(16),
        request("low tide").with_user("user-1"),
        request("low tide").with_priority(pointsman::Priority::Batch),
    ];
    let all = join_all(requests.map(|request| pointsman.embed(request))).await;
    assert_eq!(simulator.counts().requests, 4);
    let dimensions: Vec<usize> = all.into_iter().map(|one| one.unwrap().vectors[0].len()).collect();
    assert_eq!(dimensions, [8, 16, 8, 8]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_ends_does_not_end_the_others_and_the_last_one_ends_the_call() {
    let late = Fault { delay: Some(Duration::from_millis(1_600)), ..Fault::new(FaultKind::SlowFirstToken) };
    let simulator = start_faulty_simulator([late]);
    let pointsman = start_with_price(&simulator);
    let impatient = request("high tide").with_deadline(Duration::from_secs(1));
    let dropped = tokio::time::timeout(Duration::from_millis(300), pointsman.embed(request("spring tide")));
    let (first, second, third) =
        tokio::join!(pointsman.embed(request("low tide")), pointsman.embed(impatient), dropped);
    let first = first.unwrap();
    assert_eq!(first.vectors.len(), 1);
    let second = second.unwrap_err();
    assert_eq!((second.class(), second.failure.charged), (Class::Deadline, Charged::Maybe));
    let [in_flight] = second.attempts.0.as_slice() else { panic!("{second:?}") };
    assert!(in_flight.is_possibly_charged() && in_flight.counted_elsewhere, "{in_flight:?}");
    assert_eq!(in_flight.target.to_string(), "a/m");
    assert!(third.is_err(), "it was dropped");
    assert_eq!(simulator.counts().requests, 1);
    let mut totals = UsageTotals::of(&first.attempts);
    totals += UsageTotals::of(&second.attempts);
    assert_eq!(totals.calls, 1, "the call is counted once");
    let both = join_all(["ebb", "flood"].map(|text| pointsman.embed(request(text))));
    assert!(tokio::time::timeout(Duration::from_millis(300), both).await.is_err());
    wait_until("the call is cancelled", || simulator.counts().abandoned == 1).await;
    assert_eq!(simulator.counts().requests, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_ten_requests_with_a_budget_for_five_five_are_answered() {
    // Each text costs seven tokens, $0.000007.
    for budget in ["day = 0.0000384", "provider = { b = 0.0000384 }", "scope = { team-a = 0.0000384 }"] {
        let server = ScriptedServer::start(|request| vectors_of(&inputs(request))).await;
        let url = server.url();
        let price = "models.m = { price = { input = 1.0, output = 5.0 } }";
        let provider = format!("[provider.b]\nbase_url = \"{url}\"\n{price}\n{LONG_TIMEOUTS}");
        let pointsman = start_pointsman(&format!("{provider}\n[budget]\n{budget}"));
        let texts = texts(10);
        let of_scope = |text: &String| pointsman.embed(request(text).with_scope("team-a"));
        let all = join_all(texts.iter().map(of_scope)).await;
        let spent: NanoUsd = all.iter().flatten().filter_map(|one| one.cost).sum();
        assert_eq!((all.iter().flatten().count(), spent), (5, NanoUsd(35_000)), "{budget}: {all:?}");
        for error in all.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert_eq!((error.class(), error.attempts.calls()), (Class::Budget, 0), "{error}");
            // It is that of a request alone.
            assert!(error.failure.message.contains("$0.000003 is left"), "{error}");
        }
        assert!(server.requests() <= 5, "{budget}: {} calls", server.requests());
    }
}

fn start_with_day_budget(simulator: &Simulator, day: &str) -> Pointsman {
    let url = simulator.base_url(Vendor::OpenAi);
    let price = "models.m = { price = { input = 1.0, output = 5.0 } }";
    start_pointsman(&format!(
        "[provider.a]\nbase_url = \"{url}\"\n{price}\n{LONG_TIMEOUTS}\n[budget]\nday = {day}"
    ))
}

fn is_over_budget(outcome: &Outcome) -> bool {
    outcome.as_ref().is_err_and(|error| error.class() == Class::Budget)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joined_call_no_part_of_which_fits_the_budget_fails_all_its_requests_and_costs_nothing() {
    let simulator = start_simulator(Settings::default());
    let pointsman = start_with_day_budget(&simulator, "0.000001");
    let all = embed_all(&pointsman, &texts(90)).await;
    assert!(all.iter().all(is_over_budget), "{all:?}");
    assert_eq!(simulator.counts().requests, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_requests_that_the_rest_of_a_budget_covers_are_answered() {
    let simulator = start_simulator(Settings::default());
    let pointsman = start_with_day_budget(&simulator, "0.001");
    let first = embed_all(&pointsman, &texts(90)).await;
    let spent: NanoUsd = first.iter().flatten().filter_map(|one| one.cost).sum();
    assert!(first.iter().all(Result::is_ok), "{first:?}");
    assert!(spent > NanoUsd(500_000) && spent < NanoUsd(1_000_000), "{spent}");
    let second = embed_all(&pointsman, &texts(90)).await;
    let of_second: NanoUsd = second.iter().flatten().filter_map(|one| one.cost).sum();
    assert!(second.iter().any(Result::is_ok), "{second:?}");
    let total = NanoUsd(spent.0 + of_second.0);
    assert!(total > NanoUsd(900_000) && total <= NanoUsd(1_050_000), "{total}");
    assert!(second.iter().all(|outcome| outcome.is_ok() || is_over_budget(outcome)), "{second:?}");
}
