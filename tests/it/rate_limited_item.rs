//! Requests that exceed a rate limit while other requests do not.

use pointsman::simulator::{Fault, FaultKind, Settings};
use serde_json::{Value, json};

use super::scripted_server::{RESPONSE_STREAM, ScriptedServer, response, stream_of_length};
use super::support::*;

const ONE_STEP: &str = "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.id }}.\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_that_is_always_rate_limited_while_others_succeed_fails_after_ten_attempts() {
    let run_format = async |(format, vendor): (&str, _)| {
        let fault = Fault { contains: Some("item-42.".to_owned()), ..Fault::new(FaultKind::RateLimited) };
        let latency = serde_json::from_value(json!("300ms")).unwrap();
        let simulator = start_simulator(Settings { latency, faults: vec![fault], ..Settings::default() });
        // Few concurrent calls, so that other items are answered all the time.
        let more =
            format!("format = \"{format}\"\nkeys = [\"env:K1\"]\nlimits.concurrency = 4{LONG_TIMEOUTS}");
        let config = provider_config_at("a", &simulator.base_url(vendor), &more);
        let finished = run_pipeline(&start_pointsman(&format!("{QUICK_RETRY}{config}")), ONE_STEP, 200).await;
        let failed: Vec<&Value> =
            finished.lines.iter().filter(|line| line["status"] != "completed").collect();
        let is_expected = |line: &&&Value| line["key"] == "item-42" && line["error"]["class"] == "rate_limit";
        assert!(failed.len() == 1 && failed.iter().all(|line| is_expected(&line)), "{format}: {failed:#?}");
        assert_eq!(finished.report.items.completed, 199, "{format}");
        // No other request is refused or sent twice.
        let counts = simulator.counts();
        let refused = counts.by_status[&429];
        assert!((3..=10).contains(&refused), "{format}: {refused}");
        assert_eq!(counts.requests, 199 + refused, "{format}");
    };
    futures_util::future::join_all(FORMATS.map(run_format)).await;
}

/// Starts a server that refuses requests above its limit of tokens per minute with the recorded body of
/// `server`, and answers all others.
async fn start_server_with_small_limit(server: &str) -> ScriptedServer {
    let bodies = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/errors/bodies.jsonl"));
    let recorded = bodies
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .find(|row| {
            row["server"] == server && row["body"].as_str().unwrap().contains("Request too large for")
        })
        .unwrap();
    let refusal = response(
        &format!("{} Refused", recorded["status"]),
        "content-type: application/json\r\n",
        recorded["body"].as_str().unwrap(),
    );
    let answer = stream_of_length(RESPONSE_STREAM.len(), RESPONSE_STREAM);
    ScriptedServer::start(move |head| {
        let length: usize = super::scripted_server::header(head, "content-length").unwrap().parse().unwrap();
        if length > 4_000 { refusal.clone() } else { answer.clone() }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_above_a_token_limit_fails_over_or_fails_after_one_attempt() {
    for server in ["OpenAI", "Groq"] {
        let small = start_server_with_small_limit(server).await;
        let large = start_simulator(Settings::default());
        let sized = |name: &str, url: &str| {
            format!(
                "[provider.{name}]\nbase_url = \"{url}\"\nmodels.m = {{ context = 32000 }}\n{LONG_TIMEOUTS}\n"
            )
        };
        let config = sized("small", &small.url())
            + &sized("large", &large.base_url(pointsman::simulator::Vendor::OpenAi))
            + "[route.both]\ntargets = [\"small/m\", \"large/m\"]\n[route.alone]\ntargets = [\"small/m\"]\n";
        let pointsman = start_pointsman(&config);
        let long = "word ".repeat(1_000);
        assert_eq!(
            attempt_summary(&send_request(&pointsman, "both", &long).await),
            "small:too_long large:ok",
            "{server}"
        );
        assert_eq!(
            attempt_summary(&send_request(&pointsman, "alone", &long).await),
            "small:too_long",
            "{server}"
        );
        // The provider delays no other request because of it.
        assert_eq!(
            attempt_summary(&send_request(&pointsman, "alone", "A short one?").await),
            "small:ok",
            "{server}"
        );
        assert!(provider_snapshot(&pointsman, "small").held_for.is_zero(), "{server}");
    }
}
