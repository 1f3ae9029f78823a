//! Tests of the classification of errors.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

use crate::types::{Charged, Class, Completion, Failure, Format, Prompt, RetryAction};
use crate::wire::Dialect;
use crate::wire::fixtures::arrival;

use super::{decode_body, decode_data, fixture, read};

#[test]
fn every_recorded_error_is_classified() {
    use Class::{
        ApiError, Auth, ContentFilter, NotFound, Overloaded, Quota, RateLimit, ServerError, TooLong,
    };
    let retry =
        |milliseconds: Option<u64>| RetryAction::Retry { after: milliseconds.map(Duration::from_millis) };
    let failover = RetryAction::Failover;
    let fail = RetryAction::Fail;
    let table = [
        (400, fixture!("openai_error_400_content_filter.json"), ContentFilter, fail, Some("content_filter")),
        (
            400,
            fixture!("openai_error_400_context_length.json"),
            TooLong,
            failover,
            Some("context_length_exceeded"),
        ),
        (
            400,
            fixture!("openai_error_400_invalid_schema.json"),
            ApiError,
            fail,
            Some("invalid_request_error"),
        ),
        (
            400,
            fixture!("openai_error_400_unsupported_parameter.json"),
            ApiError,
            retry(None),
            Some("unsupported_parameter"),
        ),
        (
            400,
            fixture!("openai_error_400_unsupported_value.json"),
            ApiError,
            retry(None),
            Some("unsupported_value"),
        ),
        (401, fixture!("openai_error_401_invalid_api_key.json"), Auth, failover, Some("invalid_api_key")),
        (
            403,
            fixture!("openai_error_403_unsupported_country.json"),
            Auth,
            failover,
            Some("unsupported_country_region_territory"),
        ),
        (404, fixture!("openai_error_404_model_not_found.json"), NotFound, failover, Some("model_not_found")),
        (
            409,
            fixture!("openai_error_409_conflict.json"),
            ServerError,
            retry(None),
            Some("invalid_request_error"),
        ),
        (413, fixture!("openai_error_413_too_large.json"), TooLong, failover, Some("invalid_request_error")),
        (422, fixture!("openai_error_422_unprocessable.json"), ApiError, fail, Some("invalid_request_error")),
        (
            429,
            fixture!("openai_error_429_credit_balance_exhausted.json"),
            Quota,
            failover,
            Some("credit_balance_exhausted"),
        ),
        (
            429,
            fixture!("openai_error_429_insufficient_quota_legacy.json"),
            Quota,
            failover,
            Some("insufficient_quota"),
        ),
        (
            429,
            fixture!("openai_error_429_project_spend_limit.json"),
            Quota,
            failover,
            Some("project_spend_limit_exceeded"),
        ),
        (
            429,
            fixture!("openai_error_429_rate_limit_requests.json"),
            RateLimit,
            retry(Some(120)),
            Some("rate_limit_exceeded"),
        ),
        (
            429,
            fixture!("openai_error_429_rate_limit_tokens.json"),
            RateLimit,
            retry(Some(699)),
            Some("rate_limit_exceeded"),
        ),
        (429, fixture!("openai_error_429_slow_down.json"), RateLimit, retry(None), Some("slow_down")),
        (500, fixture!("openai_error_500_server_error.json"), ServerError, retry(None), Some("server_error")),
        (502, fixture!("openai_error_502_html.html"), ServerError, retry(None), None),
        (
            503,
            fixture!("openai_error_503_overloaded.json"),
            Overloaded,
            retry(None),
            Some("server_is_overloaded"),
        ),
        (404, fixture!("ollama_error_404_model.json"), NotFound, failover, Some("not_found_error")),
        (400, fixture!("vllm_error_400_context.json"), TooLong, failover, Some("BadRequestError")),
        (400, fixture!("vllm_error_400_legacy_flat.json"), TooLong, failover, Some("BadRequestError")),
        (401, fixture!("vllm_error_401.json"), Auth, failover, None),
        (404, fixture!("vllm_error_404_model.json"), NotFound, failover, Some("NotFoundError")),
        (
            400,
            fixture!("llamacpp_error_400_context.json"),
            TooLong,
            failover,
            Some("exceed_context_size_error"),
        ),
        (401, fixture!("llamacpp_error_401.json"), Auth, failover, Some("authentication_error")),
        (
            503,
            fixture!("llamacpp_error_503_loading.json"),
            Overloaded,
            retry(None),
            Some("unavailable_error"),
        ),
        (422, fixture!("fastapi_error_422_detail.json"), ApiError, fail, None),
    ];
    for (status, body, class, verdict, code) in table {
        let failure = read(status, body);
        assert_eq!((failure.class, failure.retry_action()), (class, verdict), "{body}");
        assert_eq!((failure.code.as_deref(), failure.status), (code, Some(status)), "{body}");
        let charged = if class == ServerError { Charged::Maybe } else { Charged::No };
        assert_eq!(failure.charged, charged, "{body}");
        assert!(!failure.message.contains(['{', '<', '\n']), "{failure}");
    }
}

