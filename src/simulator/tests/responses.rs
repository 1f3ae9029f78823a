//! OpenAI's responses: the object, the stream, and the errors.

use crate::simulator::wire_format::WireFormat;
use crate::simulator::{Fault, FaultKind};

use super::exchange::*;
use super::*;

const FORMAT: WireFormat = WireFormat::OpenAiResponses;

/// Returns the name of each event, with its `type` and its number checked.
fn event_names(body: &str) -> Vec<String> {
    let lines: Vec<&str> = body.lines().collect();
    let mut names: Vec<String> = Vec::new();
    for pair in lines.chunks(3) {
        let name = pair[0].strip_prefix("event: ").unwrap();
        let event: Value = serde_json::from_str(pair[1].strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!((&event["type"], &event["sequence_number"]), (&json!(name), &json!(names.len())));
        names.push(name.to_owned());
    }
    names
}

#[tokio::test]
async fn a_stream_has_the_vendors_events_in_their_order() {
    let simulator = start(Settings::default());
    let (_, body) = post(&simulator, FORMAT, true, &question(FORMAT, "Hello")).await;
    let mut simulated = event_names(&body);
    simulated.dedup();
    let mut real = event_names(&fixture("openai_responses_stream.sse"));
    real.dedup();
    assert_eq!(simulated, real);
    let shapes = |body: &str| {
        let mut shapes: Vec<_> = events(body).iter().map(shape).collect();
        shapes.dedup();
        shapes
    };
    assert_eq!(shapes(&body), shapes(&fixture("openai_responses_stream.sse")));
    assert!(!body.contains("[DONE]"));
    let called = with_tools(FORMAT, question(FORMAT, "Call the tool a"), &["a"]);
    let (_, body) = post(&simulator, FORMAT, true, &called).await;
    let mut simulated = event_names(&body);
    simulated.dedup();
    let mut real = event_names(&fixture("openai_responses_stream_function_call.sse"));
    real.dedup();
    real.insert(1, "response.in_progress".to_owned());
    assert_eq!(simulated, real);
}

#[tokio::test]
async fn input_is_a_text_or_items_and_the_answer_has_the_requested_format() {
    let simulator = start(Settings::default());
    let body = json!({ "model": "m", "input": "Hello", "instructions": "Be short." });
    let read = answer(&simulator, FORMAT, false, &body).await;
    assert_eq!((read.text.as_str(), read.input_tokens), ("[simulated] Hello", 4));
    let mut body = question(FORMAT, "Hello");
    body["text"] =
        json!({ "format": { "type": "json_schema", "name": "x", "strict": true, "schema": parameters() } });
    let read = answer(&simulator, FORMAT, true, &body).await;
    assert!(jsonschema::is_valid(&parameters(), &serde_json::from_str(&read.text).unwrap()));
    body["text"]["format"]["schema"] = json!({ "type": "object" });
    assert_eq!(post(&simulator, FORMAT, false, &body).await.0, 400);
    let choice = question(FORMAT, "Answer with exactly one of: A, B");
    assert!(["A", "B"].contains(&answer(&simulator, FORMAT, false, &choice).await.text.as_str()));
}

#[tokio::test]
async fn a_cut_answer_is_incomplete_and_a_refusal_is_a_part() {
    let simulator = start_with("answer_tokens = 5_000");
    let mut body = question(FORMAT, "Hello");
    body["max_output_tokens"] = json!(30);
    for stream in [false, true] {
        let read = answer(&simulator, FORMAT, stream, &body).await;
        assert_eq!((read.finish.as_str(), read.output_tokens), ("incomplete", 30));
    }
    let (_, response) = post(&simulator, FORMAT, false, &body).await;
    assert!(response.contains(r#""incomplete_details":{"reason":"max_output_tokens"}"#), "{response}");
    let (_, stream) = post(&simulator, FORMAT, true, &body).await;
    assert_eq!(event_names(&stream).last().unwrap(), "response.incomplete");
    let simulator = start(Settings { faults: vec![Fault::new(FaultKind::Refusal)], ..Settings::default() });
    let (_, response) = post(&simulator, FORMAT, false, &question(FORMAT, "Hello")).await;
    let real = fixture_json("openai_responses_response_refusal.json");
    assert_eq!(shape(&serde_json::from_str(&response).unwrap()), shape(&real));
    let (_, stream) = post(&simulator, FORMAT, true, &question(FORMAT, "Hello")).await;
    let names = event_names(&stream);
    assert!(names.iter().any(|name| name == "response.refusal.delta"), "{names:?}");
}

#[tokio::test]
async fn faults_damage_the_stream() {
    let send = async |kind, stream| {
        let simulator = start(Settings { faults: vec![Fault::new(kind)], ..Settings::default() });
        let prompt = "Please tell me what stands in this letter.";
        let sent = post(&simulator, FORMAT, stream, &question(FORMAT, prompt)).await;
        assert_eq!(simulator.counts().by_fault, [(kind, 1)].into());
        sent
    };
    let (status, body) = send(FaultKind::ErrorInStream, true).await;
    let names = event_names(&body);
    assert_eq!((status, names.last().unwrap().as_str()), (200, "error"));
    assert!(names.iter().any(|name| name == "response.output_text.delta"), "{names:?}");
    let keys = ["type", "sequence_number", "code", "message", "param"];
    let error = events(&body).pop().unwrap();
    assert_eq!(error.as_object().unwrap().keys().collect::<Vec<_>>(), keys);
    let (_, body) = send(FaultKind::NoEnd, true).await;
    assert_eq!(event_names(&body).last().unwrap(), "response.output_text.delta");
    let (_, body) = send(FaultKind::MalformedChunk, true).await;
    let data = body.lines().filter_map(|line| line.strip_prefix("data: "));
    assert_eq!(data.filter(|data| serde_json::from_str::<Value>(data).is_err()).count(), 1);
    let (_, body) = send(FaultKind::Empty, false).await;
    assert_eq!(read(FORMAT, &serde_json::from_str(&body).unwrap()).text, "");
    let (status, body) = send(FaultKind::Quota, true).await;
    assert!(status == 429 && body.contains("insufficient_quota"), "{body}");
}

#[tokio::test]
async fn keys_models_limits_and_headers_are_those_of_openai() {
    let simulator =
        start_with("keys = [\"right\"]\nmodels = [\"m\"]\nlimits = { requests_per_minute = 100 }");
    let send = async |path: &str, key: &str, model: &str| {
        let body = json!({ "model": model, "input": "Hello" });
        let request = client().post(format!("http://{}{path}", simulator.addr())).bearer_auth(key);
        request.body(body.to_string()).send().await.unwrap()
    };
    for path in ["/v1/responses", "/responses"] {
        let response = send(path, "right", "m").await;
        assert_eq!(response.status(), 200);
        assert!(response.headers().contains_key("x-request-id"));
        assert_eq!(response.headers()["x-ratelimit-limit-requests"], "100");
        assert_eq!(send(path, "wrong", "m").await.status(), 401);
        assert_eq!(send(path, "right", "other").await.status(), 404);
    }
    assert_eq!(simulator.counts().by_vendor[&Vendor::OpenAi], 6);
}
