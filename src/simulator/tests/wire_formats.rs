//! Responses, streams, errors and headers have the vendors' formats.

use super::*;

const BOOK_SCHEMA: &str = r#"{ "type": "object", "properties": { "title": { "type": "string" }, "genre": { "enum": ["fiction",
    "history"] } }, "required": ["title", "genre"], "additionalProperties": false }"#;

/// Returns the structure of each event of a stream, with the name of its event line. Repetitions are removed.
fn stream_shape(body: &str) -> Vec<(String, BTreeSet<String>)> {
    let mut shapes = Vec::new();
    let mut name = String::new();
    for line in body.lines() {
        if let Some(event) = line.strip_prefix("event: ") {
            name = event.to_owned();
        }
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let keys = if data == "[DONE]" {
            BTreeSet::from(["[DONE]".to_owned()])
        } else {
            shape(&serde_json::from_str(data).unwrap())
        };
        shapes.push((name.clone(), keys));
    }
    shapes.dedup();
    shapes
}

#[tokio::test]
async fn a_response_has_the_vendors_keys() {
    let simulator = start(Settings::default());
    for (vendor, name) in [
        (Vendor::OpenAi, "openai_chat_response.json"),
        (Vendor::Anthropic, "anthropic_messages_response.json"),
        (Vendor::Gemini, "gemini_generate_response.json"),
    ] {
        let response = call(vendor, false).send(&simulator).await;
        assert_eq!((response.status, response.header("content-type")), (200, Some("application/json")));
        let mut real = shape(&fixture_json(name));
        // Gemini omits zeros, and the simulator has no reasoning tokens and no cache.
        real.remove(".usageMetadata.thoughtsTokenCount");
        real.remove(".usageMetadata.cachedContentTokenCount");
        assert_eq!(shape(&response.json()), real, "{vendor}");
        assert!(response.text().starts_with("[simulated] Please tell me"), "{}", response.text());
    }
}

#[tokio::test]
async fn a_stream_has_the_vendors_events() {
    let simulator = start(Settings::default());
    for (vendor, name) in [
        (Vendor::OpenAi, "openai_chat_stream.sse"),
        (Vendor::Anthropic, "anthropic_messages_stream.sse"),
        (Vendor::Gemini, "gemini_stream.sse"),
    ] {
        let response = call(vendor, true).send(&simulator).await;
        assert!(response.header("content-type").unwrap().starts_with("text/event-stream"));
        let mut real = stream_shape(&fixture(name));
        for (_, keys) in &mut real {
            keys.remove(".usageMetadata.thoughtsTokenCount");
        }
        assert_eq!(stream_shape(&response.body), real, "{vendor}");
        assert_eq!(response.text(), "[simulated] Please tell me what stands in this letter.");
        assert_eq!(response.body.contains("\r\n\r\n"), vendor == Vendor::Gemini);
    }
}

#[tokio::test]
async fn openai_streams_usage_only_if_requested() {
    let simulator = start(Settings::default());
    let mut body = call(Vendor::OpenAi, true).body();
    body.as_object_mut().unwrap().remove("stream_options");
    let url = simulator.base_url(Vendor::OpenAi) + "/chat/completions";
    let text = client().post(url).body(body.to_string()).send().await.unwrap().text().await.unwrap();
    assert_eq!(stream_shape(&text), stream_shape(&fixture("openai_chat_stream_no_usage.sse")));
}

#[tokio::test]
async fn gemini_without_sse_streams_a_json_array() {
    let simulator = start(Settings::default());
    let url = simulator.base_url(Vendor::Gemini) + "/v1/models/any:streamGenerateContent";
    let body = call(Vendor::Gemini, true).body().to_string();
    let text = client().post(url).body(body).send().await.unwrap().text().await.unwrap();
    let chunks: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(chunks.last().unwrap()["candidates"][0]["finishReason"], "STOP");
}

#[tokio::test]
async fn the_vendors_example_requests_are_accepted() {
    let simulator = start(Settings::default());
    for (vendor, name) in [
        (Vendor::OpenAi, "openai_chat_request.json"),
        (Vendor::Anthropic, "anthropic_messages_request.json"),
        (Vendor::Anthropic, "anthropic_messages_request_structured.json"),
        (Vendor::Gemini, "gemini_generate_request.json"),
        (Vendor::Gemini, "gemini_generate_request_structured.json"),
    ] {
        let request = call(vendor, false).request(&simulator).body(fixture(name));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{name}: {}", response.text().await.unwrap());
    }
}