#[test]
fn errors_of_the_compatible_endpoint_of_google_are_classified() {
    let failure = read(429, fixture!("gemini_openai_compat_error_429_array.json"));
    assert_eq!((failure.class, failure.status), (Class::RateLimit, Some(429)));
    assert!(failure.message.starts_with("Resource has been exhausted"), "{failure}");
    let failure = decode_data(&[fixture!("gemini_openai_compat_error_429_array.json")]).unwrap_err();
    assert_eq!(failure.class, Class::RateLimit);
}

#[test]
fn errors_without_a_recording_are_classified() {
    for (status, body, class) in [
        (400, r#"{"error":{"message":"Incorrect API key provided"}}"#, Class::Auth),
        (
            400,
            r#"{"error":{"message":"The response was filtered due to the prompt triggering Azure OpenAI's content management policy."}}"#,
            Class::ContentFilter,
        ),
        (
            401,
            r#"{"error":{"code":"401","message":"Access denied due to invalid subscription key"}}"#,
            Class::Auth,
        ),
        (402, r#"{"error":{"message":"Insufficient Balance","code":"invalid_request_error"}}"#, Class::Quota),
        (403, r#"{"error":{"message":"Your input was flagged","code":403}}"#, Class::ContentFilter),
        (408, "", Class::Timeout),
        (
            413,
            r#"{"error":{"message":"Request too large for model `x` on tokens per minute (TPM)","type":"tokens","code":"rate_limit_exceeded"}}"#,
            Class::TooLong,
        ),
        (
            429,
            r#"{"error":{"message":"Request too large for gpt-6-luna: Limit 30000, Requested 31220.","type":"tokens","code":"rate_limit_exceeded"}}"#,
            Class::TooLong,
        ),
        (
            429,
            r#"{"error":{"code":"429","message":"Requests have exceeded the token rate limit."}}"#,
            Class::RateLimit,
        ),
        (429, "", Class::RateLimit),
        (500, r#"{"error":"model is currently loading"}"#, Class::Overloaded),
        (
            503,
            r#"{"error":{"message":"server busy, please try again.  maximum pending requests exceeded","type":"api_error","param":null,"code":null}}"#,
            Class::Overloaded,
        ),
        (503, r#"{"error":{"message":"x","code":"slow_down"}}"#, Class::Overloaded),
        (504, "upstream request timeout", Class::ServerError),
        (529, "", Class::Overloaded),
        (301, "", Class::NotFound),
        (418, "null", Class::ApiError),
        (599, "[]", Class::ServerError),
    ] {
        assert_eq!(read(status, body).class, class, "{status} {body}");
    }
    assert_eq!(
        &*read(422, fixture!("fastapi_error_422_detail.json")).message,
        "body.messages: Field required"
    );
    assert_eq!(&*read(502, fixture!("openai_error_502_html.html")).message, "502 Bad Gateway");
    assert_eq!(&*read(401, fixture!("vllm_error_401.json")).message, "Unauthorized");
    assert_eq!(&*read(429, "").message, "status 429 without a message");
}

#[test]
fn a_wait_in_the_headers_takes_precedence_over_the_message() {
    let body = r#"{"error":{"message":"Please retry after 6 seconds.","code":"429"}}"#;
    assert_eq!(read(429, body).retry_after, Some(Duration::from_secs(6)));
    let headers = HeaderMap::from_iter([("retry-after".parse().unwrap(), "2".parse().unwrap())]);
    let failure = Format::Openai.read_error(429, &headers, body.as_bytes(), SystemTime::UNIX_EPOCH);
    assert_eq!(failure.retry_after, Some(Duration::from_secs(2)));
}

#[test]
fn a_limit_per_day_is_a_quota_with_its_reset() {
    let minutes = |minutes: f64| Some(Duration::from_secs_f64(minutes * 60.0));
    for (body, class, wait) in [
        // Groq.
        (
            r#"{"error":{"message":"Rate limit reached for model `x` in organization `o` service tier `on_demand` on tokens per day (TPD): Limit 100000, Used 97050, Requested 3619. Please try again in 9m36s. Need more tokens?","type":"tokens","code":"rate_limit_exceeded"}}"#,
            Class::Quota,
            minutes(9.6),
        ),
        (
            r#"{"error":{"message":"Rate limit reached for x on requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s.","type":"requests","code":"rate_limit_exceeded"}}"#,
            Class::Quota,
            minutes(7.2),
        ),
        // OpenRouter, whose body repeats its headers: 2026-11-21T00:00:00Z in milliseconds.
        (
            r#"{"error":{"message":"Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day","code":429,"metadata":{"headers":{"X-RateLimit-Limit":"50","X-RateLimit-Remaining":"0","X-RateLimit-Reset":"1795219200000","bad name":"x","odd":["\n"]}}}}"#,
            Class::Quota,
            minutes(240.0),
        ),
        (
            r#"{"error":{"message":"Rate limit exceeded: free-models-per-day-high-balance.","type":"rate_limit_error","code":"429"}}"#,
            Class::Quota,
            None,
        ),
        (
            r#"{"error":{"message":"Rate limit exceeded: free-models-per-min. Add 10 credits to unlock 1000 free model requests per day","code":429,"metadata":{"headers":{"X-RateLimit-Remaining":0,"X-RateLimit-Reset":1795204830000}}}}"#,
            Class::RateLimit,
            minutes(0.5),
        ),
        (
            r#"{"error":{"message":"Your daily limit resets at 2026-11-20T21:00:00Z","type":"rate_limit_error"}}"#,
            Class::Quota,
            minutes(60.0),
        ),
    ] {
        let failure = Format::Openai.read_error(429, &HeaderMap::new(), body.as_bytes(), arrival());
        assert_eq!((failure.class, failure.retry_after), (class, wait), "{body}");
    }
}

#[test]
fn a_limit_that_never_resets_is_a_quota() {
    let body = r#"{"message":"Rate limit exceeded","code":"1300"}"#;
    let read = |pairs: &[(&'static str, &'static str)]| {
        let headers =
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
        Format::Openai.read_error(429, &headers, body.as_bytes(), arrival()).class
    };
    assert_eq!(read(&[]), Class::RateLimit);
    assert_eq!(read(&[("x-should-retry", "true")]), Class::RateLimit);
    assert_eq!(read(&[("x-should-retry", "false")]), Class::Quota);
    assert_eq!(read(&[("x-should-retry", "false"), ("retry-after", "3")]), Class::RateLimit);
    let mistral = [("x-ratelimit-limit-req-minute", "0"), ("x-ratelimit-remaining-req-minute", "0")];
    assert_eq!(read(&mistral), Class::Quota);
}

#[test]
fn an_error_with_a_success_status_has_a_wait() {
    let event = |format: Format, data: &str, headers: &HeaderMap| {
        let mut decoder = format.decoder(&Prompt::default(), &Dialect::default());
        let failure = decoder.push_event(None, data).unwrap_err();
        let failure = format.apply_headers(failure, headers, arrival());
        (failure.class, failure.retry_after)
    };
    let limited = r#"{"error":{"message":"Rate limit reached. Please try again in 11.054s.","type":"tokens","code":"rate_limit_exceeded"}}"#;
    let without_wait = r#"{"error":{"message":"Slow down.","type":"tokens","code":"rate_limit_exceeded"}}"#;
    let daily = r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED","message":"x","details":[{"violations":[{"quotaId":"RequestsPerDay"}]}]}}"#;
    let spent = r#"{"type":"error","error":{"type":"rate_limit_error","message":"You have reached your API usage limits. You will regain access on 2026-11-21 at 00:00 UTC."}}"#;
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    let no_headers = HeaderMap::new();
    let wait = Some(Duration::from_millis(11_054));
    assert_eq!(event(Format::Openai, limited, &no_headers), (Class::RateLimit, wait));
    assert_eq!(event(Format::Openai, daily, &no_headers), (Class::Quota, seconds(12 * 3_600 + 300)));
    assert_eq!(event(Format::Gemini, daily, &no_headers), (Class::Quota, seconds(12 * 3_600 + 300)));
    assert_eq!(event(Format::Anthropic, spent, &no_headers), (Class::Quota, seconds(4 * 3_600)));
    // If the message has no wait, the headers are used.
    let headers = [("x-ratelimit-remaining-tokens", "0"), ("x-ratelimit-reset-tokens", "1m12s")];
    let headers =
        headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    assert_eq!(event(Format::Openai, without_wait, &headers), (Class::RateLimit, seconds(72)));
    assert_eq!(event(Format::Openai, without_wait, &no_headers), (Class::RateLimit, None));
}

#[test]
fn an_error_of_any_length_with_a_success_status_is_classified() {
    let body = |bytes: usize| {
        let error = serde_json::json!({ "message": "Slow down.", "code": "rate_limit_exceeded" });
        serde_json::json!({ "more": "a".repeat(bytes), "error": error }).to_string()
    };
    let class = |data: &str| {
        let mut decoder = Format::Openai.decoder(&Prompt::default(), &Dialect::default());
        decoder.push_event(None, data).err().map(|failure| failure.class)
    };
    assert_eq!(class(&body(10)), Some(Class::RateLimit));
    assert_eq!(class(&body(64 << 10)), Some(Class::RateLimit));
    assert_eq!(class(&body(3 << 20)), Some(Class::RateLimit));
    // A value that exceeds the size limit is not an answer, whether or not it is an error.
    let parts = "0,".repeat(5_000);
    let hidden = format!(r#"{{"more":[{parts}0],"error":{{"message":"x","code":"rate_limit_exceeded"}}}}"#);
    assert_eq!(class(&hidden), Some(Class::Unreadable));
    assert_eq!(class(&format!(r#"{{"more":[{parts}0]}}"#)), Some(Class::Unreadable));
    assert_eq!(class(r#"{"more":[1]}"#), None);
}

#[test]
fn an_error_beside_a_complete_answer_is_a_failure() {
    let answered = |error: &str| {
        let choices =
            r#"[{"index":0,"delta":{"content":"a"},"message":{"content":"a"},"finish_reason":"stop"}]"#;
        let data = format!(r#"{{"choices":{choices},"error":{error}}}"#);
        let class = |result: Result<Completion, Failure>| {
            result.map(|completion| completion.text).map_err(|failure| failure.class)
        };
        let streamed = class(decode_data(&[&data, "[DONE]"]));
        assert_eq!(streamed, class(decode_body(&data, &Prompt::default())), "{error:.80}");
        streamed
    };
    let long = serde_json::json!({ "pad": "y".repeat(70_000), "message": "upstream died" }).to_string();
    for error in [long.as_str(), r#"{"message":"upstream died"}"#, r#""died""#, "true", "500", "[1]", "[{}]"]
    {
        assert_eq!(answered(error), Err(Class::ServerError), "{error:.80}");
    }
    for nothing in ["null", "false", "0", "\"\"", "[]", "{}"] {
        assert_eq!(answered(nothing), Ok("a".to_owned()), "{nothing}");
    }
}

#[test]
fn a_long_error_after_the_finish_reason_is_a_failure() {
    let long = serde_json::json!({ "error": { "message": "upstream died", "pad": "y".repeat(70_000) } });
    let partial = r#"{"choices":[{"index":0,"delta":{"content":"partial"}}]}"#;
    let stopped = r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#;
    let failure = decode_data(&[partial, stopped, &long.to_string(), "[DONE]"]).unwrap_err();
    assert_eq!((failure.class, &*failure.message), (Class::ServerError, "upstream died"));
    assert_eq!(failure.charged, Charged::Maybe);
}
