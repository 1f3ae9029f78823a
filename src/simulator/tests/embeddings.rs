//! Embeddings in the formats of OpenAI and Gemini.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::simulator::{Fault, FaultKind};

use super::*;

async fn post(simulator: &Simulator, vendor: Vendor, path: &str, body: &Value) -> (u16, Value) {
    let request = client().post(simulator.base_url(vendor) + path).body(body.to_string());
    let request = match vendor {
        Vendor::OpenAi | Vendor::Anthropic => request.bearer_auth("key"),
        Vendor::Gemini => request.header("x-goog-api-key", "key"),
    };
    let response = request.header("content-type", "application/json").send().await.unwrap();
    let status = response.status().as_u16();
    (status, serde_json::from_str(&response.text().await.unwrap()).unwrap())
}

async fn openai(simulator: &Simulator, body: Value) -> (u16, Value) {
    post(simulator, Vendor::OpenAi, "/embeddings", &body).await
}

fn numbers(list: &Value) -> Vec<f32> {
    list.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
}

#[tokio::test]
async fn a_text_has_the_same_vector_in_every_notation_and_format() {
    let simulator = start(Settings::default());
    let texts = json!(["low tide", "high tide"]);
    let (_, floats) = openai(&simulator, json!({ "model": "any", "input": texts, "dimensions": 100 })).await;
    let body = json!({ "model": "any", "input": texts, "dimensions": 100, "encoding_format": "base64" });
    let (status, base64) = openai(&simulator, body).await;
    assert_eq!(status, 200);
    let request = |text: &str| json!({ "model": "models/any", "content": { "parts": [{ "text": text }] }, "outputDimensionality": 100 });
    let batch = json!({ "requests": [request("low tide"), request("high tide")] });
    let path = "/v1beta/models/any:batchEmbedContents";
    let (_, gemini) = post(&simulator, Vendor::Gemini, path, &batch).await;
    for index in 0..2 {
        let vector = numbers(&floats["data"][index]["embedding"]);
        assert_eq!(vector.len(), 100);
        let bytes = STANDARD.decode(base64["data"][index]["embedding"].as_str().unwrap()).unwrap();
        let read: Vec<f32> =
            bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
        assert_eq!(read, vector);
        assert_eq!(numbers(&gemini["embeddings"][index]["values"]), vector);
        assert_eq!(floats["data"][index]["index"], index);
    }
    assert_eq!(floats["usage"], json!({ "prompt_tokens": 5, "total_tokens": 5 }));
    let path = "/v1beta/models/any:embedContent";
    let (_, one) = post(&simulator, Vendor::Gemini, path, &request("high tide")).await;
    assert_eq!(one["embedding"], gemini["embeddings"][1]);
    let (_, default) = openai(&simulator, json!({ "model": "any", "input": "low tide" })).await;
    assert_eq!(numbers(&default["data"][0]["embedding"]).len(), 8);
}

#[tokio::test]
async fn invalid_requests_unknown_models_and_wrong_keys_are_rejected_as_by_the_vendor() {
    let simulator = start_with("models = [\"any\"]");
    let (status, body) = openai(&simulator, json!({ "model": "any", "input": ["x", ""] })).await;
    assert_eq!((status, &body["error"]["param"]), (400, &json!("input")));
    let many = vec!["x"; 2_049];
    let (status, body) = openai(&simulator, json!({ "model": "any", "input": many })).await;
    assert_eq!((status, &body["error"]["code"]), (400, &json!("array_above_max_length")));
    let (status, _) = openai(&simulator, json!({ "model": "other", "input": "x" })).await;
    assert_eq!(status, 404);
    let path = "/v1beta/models/any:batchEmbedContents";
    let (status, body) = post(&simulator, Vendor::Gemini, path, &json!({ "requests": [] })).await;
    assert_eq!((status, &body["error"]["status"]), (400, &json!("INVALID_ARGUMENT")));
    let locked = start_with("keys = [\"other\"]");
    let (status, _) = openai(&locked, json!({ "model": "any", "input": "x" })).await;
    assert_eq!(status, 401);
}

#[tokio::test]
async fn limits_and_faults_apply_and_faults_of_texts_do_not() {
    let simulator = start_with("limits.requests_per_minute = 1");
    let body = || json!({ "model": "any", "input": "x" });
    assert_eq!(openai(&simulator, body()).await.0, 200);
    assert_eq!(openai(&simulator, body()).await.0, 429);
    assert_eq!((simulator.counts().input_tokens, simulator.counts().output_tokens), (1, 0));
    for (kind, status) in [(FaultKind::Unavailable, 503), (FaultKind::Refusal, 200), (FaultKind::Length, 200)]
    {
        let simulator = start(Settings { faults: vec![Fault::new(kind)], ..Settings::default() });
        let (received, _) = openai(&simulator, body()).await;
        assert_eq!(received, status, "{kind:?}");
        assert_eq!(simulator.counts().by_fault.is_empty(), status == 200, "{kind:?}");
    }
    let empty = start(Settings { faults: vec![Fault::new(FaultKind::Empty)], ..Settings::default() });
    assert_eq!(openai(&empty, body()).await.1["data"], json!([]));
}