#[tokio::test]
async fn structured_answers_satisfy_the_schema() {
    let simulator = start(Settings::default());
    let schema: Value = serde_json::from_str(BOOK_SCHEMA).unwrap();
    let mut genres = BTreeSet::new();
    for vendor in Vendor::ALL {
        for stream in [false, true] {
            for nth in 0..8 {
                let call = call(vendor, stream).schema(schema.clone()).prompt(format!("Book {nth}"));
                let text = call.send(&simulator).await.text();
                let value: Value = serde_json::from_str(&text).unwrap();
                assert!(jsonschema::is_valid(&schema, &value), "{vendor}: {value}");
                genres.insert(value["genre"].to_string());
            }
        }
    }
    assert_eq!(genres.len(), 2, "both options are chosen by some request");
}

#[tokio::test]
async fn a_choice_is_answered_with_one_of_its_options() {
    let simulator = start(Settings::default());
    for vendor in Vendor::ALL {
        let call = call(vendor, true).prompt("Buy now!\n\nAnswer with exactly one of: MARKETING, OTHER");
        let text = call.send(&simulator).await.text();
        assert!(text == "MARKETING" || text == "OTHER", "{text}");
    }
    let body = json!({ "contents": [{ "parts": [{ "text": "Which?" }] }], "generationConfig": {
        "responseMimeType": "text/x.enum", "responseSchema": { "type": "STRING", "enum": ["A", "B"] } } });
    let request = call(Vendor::Gemini, false).request(&simulator).body(body.to_string());
    let response: Value = serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
    let text = response["candidates"][0]["content"]["parts"][0]["text"].as_str().unwrap();
    assert!(["A", "B"].contains(&text), "{text}");
}

#[tokio::test]
async fn usage_adds_up() {
    let simulator = start_with("answer_tokens = 50");
    let prompt = "x".repeat(401);
    let openai = call(Vendor::OpenAi, false).prompt(&prompt).send(&simulator).await.json();
    assert_eq!(openai["usage"]["prompt_tokens"], 101);
    assert_eq!(openai["usage"]["completion_tokens"], 50);
    assert_eq!(openai["usage"]["total_tokens"], 151);
    let anthropic = call(Vendor::Anthropic, true).prompt(&prompt).send(&simulator).await;
    let events = events(&anthropic.body);
    assert_eq!(events[0]["message"]["usage"]["input_tokens"], 101);
    assert_eq!(events[events.len() - 2]["usage"]["output_tokens"], 50);
    let gemini = call(Vendor::Gemini, false).prompt(&prompt).send(&simulator).await.json();
    assert_eq!(gemini["usageMetadata"]["totalTokenCount"], 151);
    let counts = simulator.counts();
    assert_eq!((counts.input_tokens, counts.output_tokens), (303, 150));
}

#[tokio::test]
async fn an_answer_that_reaches_max_tokens_is_marked_in_the_vendors_format() {
    let simulator = start_with("answer_tokens = 5_000");
    for (vendor, limit, pointer, word) in [
        (Vendor::OpenAi, "max_tokens", "/choices/0/finish_reason", "length"),
        (Vendor::OpenAi, "max_completion_tokens", "/choices/0/finish_reason", "length"),
        (Vendor::Anthropic, "max_tokens", "/stop_reason", "max_tokens"),
        (Vendor::Gemini, "generationConfig", "/candidates/0/finishReason", "MAX_TOKENS"),
    ] {
        let mut body = call(vendor, false).body();
        body[limit] = if vendor == Vendor::Gemini { json!({ "maxOutputTokens": 30 }) } else { json!(30) };
        let request = call(vendor, false).request(&simulator).body(body.to_string());
        let response: Value =
            serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
        assert_eq!(response.pointer(pointer).unwrap(), word, "{vendor} {limit}");
    }
}

#[tokio::test]
async fn a_schema_that_the_vendor_rejects_is_rejected() {
    let open = json!({ "type": "object", "properties": { "a": { "type": "string" } }, "required": ["a"] });
    let simulator = start(Settings::default());
    let response = call(Vendor::OpenAi, false).schema(open.clone()).send(&simulator).await;
    assert_eq!(response.status, 400);
    assert_eq!(shape(&response.json()), shape(&fixture_json("openai_error_400_invalid_schema.json")));
    assert_eq!(call(Vendor::Anthropic, false).schema(open.clone()).send(&simulator).await.status, 400);
    assert_eq!(call(Vendor::Gemini, false).schema(open.clone()).send(&simulator).await.status, 200);
    simulator.set(Settings { strict_schemas: false, ..Settings::default() });
    assert_eq!(call(Vendor::OpenAi, false).schema(open).send(&simulator).await.status, 200);
}

