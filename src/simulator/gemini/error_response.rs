//! Gemini's error responses.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Value, json};

use crate::simulator::account::LimitKind;
use crate::simulator::api_error::{
    ApiError, ForbiddenResource, RateLimitDetails, RetryHint, insufficient_credits_message,
};
use crate::simulator::response_data::ErrorResponse;

/// Renders an error response.
pub(in crate::simulator) fn render_error(api_error: &ApiError) -> ErrorResponse {
    let mut details = None;
    let (code, status, message): (u16, &str, Cow<'_, str>) = match api_error {
        ApiError::InvalidRequest { message, .. } => (400, "INVALID_ARGUMENT", message.into()),
        ApiError::RequestTooLarge => {
            (400, "INVALID_ARGUMENT", "Request payload size exceeds the limit.".into())
        }
        ApiError::InvalidKey { .. } => {
            details = Some(json!([
                { "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID",
                    "domain": "googleapis.com", "metadata": { "service": "generativelanguage.googleapis.com" } },
                { "@type": "type.googleapis.com/google.rpc.LocalizedMessage", "locale": "en-US", "message": INVALID_KEY_MESSAGE },
            ]));
            (400, "INVALID_ARGUMENT", INVALID_KEY_MESSAGE.into())
        }
        ApiError::MissingKey => (403, "PERMISSION_DENIED", MISSING_KEY_MESSAGE.into()),
        ApiError::ModelNotFound { model } => (
            404,
            "NOT_FOUND",
            format!(
                "models/{model} is not found for API version v1beta, or is not supported for generateContent."
            )
            .into(),
        ),
        ApiError::RouteNotFound { request } => {
            (404, "NOT_FOUND", format!("No such method: {request}.").into())
        }
        ApiError::RateLimited(rate_limit) => {
            let (message, error_details) = rate_limit_message(rate_limit);
            details = error_details;
            (429, "RESOURCE_EXHAUSTED", message.into())
        }
        ApiError::QuotaExceeded { model, .. } => {
            // For a daily quota the vendor sends a delay of hours.
            let wait = Duration::from_secs(36_000);
            let (message, error_details) =
                quota_error(model, 20, "generate_content_free_tier_requests", DAILY_QUOTA_ID, wait.into());
            details = Some(error_details);
            (429, "RESOURCE_EXHAUSTED", message.into())
        }
        ApiError::Forbidden(ForbiddenResource::Unspecified) => {
            (403, "PERMISSION_DENIED", "The caller does not have permission".into())
        }
        ApiError::Forbidden(ForbiddenResource::Model(model)) => (
            403,
            "PERMISSION_DENIED",
            format!("Permission denied: the project does not have access to the model {model}.").into(),
        ),
        ApiError::Forbidden(ForbiddenResource::File) => (
            403,
            "PERMISSION_DENIED",
            "You do not have permission to access the File simulated or it may not exist.".into(),
        ),
        ApiError::InsufficientCredits { max_tokens } => {
            (402, "RESOURCE_EXHAUSTED", insufficient_credits_message(*max_tokens).into())
        }
        ApiError::ServerError { status: 504 } => {
            (504, "DEADLINE_EXCEEDED", "Deadline expired before operation could complete.".into())
        }
        ApiError::ServerError { status } => {
            (*status, "INTERNAL", "An internal error has occurred. Please retry.".into())
        }
        ApiError::Unavailable { status } => (*status, "UNAVAILABLE", OVERLOADED_MESSAGE.into()),
        ApiError::Overloaded { status } => (status.unwrap_or(503), "UNAVAILABLE", OVERLOADED_MESSAGE.into()),
    };
    let mut error = json!({ "code": code, "message": message, "status": status });
    if let Some(details) = details {
        error["details"] = details;
    }
    (code, json!({ "error": error }).to_string().into_bytes())
}

const INVALID_KEY_MESSAGE: &str = "API key not valid. Please pass a valid API key.";
const MISSING_KEY_MESSAGE: &str = "Method doesn't allow unregistered callers (callers without established identity). \
                            Please use API Key or other form of API consumer identity to call this API.";
const OVERLOADED_MESSAGE: &str = "The model is overloaded. Please try again later.";
const DAILY_QUOTA_ID: &str = "GenerateRequestsPerDayPerProjectPerModel-FreeTier";

fn rate_limit_message(rate_limit: &RateLimitDetails) -> (String, Option<Value>) {
    let wait = match rate_limit.retry_hint {
        RetryHint::Missing => return ("Resource has been exhausted (e.g. check quota).".to_owned(), None),
        RetryHint::After(wait) => ProtobufDuration::from(wait),
        RetryHint::Implausible(seconds) => ProtobufDuration(format!("{seconds}s")),
    };
    let (metric, id) = match rate_limit.limit_kind {
        LimitKind::Requests => {
            ("generate_content_free_tier_requests", "GenerateRequestsPerMinutePerProjectPerModel-FreeTier")
        }
        LimitKind::Tokens | LimitKind::InputTokens => (
            "generate_content_free_tier_input_token_count",
            "GenerateContentInputTokensPerModelPerMinute-FreeTier",
        ),
        LimitKind::OutputTokens => (
            "generate_content_free_tier_output_token_count",
            "GenerateContentOutputTokensPerModelPerMinute-FreeTier",
        ),
    };
    let (message, details) = quota_error(&rate_limit.model, rate_limit.limit, metric, id, wait);
    (message, Some(details))
}

/// A protobuf duration: seconds with decimals.
struct ProtobufDuration(String);

impl From<Duration> for ProtobufDuration {
    fn from(wait: Duration) -> Self {
        match wait.subsec_nanos() {
            0 => Self(format!("{}s", wait.as_secs())),
            nanos => Self(format!("{}.{nanos:09}s", wait.as_secs())),
        }
    }
}

fn quota_error(
    model: &str,
    limit: u64,
    metric: &str,
    id: &str,
    ProtobufDuration(wait): ProtobufDuration,
) -> (String, Value) {
    let metric = format!("generativelanguage.googleapis.com/{metric}");
    let message = format!(
        "You exceeded your current quota, please check your plan and billing details.\n* Quota exceeded for metric: \
         {metric}, limit: {limit}, model: {model}\nPlease retry in {wait}."
    );
    let details = json!([
        { "@type": "type.googleapis.com/google.rpc.Help", "links": [{
            "description": "Learn more about Gemini API quotas",
            "url": "https://ai.google.dev/gemini-api/docs/rate-limits" }] },
        { "@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{
            "quotaMetric": metric, "quotaId": id, "quotaDimensions": { "location": "global", "model": model },
            "quotaValue": limit.to_string() }] },
        { "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": wait },
    ]);
    (message, details)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_formatted_as_protobuf_durations() {
        assert_eq!(ProtobufDuration::from(Duration::from_secs(34)).0, "34s");
        assert_eq!(ProtobufDuration::from(Duration::from_nanos(3_957_525_076)).0, "3.957525076s");
        assert_eq!(ProtobufDuration::from(Duration::from_millis(500)).0, "0.500000000s");
    }
}
