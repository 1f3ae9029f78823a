//! Determines the scope of an error: the key, one model, or one request.
//!
//! Providers use the same statuses for all of them: 403 can mean an invalid key, a model that the project may not
//! use, a file of another account, or a word that a firewall blocks. The code and the message refine the class.
//! If they do not decide, the scope is `Unclear` and later requests decide.

use crate::types::{Class, Failure, FailureScope};

use super::phrases::contains_any;
use super::rejected_parameter;

/// Codes about the key or its account, for any status.
const KEY_CODES: [&str; 14] = [
    "invalid_api_key",
    "incorrect_api_key_error",
    "authentication_error",
    "authenticationerror",
    "unauthenticated",
    "account_deactivated",
    "organization_deactivated",
    "organization_restricted",
    "unsupported_country_region_territory",
    "service_disabled",
    "consumer_suspended",
    "consumer_invalid",
    "billing_disabled",
    "access_terminated_error",
];

/// Phrases about the key or its account.
const KEY_PHRASES: [&str; 21] = [
    "invalid api key",
    "invalid api-key",
    "incorrect api key",
    "api key not valid",
    "api key not found",
    "api key expired",
    "api key was",
    "api key is",
    "unregistered callers",
    "country, region",
    "location is not supported",
    "region is not supported",
    "account is",
    "account has been",
    "authorization failed",
    "token included in the request is invalid",
    "invalid access token",
    "access denied due to virtual network",
    "team is blocked",
    "account not active",
    "organization has been",
];

/// Codes about access to a model.
const MODEL_CODES: [&str; 9] = [
    "model_permission_blocked_org",
    "model_permission_blocked_project",
    "model_terms_required",
    "model_access_denied",
    "key_model_access_denied",
    "team_model_access_denied",
    "model_not_allowed",
    "access_denied",
    "1311",
];

/// Phrases about access to a model.
const MODEL_PHRASES: [&str; 19] = [
    "not have access",
    "no access",
    "not allowed",
    "is blocked",
    "not enabled",
    "not have permission",
    "no permission",
    "not permitted",
    "not authorized",
    "not been granted",
    "not available",
    "access denied",
    "can only access",
    "not entitled",
    "terms acceptance",
    "access is restricted",
    "gated",
    "don't have access",
    "denied on resource",
];

/// Phrases about a file.
const FILE_PHRASES: [&str; 12] = [
    "access the file",
    "access file",
    "the file",
    "file not found",
    "no such file",
    "file_id",
    "file id",
    "files/",
    "cached content",
    "cachedcontent",
    "service agents are being provisioned",
    "image url",
];

/// Phrases about a request that costs more than the remaining credit of the account.
const UNAFFORDABLE_PHRASES: [&str; 3] =
    ["fewer max_tokens", "can only afford", "prompt tokens limit exceeded"];

/// Phrases about an output token limit, and about its exceeding the maximum of the model.
const OUTPUT_LIMIT_PHRASES: [&str; 5] =
    ["max_tokens", "max tokens", "maximum tokens", "max_completion_tokens", "max_output_tokens"];
const ABOVE_LIMIT_PHRASES: [&str; 4] =
    ["less than or equal", "cannot exceed", "the model limit", "must be <="];

/// Refines the class of a failure and sets its scope.
pub(super) fn refine(mut failure: Failure) -> Failure {
    let message = failure.message.to_ascii_lowercase();
    let code = failure.code.as_deref().unwrap_or_default().to_ascii_lowercase();
    let has = |phrases: &[&str]| contains_any(&message, phrases);
    match failure.class {
        Class::Auth | Class::NotFound if has(&FILE_PHRASES) => {
            failure.class = Class::ApiError;
            failure.scope = FailureScope::Key;
        }
        Class::Auth if MODEL_CODES.contains(&code.as_str()) => failure.scope = FailureScope::Model,
        Class::Auth if message.contains("model") && has(&MODEL_PHRASES) => {
            failure.scope = FailureScope::Model
        }
        Class::Auth if !is_certain_key_rejection(failure.status, &code) && !has(&KEY_PHRASES) => {
            failure.scope = FailureScope::Unclear;
        }
        // The credit of the account does not cover an answer as long as the request allows.
        Class::Quota | Class::RateLimit if has(&UNAFFORDABLE_PHRASES) => {
            failure.class = Class::ApiError;
            failure.scope = FailureScope::Target;
        }
        Class::Quota if failure.status == Some(402) && code.is_empty() && is_vague(&message) => {
            failure.scope = FailureScope::Unclear;
        }
        Class::ApiError => {
            if let Some(parameter) = rejected_parameter::in_message(&message) {
                failure.scope = FailureScope::Parameter(parameter);
            } else if has(&OUTPUT_LIMIT_PHRASES) && has(&ABOVE_LIMIT_PHRASES) {
                failure.scope = FailureScope::Target;
            }
        }
        _ => {}
    }
    failure
}

/// Returns whether the error certainly rejects the key. An error inside a success response has no status.
fn is_certain_key_rejection(status: Option<u16>, code: &str) -> bool {
    matches!(status, None | Some(401)) || KEY_CODES.contains(&code) || code.starts_with("api_key")
}

/// Returns whether the message of a payment error does not mention payment.
fn is_vague(message: &str) -> bool {
    const PAYMENT_WORDS: [&str; 9] =
        ["balance", "credit", "quota", "billing", "payment", "insufficient", "fund", "recharge", "arrear"];
    !contains_any(message, &PAYMENT_WORDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refined(class: Class, status: u16, code: &str, message: &str) -> (Class, FailureScope) {
        let mut failure = Failure::new(class, message);
        failure.status = Some(status);
        failure.code = Some(code.into());
        let failure = refine(failure);
        (failure.class, failure.scope)
    }

    #[test]
    fn the_scope_is_derived_from_code_and_message() {
        let blocked = "The model `m` is blocked at the project level.";
        let file = "You do not have permission to access the File abc or it may not exist.";
        let afford = "This request requires more credits, or fewer max_tokens. You requested up to 65536 tokens, but can only afford 3562.";
        for (class, status, code, message, expected) in [
            (
                Class::Auth,
                403,
                "model_permission_blocked_project",
                blocked,
                (Class::Auth, FailureScope::Model),
            ),
            (Class::Auth, 403, "permission_error", blocked, (Class::Auth, FailureScope::Model)),
            (Class::Auth, 403, "PERMISSION_DENIED", file, (Class::ApiError, FailureScope::Key)),
            (
                Class::NotFound,
                404,
                "not_found_error",
                "File not found: file_1",
                (Class::ApiError, FailureScope::Key),
            ),
            (Class::Quota, 402, "", afford, (Class::ApiError, FailureScope::Target)),
            (Class::Quota, 402, "", "Insufficient Balance", (Class::Quota, FailureScope::Class)),
            (Class::Quota, 402, "", "Payment Required", (Class::Quota, FailureScope::Class)),
            (Class::Quota, 402, "", "no", (Class::Quota, FailureScope::Unclear)),
            (Class::Auth, 401, "", "no", (Class::Auth, FailureScope::Class)),
            (Class::Auth, 403, "", "Forbidden", (Class::Auth, FailureScope::Unclear)),
            (Class::Auth, 403, "API_KEY_SERVICE_BLOCKED", "no", (Class::Auth, FailureScope::Class)),
            (Class::NotFound, 404, "", "no such model", (Class::NotFound, FailureScope::Class)),
        ] {
            assert_eq!(refined(class, status, code, message), expected, "{message}");
        }
    }
}
