//! Tests of rate limits and rate-limit headers.

use std::num::NonZeroU64;

use crate::simulator::{AccountLimits, BucketSize, RetryAfter};

use super::*;

async fn statuses(simulator: &Simulator, call: &Call, calls: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..calls {
        statuses.push(call.send(simulator).await.status);
    }
    statuses
}

#[tokio::test]
async fn a_call_above_the_limit_is_rejected_in_the_vendors_format() {
    for (vendor, name, after) in [
        (Vendor::OpenAi, "openai_error_429_rate_limit_requests.json", Some("12")),
        (Vendor::Anthropic, "anthropic_error_429_rate_limit.json", Some("12")),
        (Vendor::Gemini, "gemini_error_429_retryinfo.json", None),
    ] {
        let simulator = start_with("limits = { requests_per_minute = 5 }");
        let call = call(vendor, false);
        assert_eq!(statuses(&simulator, &call, 5).await, [200; 5]);
        let rejected = call.send(&simulator).await;
        assert_eq!(rejected.status, 429);
        assert_eq!(shape(&rejected.json()), shape(&fixture_json(name)), "{vendor}");
        assert_eq!(rejected.header("retry-after"), after);
        // Another key is another account.
        assert_eq!(call.key("another").send(&simulator).await.status, 200);
        let counts = simulator.counts();
        assert_eq!((counts.admitted, counts.refused), (6, 1));
        assert_eq!(counts.by_status, [(200, 6), (429, 1)].into());
        assert_eq!(counts.seconds.iter().map(|slot| slot.admitted + slot.refused).sum::<u64>(), 7);
    }
}