#[tokio::test]
async fn a_wrong_or_missing_key_is_rejected_in_the_vendors_format() {
    let simulator = start_with(r#"keys = ["right"]"#);
    for (vendor, status, name) in [
        (Vendor::OpenAi, 401, "openai_error_401_invalid_api_key.json"),
        (Vendor::Anthropic, 401, "anthropic_error_401_authentication.json"),
        (Vendor::Gemini, 400, "gemini_error_400_api_key_invalid.json"),
    ] {
        assert_eq!(call(vendor, false).key("right").send(&simulator).await.status, 200);
        let response = call(vendor, false).key("wrong").send(&simulator).await;
        assert_eq!(response.status, status);
        assert_eq!(shape(&response.json()), shape(&fixture_json(name)), "{vendor}");
    }
    let url = simulator.base_url(Vendor::Gemini) + call(Vendor::Gemini, false).path();
    let body = call(Vendor::Gemini, false).body().to_string();
    let missing = client().post(&url).body(body.clone()).send().await.unwrap();
    assert_eq!(missing.status(), 403);
    let in_query = client().post(format!("{url}?key=right")).body(body).send().await.unwrap();
    assert_eq!(in_query.status(), 200);
    let url = simulator.base_url(Vendor::OpenAi) + "/chat/completions";
    let missing =
        client().post(url).body(call(Vendor::OpenAi, false).body().to_string()).send().await.unwrap();
    assert_eq!(missing.status(), 401);
}

#[tokio::test]
async fn an_unknown_model_is_rejected_only_if_models_are_listed() {
    let simulator = start_with(r#"models = ["other"]"#);
    for (vendor, name) in [
        (Vendor::OpenAi, "openai_error_404_model_not_found.json"),
        (Vendor::Anthropic, "anthropic_error_404_model.json"),
        (Vendor::Gemini, "gemini_error_404_model.json"),
    ] {
        let response = call(vendor, false).send(&simulator).await;
        assert_eq!(response.status, 404);
        assert_eq!(shape(&response.json()), shape(&fixture_json(name)), "{vendor}");
    }
}

#[tokio::test]
async fn the_second_anthropic_version_rejects_a_temperature() {
    let simulator = start(Settings::default());
    let mut body = call(Vendor::Anthropic, false).body();
    body["temperature"] = json!(1.0);
    let request = call(Vendor::Anthropic, false).request(&simulator).body(body.to_string());
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 400);
    let response: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    let real = fixture_json("anthropic_error_400_temperature_removed.json");
    assert_eq!(response["error"], real["error"]);
    assert_eq!(shape(&response), shape(&real));
}

#[tokio::test]
async fn response_ids_are_unique() {
    let simulator = start(Settings::default());
    for (vendor, header, pointer) in [
        (Vendor::OpenAi, Some("x-request-id"), "/id"),
        (Vendor::Anthropic, Some("request-id"), "/id"),
        (Vendor::Gemini, None, "/responseId"),
    ] {
        let one = call(vendor, false).send(&simulator).await;
        let two = call(vendor, false).send(&simulator).await;
        assert_ne!(one.json().pointer(pointer).unwrap(), two.json().pointer(pointer).unwrap());
        if let Some(header) = header {
            assert_ne!(one.header(header).unwrap(), two.header(header).unwrap());
        }
    }
}

#[tokio::test]
async fn the_model_list_has_the_vendors_format() {
    let simulator = start_with(r#"models = ["one", "two"]"#);
    let list = async |path: &str, header: &'static str| {
        let request = client().get(format!("http://{}{path}", simulator.addr())).header(header, "2023-06-01");
        serde_json::from_str::<Value>(&request.send().await.unwrap().text().await.unwrap()).unwrap()
    };
    let openai = list("/v1/models", "x-other").await;
    assert_eq!(openai["data"][1]["id"], "two");
    let mut real = shape(&fixture_json("openai_models_list.json"));
    real.remove(".data[].shutdown_date");
    assert_eq!(shape(&openai), real);
    let anthropic = list("/v1/models", "anthropic-version").await;
    assert_eq!(shape(&anthropic), shape(&fixture_json("anthropic_models_list.json")));
    let gemini = list("/v1beta/models", "x-other").await;
    assert_eq!(gemini["models"][0]["name"], "models/one");
    assert!(shape(&gemini).is_subset(&shape(&fixture_json("gemini_models_list.json"))));
}
