//! Requests that a rate limit has no room for, while it has for others.

use pointsman::simulator::{Fault, FaultKind, Settings};
use serde_json::{Value, json};

use super::scripted::{ANSWER, Scripted, response, stream_of_length};
use super::stage::*;

const ONE_STEP: &str = "[[step]]\nname = \"s\"\nprompt = \"Greet {{ item.id }}.\"";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_item_that_is_always_limited_while_others_are_answered_fails_after_ten_attempts() {
    let play_one = async |(format, vendor): (&str, _)| {
        let poison = Fault { contains: Some("item-42.".to_owned()), ..Fault::new(FaultKind::RateLimited) };
        let latency = serde_json::from_value(json!("300ms")).unwrap();
        let simulator = play(Settings { latency, faults: vec![poison], ..Settings::default() });
        // So few at once that others are answered all the time.
        let more = format!("format = \"{format}\"\nkeys = [\"env:K1\"]\nlimits.concurrency = 4{PATIENT}");
        let config = provider_at("a", &simulator.base_url(vendor), &more);
        let ran = run(&start(&format!("{QUICK_RETRY}{config}")), ONE_STEP, 200).await;
        let failed: Vec<&Value> = ran.lines.iter().filter(|line| line["status"] != "completed").collect();
        let is_own = |line: &&&Value| line["key"] == "item-42" && line["error"]["class"] == "rate_limit";
        assert!(failed.len() == 1 && failed.iter().all(|line| is_own(&line)), "{format}: {failed:#?}");
        assert_eq!(ran.report.items.completed, 199, "{format}");
        // No other request is refused, or asked twice.
        let counts = simulator.counts();
        let refused = counts.by_status[&429];
        assert!((3..=10).contains(&refused), "{format}: {refused}");
        assert_eq!(counts.requests, 199 + refused, "{format}");
    };
    futures_util::future::join_all(FORMATS.map(play_one)).await;
}

/// Answers, but what is longer than its limit of tokens in a minute it refuses with this recorded body.
async fn with_small_limit(server: &str) -> Scripted {
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
    let answer = stream_of_length(ANSWER.len(), ANSWER);
    Scripted::start(move |head| {
        let length: usize = super::scripted::header(head, "content-length").unwrap().parse().unwrap();
        if length > 4_000 { refusal.clone() } else { answer.clone() }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_above_a_limit_of_tokens_goes_to_another_target_of_the_same_context_or_fails_after_one_attempt()
 {
    for server in ["OpenAI", "Groq"] {
        let (small, large) = (with_small_limit(server).await, play(Settings::default()));
        let sized = |name: &str, url: &str| {
            format!("[provider.{name}]\nbase_url = \"{url}\"\nmodels.m = {{ context = 32000 }}\n{PATIENT}\n")
        };
        let config = sized("small", &small.url())
            + &sized("large", &large.base_url(pointsman::simulator::Vendor::OpenAi))
            + "[route.both]\nlanes = [\"small/m\", \"large/m\"]\n[route.alone]\nlanes = [\"small/m\"]\n";
        let pointsman = start(&config);
        let long = "word ".repeat(1_000);
        assert_eq!(story(&ask(&pointsman, "both", &long).await), "small:too_long large:ok", "{server}");
        assert_eq!(story(&ask(&pointsman, "alone", &long).await), "small:too_long", "{server}");
        // Nothing is held back for it.
        assert_eq!(story(&ask(&pointsman, "alone", "A short one?").await), "small:ok", "{server}");
        assert!(snapshot(&pointsman, "small").held_for.is_zero(), "{server}");
    }
}
