//! Advice for the user about failures that do not resolve by themselves, or only after a long time.

use crate::types::{Cause, Class, Failure, TargetName};

/// Returns what a user can do about the failure of a target, if that is not in the failure's message.
pub(super) fn advice(failure: &Failure, target: Option<&TargetName>) -> Option<String> {
    let table = target.map_or_else(
        || "the provider's table".to_owned(),
        |target| format!("`[provider.{}]`", target.provider),
    );
    let advice_for_cause = |cause| {
        match cause {
        Cause::NoKeyConfigured => Some(format!("add `keys` to {table}, or check its `headers`")),
        Cause::ConfiguredLimit => {
            Some(format!("raise `requests_per_day` in {table}, or wait until the quota allows more requests"))
        }
        Cause::EndpointNotFound => Some(format!("add /v1 to `base_url` in {table}, or check it")),
        Cause::ProxyAuthRequired => Some(
            "write the name and password into the proxy's address in HTTPS_PROXY or HTTP_PROXY, or name the host \
             in NO_PROXY"
                .to_owned(),
        ),
        Cause::NotAnApi => Some(
            "the response is not from an API: check `base_url`, and whether a proxy intercepts the request (a \
             login page?)"
                .to_owned(),
        ),
        Cause::ResponseTooLarge => Some(
            "the response is longer than any model's: check `base_url`, and which server answers there".to_owned(),
        ),
        // Their messages contain the advice.
        Cause::NoTls
        | Cause::Redirected
        | Cause::InvalidToolCall
        | Cause::DimensionsIgnored
        | Cause::NeverWithinBudget
        | Cause::OutOfService => None,
    }
    };
    let advice_for_class = |class| {
        Some(match class {
            Class::Auth => "check the key, or its permissions, at the provider",
            Class::Quota => "raise the quota or add credit at the provider, or wait until it is restored",
            Class::NotFound => "check the model's name and `base_url` in the configuration",
            Class::Unreadable => {
                "its responses are incomplete or not in this format: see the provider's status page"
            }
            Class::NetworkError => "check `base_url`, the network and the proxy settings",
            Class::Timeout | Class::Overloaded | Class::ServerError => "see the provider's status page",
            Class::RateLimit => "wait until the provider's limit resets, or add another target",
            Class::TooLong
            | Class::ContentFilter
            | Class::ApiError
            | Class::ValidationError
            | Class::TemplateError
            | Class::Truncated
            | Class::Budget
            | Class::Deadline
            | Class::Cancelled
            | Class::Internal => return None,
        })
    };
    match failure.cause {
        Some(cause) => advice_for_cause(cause),
        None => advice_for_class(failure.class).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_determines_the_advice_before_the_class() {
        let target: TargetName = "local/m".parse().unwrap();
        let advise = |class, cause| {
            advice(&Failure { cause, ..Failure::new(class, "x") }, Some(&target)).unwrap_or_default()
        };
        assert!(advise(Class::Auth, None).contains("check the key"));
        assert!(
            advise(Class::Auth, Some(Cause::NoKeyConfigured)).starts_with("add `keys` to `[provider.local]`")
        );
        assert!(advise(Class::Quota, None).contains("add credit at the provider"));
        let message = advise(Class::Quota, Some(Cause::ConfiguredLimit));
        assert!(
            message.contains("raise `requests_per_day` in `[provider.local]`") && !message.contains("credit"),
            "{message}"
        );
        assert!(advise(Class::NotFound, Some(Cause::EndpointNotFound)).contains("add /v1 to `base_url`"));
        assert_eq!(advise(Class::NotFound, Some(Cause::Redirected)), "");
        assert!(advise(Class::Unreadable, Some(Cause::NotAnApi)).contains("a login page?"));
        assert!(!advise(Class::Unreadable, None).contains("login"));
        assert_eq!(advise(Class::Internal, None), "");
    }
}
