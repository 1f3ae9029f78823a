//! Tests of the control API, counts and reproducibility.

use std::time::Duration;

use crate::simulator::Counts;

use super::*;

async fn json_of(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    (response.status().as_u16(), serde_json::from_str(&response.text().await.unwrap()).unwrap())
}

fn url(simulator: &Simulator, what: &str) -> String {
    format!("http://{}/simulator/{what}", simulator.addr())
}

#[tokio::test]
async fn counts_and_settings_are_available_over_http() {
    let simulator = start(Settings::default());
    call(Vendor::Anthropic, true).send(&simulator).await;
    let (status, counts) = json_of(client().get(url(&simulator, "counts"))).await;
    assert_eq!((status, &counts["by_vendor"]["anthropic"]), (200, &json!(1)));
    let counts: Counts = serde_json::from_value(counts).unwrap();
    assert_eq!((counts.requests, counts.answered, counts.in_flight, counts.peak_in_flight), (1, 1, 0, 1));
    assert!(counts.connections >= 1 && counts.peak_connections >= counts.connections, "{counts:?}");

    let new_settings = json!({ "faults": [{ "kind": "server_error" }] }).to_string();
    let (status, settings) = json_of(client().put(url(&simulator, "settings")).body(new_settings)).await;
    assert_eq!((status, &settings["faults"][0]["kind"]), (200, &json!("server_error")));
    assert_eq!(call(Vendor::OpenAi, false).send(&simulator).await.status, 500);
    assert_eq!(json_of(client().get(url(&simulator, "settings"))).await, (200, settings));

    let (status, error) = json_of(client().put(url(&simulator, "settings")).body(r#"{"sede":1}"#)).await;
    assert_eq!(status, 400);
    assert!(error["error"].as_str().unwrap().contains("unknown field `sede`"), "{error}");
    assert_eq!(call(Vendor::OpenAi, false).send(&simulator).await.status, 500);

    let (status, counts) = json_of(client().post(url(&simulator, "reset"))).await;
    assert_eq!((status, &counts["requests"]), (200, &json!(0)));
}

#[tokio::test]
async fn a_page_in_a_browser_cannot_change_the_simulator() {
    let simulator = start(Settings::default());
    call(Vendor::OpenAi, false).send(&simulator).await;
    let port = simulator.addr().port();
    let hosts = ["attacker.example", "localhost.attacker.example", "127.0.0.1.attacker.example", ""];
    let refused = hosts.map(|host| ("host", format!("{host}:{port}")));
    let origins = ["http://attacker.example", "null"].map(|origin| ("origin", origin.to_owned()));
    for (name, value) in refused.into_iter().chain(origins) {
        let with = |request: reqwest::RequestBuilder| request.header(name, &value);
        let (status, error) = json_of(with(client().post(url(&simulator, "reset")))).await;
        assert_eq!(status, 403, "{name}: {value}");
        assert!(error["error"].as_str().unwrap().contains("`Host`"), "{error}");
        let settings = json!({ "faults": [{ "kind": "server_error" }] }).to_string();
        let (status, _) = json_of(with(client().put(url(&simulator, "settings")).body(settings))).await;
        assert_eq!(status, 403, "{name}: {value}");
    }
    assert_eq!(simulator.counts().requests, 1);
    assert_eq!(call(Vendor::OpenAi, false).send(&simulator).await.status, 200);
    for host in ["localhost", "LOCALHOST:8089", "127.0.0.1:8089", "[::1]:8089", "[::1]"] {
        let (status, _) = json_of(client().post(url(&simulator, "reset")).header("host", host)).await;
        assert_eq!(status, 200, "{host}");
    }
    assert_eq!(simulator.counts().requests, 0);
}

#[tokio::test]
async fn an_unknown_path_is_not_found() {
    let simulator = start(Settings::default());
    for path in ["/v1/images", "/", "/simulator/else", "/v1/messages/batches"] {
        let url = format!("http://{}{path}", simulator.addr());
        assert_eq!(client().post(url).send().await.unwrap().status(), 404, "{path}");
    }
    assert_eq!(simulator.counts().requests, 0);
}

#[tokio::test]
async fn a_request_with_invalid_json_is_rejected_and_counted() {
    let simulator = start(Settings::default());
    for vendor in Vendor::ALL {
        let request = call(vendor, false).request(&simulator).body("{\"model\": \u{1}");
        assert_eq!(request.send().await.unwrap().status(), 400, "{vendor}");
    }
    assert_eq!(simulator.counts().by_status, [(400, 3)].into());
}

#[tokio::test]
async fn the_same_seed_results_in_the_same_responses_in_any_order() {
    let toml = r#"
        seed = 5
        answer_tokens = { median = 60, p95 = 200 }
        faults = [{ kind = "server_error", share = 0.3 }, { kind = "empty", share = 0.2 }]
        "#;
    let calls: Vec<Call> = (0..40)
        .map(|nth| call(Vendor::ALL[nth % 3], nth % 2 == 0).prompt(format!("Letter {}", nth / 2)))
        .collect();
    let send_all = async |simulator: &Simulator, order: &mut dyn Iterator<Item = usize>| {
        let mut responses = vec![(0, String::new()); calls.len()];
        for nth in order {
            let response = calls[nth].send(simulator).await;
            responses[nth] =
                (response.status, if response.status == 200 { response.text() } else { String::new() });
        }
        responses
    };
    let simulator = start_with(toml);
    let first = send_all(&simulator, &mut (0..40)).await;
    assert!(first.iter().any(|response| response.0 == 500) && first.iter().any(|response| response.0 == 200));
    let backwards = send_all(&start_with(toml), &mut (0..40).rev()).await;
    assert_eq!(first, backwards);
    // Repeated requests get new random values until the simulator is reset.
    assert_ne!(send_all(&simulator, &mut (0..40)).await, first);
    simulator.reset();
    assert_eq!(send_all(&simulator, &mut (0..40)).await, first);
    assert_ne!(send_all(&start_with(&toml.replace("seed = 5", "seed = 6")), &mut (0..40)).await, first);
}

#[tokio::test]
async fn repeated_prompts_are_counted_if_enabled() {
    let simulator =
        start_with("track_prompts = true\nfaults = [{ kind = \"server_error\", contains = \"bad\" }]");
    call(Vendor::OpenAi, false).prompt("one").send(&simulator).await;
    call(Vendor::Gemini, true).prompt("one").send(&simulator).await;
    call(Vendor::OpenAi, false).prompt("two").send(&simulator).await;
    call(Vendor::OpenAi, false).prompt("bad").send(&simulator).await;
    let counts = simulator.counts();
    assert_eq!((counts.distinct_prompts, counts.repeated_prompts), (Some(2), Some(1)));
    assert_eq!((counts.answered, counts.requests), (3, 4));
    assert_eq!(start(Settings::default()).counts().distinct_prompts, None);
}

#[tokio::test]
async fn latency_is_the_time_to_the_last_byte_and_the_first_chunk_is_earlier() {
    let simulator = start_with("latency = \"200ms\"\nfirst_token = \"50ms\"\nchunks = 3");
    let begin = tokio::time::Instant::now();
    let mut response = call(Vendor::OpenAi, true).request(&simulator).send().await.unwrap();
    let head = begin.elapsed();
    assert!((Duration::from_millis(50)..Duration::from_millis(190)).contains(&head), "{head:?}");
    let mut parts = 0;
    while response.chunk().await.unwrap().is_some() {
        parts += 1;
    }
    assert!(begin.elapsed() >= Duration::from_millis(199), "{:?}", begin.elapsed());
    assert!(parts >= 2, "{parts} parts");
    let begin = tokio::time::Instant::now();
    call(Vendor::OpenAi, false).send(&simulator).await;
    assert!(begin.elapsed() >= Duration::from_millis(199));
}

#[tokio::test]
async fn a_client_that_disconnects_is_counted_as_abandoned() {
    let simulator = start_with("latency = \"1h\"");
    let request = call(Vendor::OpenAi, true).request(&simulator);
    let result = tokio::time::timeout(Duration::from_millis(100), request.send()).await;
    assert!(result.is_err());
    // The server detects the closed connection. The count is the only observable effect.
    tokio::time::timeout(Duration::from_secs(5), async {
        while simulator.counts().abandoned == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert_eq!(simulator.counts().in_flight, 0);
}

#[tokio::test]
async fn dropping_the_simulator_closes_its_connections() {
    let simulator = start_with("latency = \"1h\"");
    let request = call(Vendor::OpenAi, true).request(&simulator);
    let answer = async {
        let waiting = Handle::current().spawn(request.send());
        while simulator.counts().in_flight == 0 {
            tokio::task::yield_now().await;
        }
        let address = simulator.addr();
        drop(simulator);
        (address, waiting.await.unwrap())
    };
    let (address, answer) = tokio::time::timeout(Duration::from_secs(5), answer).await.unwrap();
    assert!(answer.is_err());
    assert!(client().get(format!("http://{address}/v1/models")).send().await.is_err());
}
