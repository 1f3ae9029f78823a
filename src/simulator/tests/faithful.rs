//! Replies, streams, errors and headers have the vendors' own form.

use super::*;

const BOOK: &str = r#"{ "type": "object", "properties": { "title": { "type": "string" }, "genre": { "enum": ["fiction",
    "history"] } }, "required": ["title", "genre"], "additionalProperties": false }"#;

/// The shapes of a stream's events, each named by its event line where it has one, repetitions once.
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
async fn a_whole_reply_has_the_keys_of_the_real_one() {
    let simulator = start(Settings::default());
    for (vendor, name) in [
        (Vendor::OpenAi, "openai_chat_response.json"),
        (Vendor::Anthropic, "anthropic_messages_response.json"),
        (Vendor::Gemini, "gemini_generate_response.json"),
    ] {
        let reply = call(vendor, false).send(&simulator).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
        let mut real = shape(&fixture_json(name));
        // This vendor leaves zeros out, and the simulator neither thinks nor caches.
        real.remove(".usageMetadata.thoughtsTokenCount");
        real.remove(".usageMetadata.cachedContentTokenCount");
        assert_eq!(shape(&reply.json()), real, "{vendor}");
        assert!(reply.text().starts_with("[practice] Please tell me"), "{}", reply.text());
    }
}

#[tokio::test]
async fn a_stream_has_the_events_of_the_real_one() {
    let simulator = start(Settings::default());
    for (vendor, name) in [
        (Vendor::OpenAi, "openai_chat_stream.sse"),
        (Vendor::Anthropic, "anthropic_messages_stream.sse"),
        (Vendor::Gemini, "gemini_stream.sse"),
    ] {
        let reply = call(vendor, true).send(&simulator).await;
        assert!(reply.header("content-type").unwrap().starts_with("text/event-stream"));
        let mut real = stream_shape(&fixture(name));
        for (_, keys) in &mut real {
            keys.remove(".usageMetadata.thoughtsTokenCount");
        }
        assert_eq!(stream_shape(&reply.body), real, "{vendor}");
        assert_eq!(reply.text(), "[practice] Please tell me what stands in this letter.");
        assert_eq!(reply.body.contains("\r\n\r\n"), vendor == Vendor::Gemini);
    }
}

#[tokio::test]
async fn openai_streams_usage_only_where_it_is_asked_for() {
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
async fn the_vendors_own_example_requests_are_understood() {
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
async fn structured_answers_satisfy_the_schema_at_every_vendor_in_both_forms() {
    let simulator = start(Settings::default());
    let schema: Value = serde_json::from_str(BOOK).unwrap();
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
    let reply: Value = serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
    let text = reply["candidates"][0]["content"]["parts"][0]["text"].as_str().unwrap();
    assert!(["A", "B"].contains(&text), "{text}");
}

#[tokio::test]
async fn usage_adds_up() {
    let simulator = playing("answer_tokens = 50");
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
async fn an_answer_that_reaches_max_tokens_says_so_in_the_vendors_words() {
    let simulator = playing("answer_tokens = 5_000");
    for (vendor, limit, place, word) in [
        (Vendor::OpenAi, "max_tokens", "/choices/0/finish_reason", "length"),
        (Vendor::OpenAi, "max_completion_tokens", "/choices/0/finish_reason", "length"),
        (Vendor::Anthropic, "max_tokens", "/stop_reason", "max_tokens"),
        (Vendor::Gemini, "generationConfig", "/candidates/0/finishReason", "MAX_TOKENS"),
    ] {
        let mut body = call(vendor, false).body();
        body[limit] = if vendor == Vendor::Gemini { json!({ "maxOutputTokens": 30 }) } else { json!(30) };
        let request = call(vendor, false).request(&simulator).body(body.to_string());
        let reply: Value =
            serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
        assert_eq!(reply.pointer(place).unwrap(), word, "{vendor} {limit}");
    }
}

#[tokio::test]
async fn a_schema_that_the_vendor_would_refuse_is_refused() {
    let open = json!({ "type": "object", "properties": { "a": { "type": "string" } }, "required": ["a"] });
    let simulator = start(Settings::default());
    let reply = call(Vendor::OpenAi, false).schema(open.clone()).send(&simulator).await;
    assert_eq!(reply.status, 400);
    assert_eq!(shape(&reply.json()), shape(&fixture_json("openai_error_400_invalid_schema.json")));
    assert_eq!(call(Vendor::Anthropic, false).schema(open.clone()).send(&simulator).await.status, 400);
    assert_eq!(call(Vendor::Gemini, false).schema(open.clone()).send(&simulator).await.status, 200);
    simulator.set(Settings { strict_schemas: false, ..Settings::default() });
    assert_eq!(call(Vendor::OpenAi, false).schema(open).send(&simulator).await.status, 200);
}

#[tokio::test]
async fn a_wrong_key_and_a_missing_one_are_refused_in_the_vendors_words() {
    let simulator = playing(r#"keys = ["right"]"#);
    for (vendor, status, name) in [
        (Vendor::OpenAi, 401, "openai_error_401_invalid_api_key.json"),
        (Vendor::Anthropic, 401, "anthropic_error_401_authentication.json"),
        (Vendor::Gemini, 400, "gemini_error_400_api_key_invalid.json"),
    ] {
        assert_eq!(call(vendor, false).key("right").send(&simulator).await.status, 200);
        let reply = call(vendor, false).key("wrong").send(&simulator).await;
        assert_eq!(reply.status, status);
        assert_eq!(shape(&reply.json()), shape(&fixture_json(name)), "{vendor}");
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
async fn an_unknown_model_is_refused_only_where_models_are_named() {
    let simulator = playing(r#"models = ["other"]"#);
    for (vendor, name) in [
        (Vendor::OpenAi, "openai_error_404_model_not_found.json"),
        (Vendor::Anthropic, "anthropic_error_404_model.json"),
        (Vendor::Gemini, "gemini_error_404_model.json"),
    ] {
        let reply = call(vendor, false).send(&simulator).await;
        assert_eq!(reply.status, 404);
        assert_eq!(shape(&reply.json()), shape(&fixture_json(name)), "{vendor}");
    }
}

#[tokio::test]
async fn anthropics_second_version_refuses_a_temperature() {
    let simulator = start(Settings::default());
    let mut body = call(Vendor::Anthropic, false).body();
    body["temperature"] = json!(1.0);
    let request = call(Vendor::Anthropic, false).request(&simulator).body(body.to_string());
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 400);
    let reply: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    let real = fixture_json("anthropic_error_400_temperature_removed.json");
    assert_eq!(reply["error"], real["error"]);
    assert_eq!(shape(&reply), shape(&real));
}

#[tokio::test]
async fn replies_carry_ids_that_never_repeat() {
    let simulator = start(Settings::default());
    for (vendor, header, place) in [
        (Vendor::OpenAi, Some("x-request-id"), "/id"),
        (Vendor::Anthropic, Some("request-id"), "/id"),
        (Vendor::Gemini, None, "/responseId"),
    ] {
        let (one, two) =
            (call(vendor, false).send(&simulator).await, call(vendor, false).send(&simulator).await);
        assert_ne!(one.json().pointer(place).unwrap(), two.json().pointer(place).unwrap());
        if let Some(header) = header {
            assert_ne!(one.header(header).unwrap(), two.header(header).unwrap());
        }
    }
}

#[tokio::test]
async fn each_vendor_lists_its_models_in_its_own_form() {
    let simulator = playing(r#"models = ["one", "two"]"#);
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
