//! Settings, counts, and the same run twice.

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
async fn counts_and_settings_are_there_over_http() {
    let simulator = start(Settings::default());
    call(Vendor::Anthropic, true).send(&simulator).await;
    let (status, counts) = json_of(client().get(url(&simulator, "counts"))).await;
    assert_eq!((status, &counts["by_vendor"]["anthropic"]), (200, &json!(1)));
    let counts: Counts = serde_json::from_value(counts).unwrap();
    assert_eq!((counts.requests, counts.answered, counts.in_flight, counts.peak_in_flight), (1, 1, 0, 1));
    assert!(counts.connections >= 1 && counts.peak_connections >= counts.connections, "{counts:?}");

    let wish = json!({ "faults": [{ "kind": "server_error" }] }).to_string();
    let (status, settings) = json_of(client().put(url(&simulator, "settings")).body(wish)).await;
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
async fn what_nobody_plays_is_not_found() {
    let simulator = start(Settings::default());
    for path in ["/v1/embeddings", "/", "/simulator/else", "/v1/messages/batches"] {
        let url = format!("http://{}{path}", simulator.addr());
        assert_eq!(client().post(url).send().await.unwrap().status(), 404, "{path}");
    }
    assert_eq!(simulator.counts().requests, 0);
}

#[tokio::test]
async fn a_request_that_is_no_json_is_refused_and_counted() {
    let simulator = start(Settings::default());
    for vendor in Vendor::ALL {
        let request = call(vendor, false).request(&simulator).body("{\"model\": \u{1}");
        assert_eq!(request.send().await.unwrap().status(), 400, "{vendor}");
    }
    assert_eq!(simulator.counts().by_status, [(400, 3)].into());
}

#[tokio::test]
async fn one_seed_gives_one_run_whatever_the_order() {
    let toml = r#"
        seed = 5
        answer_tokens = { median = 60, p95 = 200 }
        faults = [{ kind = "server_error", share = 0.3 }, { kind = "empty", share = 0.2 }]
        "#;
    let calls: Vec<Call> = (0..40)
        .map(|nth| call(Vendor::ALL[nth % 3], nth % 2 == 0).prompt(format!("Letter {}", nth / 2)))
        .collect();
    let run = async |simulator: &Simulator, order: &mut dyn Iterator<Item = usize>| {
        let mut replies = vec![(0, String::new()); calls.len()];
        for nth in order {
            let reply = calls[nth].send(simulator).await;
            replies[nth] = (reply.status, if reply.status == 200 { reply.text() } else { String::new() });
        }
        replies
    };
    let simulator = playing(toml);
    let first = run(&simulator, &mut (0..40)).await;
    assert!(first.iter().any(|reply| reply.0 == 500) && first.iter().any(|reply| reply.0 == 200));
    let backwards = run(&playing(toml), &mut (0..40).rev()).await;
    assert_eq!(first, backwards);
    // The same requests again on the same simulator are new draws, until it is reset.
    assert_ne!(run(&simulator, &mut (0..40)).await, first);
    simulator.reset();
    assert_eq!(run(&simulator, &mut (0..40)).await, first);
    assert_ne!(run(&playing(&toml.replace("seed = 5", "seed = 6")), &mut (0..40)).await, first);
}

#[tokio::test]
async fn prompts_answered_twice_are_counted_where_it_is_asked_for() {
    let simulator =
        playing("track_prompts = true\nfaults = [{ kind = \"server_error\", contains = \"bad\" }]");
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
async fn latency_is_the_time_to_the_last_byte_and_the_first_piece_comes_earlier() {
    let simulator = playing("latency = \"200ms\"\nfirst_token = \"50ms\"\nchunks = 3");
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
async fn a_client_that_leaves_is_counted_as_gone() {
    let simulator = playing("latency = \"1h\"");
    let request = call(Vendor::OpenAi, true).request(&simulator);
    let leaving = tokio::time::timeout(Duration::from_millis(100), request.send()).await;
    assert!(leaving.is_err());
    // The server learns of it by the closed connection; that event has no other sign than the count.
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
async fn dropping_it_ends_its_connections() {
    let simulator = playing("latency = \"1h\"");
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
