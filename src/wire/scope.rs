//! Whether a refusal is about the key, about its use of one model, or about one request.
//!
//! Providers say all of it with the same statuses: 403 is a wrong key, a model that the project may not use, a
//! file of another account, and a word that a firewall does not like. What the class says is refined here by the
//! provider's code and message; where they do not tell, the refusal stays unclear and later requests decide.

use crate::types::{Class, Failure, Scope};

use super::parameter;

/// Codes that are about the key or its account, whatever the status.
const OF_THE_KEY: [&str; 14] = [
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

/// Messages that are about the key or its account.
const WORDS_OF_THE_KEY: [&str; 21] = [
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

/// Codes that are about the use of a model.
const OF_A_MODEL: [&str; 9] = [
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

/// What is said of a model that may not be used.
const WORDS_OF_A_MODEL: [&str; 19] = [
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

/// What is said of a file.
const WORDS_OF_A_FILE: [&str; 12] = [
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

/// What is said of a request that costs more than the account has left, where the account has some.
const UNAFFORDABLE: [&str; 3] = ["fewer max_tokens", "can only afford", "prompt tokens limit exceeded"];

/// A limit of the answer's length, and that it is beyond what this model writes.
const OUTPUT_LIMIT: [&str; 5] =
    ["max_tokens", "max tokens", "maximum tokens", "max_completion_tokens", "max_output_tokens"];
const ABOVE: [&str; 4] = ["less than or equal", "cannot exceed", "the model limit", "must be <="];

/// Refines the class of a refusal, and says how far it reaches.
pub(super) fn refine(mut failure: Failure) -> Failure {
    let message = failure.message.to_ascii_lowercase();
    let code = failure.code.as_deref().unwrap_or_default().to_ascii_lowercase();
    let has = |phrases: &[&str]| phrases.iter().any(|phrase| message.contains(phrase));
    match failure.class {
        Class::Auth | Class::NotFound if has(&WORDS_OF_A_FILE) => {
            failure.class = Class::ApiError;
            failure.scope = Scope::Key;
        }
        Class::Auth if OF_A_MODEL.contains(&code.as_str()) => failure.scope = Scope::Model,
        Class::Auth if message.contains("model") && has(&WORDS_OF_A_MODEL) => failure.scope = Scope::Model,
        Class::Auth if !is_certain(failure.status, &code) && !has(&WORDS_OF_THE_KEY) => {
            failure.scope = Scope::Unclear;
        }
        // The account has money, but not for as long an answer as the request allows.
        Class::Quota | Class::RateLimit if has(&UNAFFORDABLE) => {
            failure.class = Class::ApiError;
            failure.scope = Scope::Target;
        }
        Class::Quota if failure.status == Some(402) && code.is_empty() && is_vague(&message) => {
            failure.scope = Scope::Unclear;
        }
        Class::ApiError => {
            if let Some(parameter) = parameter::refused(&message) {
                failure.scope = Scope::Parameter(parameter);
            } else if has(&OUTPUT_LIMIT) && has(&ABOVE) {
                failure.scope = Scope::Target;
            }
        }
        _ => {}
    }
    failure
}

/// Returns whether a refused key is certain. A refusal inside an answer has no status.
fn is_certain(status: Option<u16>, code: &str) -> bool {
    matches!(status, None | Some(401)) || OF_THE_KEY.contains(&code) || code.starts_with("api_key")
}

/// Returns whether a refusal for money does not speak of money.
fn is_vague(message: &str) -> bool {
    !["balance", "credit", "quota", "billing", "payment", "insufficient", "fund", "recharge", "arrear"]
        .iter()
        .any(|word| message.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refined(class: Class, status: u16, code: &str, message: &str) -> (Class, Scope) {
        let mut failure = Failure::new(class, message);
        failure.status = Some(status);
        failure.code = Some(code.into());
        let failure = refine(failure);
        (failure.class, failure.scope)
    }

    #[test]
    fn a_refusal_reaches_as_far_as_it_says() {
        let blocked = "The model `m` is blocked at the project level.";
        let file = "You do not have permission to access the File abc or it may not exist.";
        let afford = "This request requires more credits, or fewer max_tokens. You requested up to 65536 tokens, but can only afford 3562.";
        for (class, status, code, message, expected) in [
            (Class::Auth, 403, "model_permission_blocked_project", blocked, (Class::Auth, Scope::Model)),
            (Class::Auth, 403, "permission_error", blocked, (Class::Auth, Scope::Model)),
            (Class::Auth, 403, "PERMISSION_DENIED", file, (Class::ApiError, Scope::Key)),
            (
                Class::NotFound,
                404,
                "not_found_error",
                "File not found: file_1",
                (Class::ApiError, Scope::Key),
            ),
            (Class::Quota, 402, "", afford, (Class::ApiError, Scope::Target)),
            (Class::Quota, 402, "", "Insufficient Balance", (Class::Quota, Scope::Class)),
            (Class::Quota, 402, "", "Payment Required", (Class::Quota, Scope::Class)),
            (Class::Quota, 402, "", "no", (Class::Quota, Scope::Unclear)),
            (Class::Auth, 401, "", "no", (Class::Auth, Scope::Class)),
            (Class::Auth, 403, "", "Forbidden", (Class::Auth, Scope::Unclear)),
            (Class::Auth, 403, "API_KEY_SERVICE_BLOCKED", "no", (Class::Auth, Scope::Class)),
            (Class::NotFound, 404, "", "no such model", (Class::NotFound, Scope::Class)),
        ] {
            assert_eq!(refined(class, status, code, message), expected, "{message}");
        }
    }
}