#[tokio::test]
async fn a_second_bucket_rejects_calls_that_a_minute_bucket_admits() {
    let simulator = start_with(r#"limits = { requests_per_minute = 60, bucket = "1s" }"#);
    let call = call(Vendor::OpenAi, true);
    let statuses = statuses(&simulator, &call, 2).await;
    assert_eq!(statuses, [200, 429]);
    let rejected = call.send(&simulator).await;
    assert_eq!(rejected.header("retry-after"), Some("1"));
    let millis: u64 = rejected.header("retry-after-ms").unwrap().parse().unwrap();
    assert!((1..=1_000).contains(&millis));
}

#[tokio::test]
async fn tokens_are_limited() {
    let accounting = r#"output_accounting = "oracle""#;
    let simulator =
        start_with(&format!("answer_tokens = 30\nlimits = {{ tokens_per_minute = 100, {accounting} }}"));
    let call = call(Vendor::OpenAi, false).prompt("x".repeat(40));
    assert_eq!(statuses(&simulator, &call, 3).await, [200, 200, 429]);
    let rejected = call.send(&simulator).await.json();
    assert_eq!(rejected["error"]["type"], "tokens");
    let message = rejected["error"]["message"].as_str().unwrap();
    assert!(message.contains("Limit 100, Used 80, Requested 40"), "{message}");
    let limits = format!("limits = {{ output_tokens_per_minute = 59, {accounting} }}");
    let simulator = start_with(&format!("answer_tokens = 30\n{limits}"));
    let call = super::call(Vendor::Anthropic, false);
    assert_eq!(statuses(&simulator, &call, 2).await, [200, 429]);
    let message = call.send(&simulator).await.json()["error"]["message"].clone();
    assert!(message.as_str().unwrap().contains("59 output tokens per minute"), "{message}");
}

#[tokio::test]
async fn output_can_be_charged_by_max_tokens() {
    let simulator =
        start_with(r#"limits = { output_tokens_per_minute = 800, output_accounting = "max_tokens" }"#);
    // Each call requests 400 tokens and generates far fewer.
    assert_eq!(statuses(&simulator, &call(Vendor::Anthropic, false), 3).await, [200, 200, 429]);
}

#[tokio::test]
async fn output_is_charged_as_it_is_generated() {
    let simulator = start_with("answer_tokens = 30\nlimits = { tokens_per_minute = 100 }");
    for stream in [false, true] {
        simulator.reset();
        let call = call(Vendor::OpenAi, stream).prompt("x".repeat(40));
        // 10 input and 30 output tokens each: the third call is admitted and overdraws the limit with its answer.
        assert_eq!(statuses(&simulator, &call, 2).await, [200; 2]);
        let third = call.send(&simulator).await;
        assert_eq!((third.status, third.header("x-ratelimit-remaining-tokens")), (200, Some("10")));
        let rejected = call.send(&simulator).await;
        assert_eq!((rejected.status, rejected.header("x-ratelimit-remaining-tokens")), (429, Some("0")));
        let counts = simulator.counts();
        assert_eq!((counts.input_tokens, counts.output_tokens), (30, 90), "{stream}");
        assert_eq!(counts.seconds.iter().map(|slot| slot.output_tokens).sum::<u64>(), 90);
    }
}

#[tokio::test]
async fn a_client_that_disconnects_is_charged_for_the_generated_tokens() {
    let simulator = start_with("answer_tokens = 1_000\nlatency = \"1h\"\nfirst_token = 0\nchunks = 1000");
    let mut response = call(Vendor::OpenAi, true).request(&simulator).send().await.unwrap();
    response.chunk().await.unwrap();
    drop(response);
    tokio::time::timeout(std::time::Duration::from_secs(5), async {
        while simulator.counts().abandoned == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    assert!(simulator.counts().output_tokens <= 2, "{}", simulator.counts().output_tokens);
}

#[tokio::test]
async fn models_can_have_their_own_limits() {
    let simulator = start_with("limits = { requests_per_minute = 1, per_model = true }");
    let url = simulator.base_url(Vendor::OpenAi) + "/chat/completions";
    let send = async |model: &str| {
        let body = json!({ "model": model, "messages": [{ "role": "user", "content": "x" }] });
        client().post(&url).body(body.to_string()).send().await.unwrap().status().as_u16()
    };
    assert_eq!([send("a").await, send("b").await, send("a").await], [200, 200, 429]);
}

#[tokio::test]
async fn background_requests_apply_from_the_next_call_on() {
    let simulator = start_with("limits = { requests_per_minute = 60, bucket = \"1s\" }");
    let call = call(Vendor::OpenAi, false);
    assert_eq!(call.send(&simulator).await.status, 200);
    simulator.set(
        toml::from_str(
            "limits = { requests_per_minute = 60, bucket = \"1s\", background_requests_per_minute = 60 }",
        )
        .unwrap(),
    );
    // The refill equals the background requests: the bucket stays empty.
    let rejected = call.send(&simulator).await;
    assert_eq!((rejected.status, rejected.header("x-ratelimit-limit-requests")), (429, Some("60")));
}

#[tokio::test]
async fn keys_can_share_one_account() {
    let simulator = start_with("limits = { requests_per_minute = 1, shared_across_keys = true }");
    assert_eq!(call(Vendor::OpenAi, false).key("one").send(&simulator).await.status, 200);
    assert_eq!(call(Vendor::OpenAi, false).key("two").send(&simulator).await.status, 429);
}

#[tokio::test]
async fn rate_limit_headers_have_the_vendors_names_and_formats() {
    let limits = "requests_per_minute = 500, tokens_per_minute = 200_000";
    let simulator = start_with(&format!("limits = {{ {limits} }}"));
    let openai = call(Vendor::OpenAi, false).send(&simulator).await;
    for name in fixture_json("openai_headers_success.json").as_object().unwrap().keys() {
        assert!(openai.header(name).is_some(), "{name}");
    }
    assert_eq!(openai.header("x-ratelimit-limit-requests"), Some("500"));
    assert_eq!(openai.header("x-ratelimit-remaining-requests"), Some("499"));
    assert_eq!(openai.header("x-ratelimit-reset-requests"), Some("120ms"));

    let limits =
        "requests_per_minute = 1000, input_tokens_per_minute = 80_000, output_tokens_per_minute = 16_000";
    simulator.set(toml::from_str(&format!("limits = {{ {limits} }}")).unwrap());
    let anthropic = call(Vendor::Anthropic, false).send(&simulator).await;
    for name in fixture_json("anthropic_headers_success.json").as_object().unwrap().keys() {
        assert!(anthropic.header(name).is_some(), "{name}");
    }
    assert_eq!(anthropic.header("anthropic-ratelimit-tokens-limit"), Some("96000"));
    assert_eq!(anthropic.header("anthropic-ratelimit-input-tokens-remaining"), Some("80000"));
    let reset: jiff::Timestamp =
        anthropic.header("anthropic-ratelimit-requests-reset").unwrap().parse().unwrap();
    let ahead = reset.duration_since(jiff::Timestamp::now()).as_secs();
    assert!((-2..=2).contains(&ahead) && reset.subsec_nanosecond() == 0, "{reset}");

    let gemini = call(Vendor::Gemini, false).send(&simulator).await;
    assert!(!gemini.headers.keys().any(|name| name.as_str().contains("ratelimit")));
}

#[tokio::test]
async fn a_rejection_has_the_vendors_headers() {
    let simulator = start_with("limits = { requests_per_minute = 1, tokens_per_minute = 200_000 }");
    let call = call(Vendor::OpenAi, false);
    assert_eq!(statuses(&simulator, &call, 1).await, [200]);
    let rejected = call.send(&simulator).await;
    for name in fixture_json("openai_headers_429.json").as_object().unwrap().keys() {
        assert!(rejected.header(name).is_some(), "{name}");
    }
    assert_eq!(rejected.header("x-ratelimit-remaining-requests"), Some("0"));
}

#[tokio::test]
async fn headers_can_be_omitted_and_retry_after_can_be_missing_or_absurd() {
    let limits = AccountLimits { requests_per_minute: NonZeroU64::new(1), ..AccountLimits::default() };
    let without_headers =
        Settings { limits, headers: false, retry_after: RetryAfter::Missing, ..Settings::default() };
    let simulator = start(without_headers.clone());
    for vendor in Vendor::ALL {
        let rejected = {
            call(vendor, false).send(&simulator).await;
            call(vendor, false).send(&simulator).await
        };
        assert_eq!(rejected.status, 429);
        assert!(!rejected.headers.keys().any(|name| name.as_str().contains("ratelimit")), "{vendor}");
        assert!(rejected.header("retry-after").is_none() && rejected.header("retry-after-ms").is_none());
        assert!(
            !rejected.body.contains("retryDelay") && !rejected.body.contains("try again"),
            "{}",
            rejected.body
        );
    }
    simulator.set(Settings { retry_after: RetryAfter::Absurd, ..without_headers });
    let rejected = call(Vendor::OpenAi, false).send(&simulator).await;
    let seconds: i64 = rejected.header("retry-after").unwrap().parse().unwrap();
    assert!(!(1..=3_600).contains(&seconds), "{seconds}");
    assert!(call(Vendor::Gemini, false).send(&simulator).await.body.contains("retryDelay"));
}

#[tokio::test]
async fn limits_can_change_at_runtime() {
    let limits = |requests| AccountLimits {
        requests_per_minute: NonZeroU64::new(requests),
        ..AccountLimits::default()
    };
    let simulator = start(Settings { limits: limits(100), ..Settings::default() });
    let call = call(Vendor::OpenAi, false);
    assert_eq!(statuses(&simulator, &call, 3).await, [200; 3]);
    simulator.set(Settings { limits: limits(2), ..Settings::default() });
    assert_eq!(statuses(&simulator, &call, 3).await, [200, 200, 429]);
    simulator.set(Settings::default());
    assert_eq!(statuses(&simulator, &call, 3).await, [200; 3]);
    let second = AccountLimits { bucket: BucketSize::Second, ..limits(120) };
    simulator.set(Settings { limits: second, ..Settings::default() });
    assert_eq!(call.send(&simulator).await.header("x-ratelimit-remaining-requests"), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_connections_do_not_exceed_the_limit() {
    let simulator = start_with("limits = { requests_per_minute = 30 }");
    let http = client();
    let url = simulator.base_url(Vendor::OpenAi) + "/chat/completions";
    let calls = (0..200).map(|nth| {
        let body = call(Vendor::OpenAi, true).prompt(format!("item {nth}")).body().to_string();
        let request = http.post(&url).body(body);
        async move { request.send().await.unwrap().status().as_u16() }
    });
    let statuses = futures_util::future::join_all(calls).await;
    let admitted = statuses.iter().filter(|status| **status == 200).count() as u64;
    let counts = simulator.counts();
    // The refill is half a call per second.
    let refilled = counts.elapsed_ms / 2_000 + 1;
    assert!((30..=30 + refilled).contains(&admitted), "{admitted}");
    assert_eq!((counts.admitted, counts.refused, counts.requests), (admitted, 200 - admitted, 200));
}
