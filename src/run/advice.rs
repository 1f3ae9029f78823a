//! What a user can do about a failure that waiting does not mend, or not soon.

use crate::types::{Cause, Class, Failure, LaneName};

/// Says what a user can do about the failure of a target, if there is anything that the message does not say.
pub(super) fn advice(failure: &Failure, target: Option<&LaneName>) -> Option<String> {
    let table = target.map_or_else(
        || "the provider's table".to_owned(),
        |target| format!("`[provider.{}]`", target.provider),
    );
    let of_cause = |cause| {
        match cause {
        Cause::NoKeyConfigured => Some(format!("add `keys` to {table}, or check its `headers`")),
        Cause::ConfiguredLimit => {
            Some(format!("raise `requests_per_day` in {table}, or wait until there is room again"))
        }
        Cause::NoEndpoint => Some(format!("add /v1 to `base_url` in {table}, or check it")),
        Cause::ProxyLogin => Some(
            "write the name and password into the proxy's address in HTTPS_PROXY or HTTP_PROXY, or name the host in \
             NO_PROXY"
                .to_owned(),
        ),
        Cause::NoApi => Some(
            "what answers is no API: check `base_url`, and whether a proxy stands between (a login page?)".to_owned(),
        ),
        Cause::TooLarge => Some("no model writes so much: check `base_url`, and what answers there".to_owned()),
        // Their messages say what to write.
        Cause::NoTls | Cause::Redirected => None,
    }
    };
    let of_class = |class| {
        Some(match class {
            Class::Auth => "check the key, or its permissions, at the provider",
            Class::Quota => "raise the quota or add credit at the provider, or wait until it is restored",
            Class::NotFound => "check the model's name and `base_url` in the configuration",
            Class::Unreadable => {
                "its answers break off or are not of this format: see the provider's status page"
            }
            Class::NetworkError => "check `base_url`, the network and the proxy settings",
            Class::Timeout | Class::Overloaded | Class::ServerError => "see the provider's status page",
            Class::RateLimit => "wait until the provider's limit opens again, or add another target",
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
        Some(cause) => of_cause(cause),
        None => of_class(failure.class).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_decides_before_the_class_what_a_user_is_advised() {
        let target: LaneName = "local/m".parse().unwrap();
        let advised = |class, cause| {
            advice(&Failure { cause, ..Failure::new(class, "x") }, Some(&target)).unwrap_or_default()
        };
        assert!(advised(Class::Auth, None).contains("check the key"));
        assert!(
            advised(Class::Auth, Some(Cause::NoKeyConfigured))
                .starts_with("add `keys` to `[provider.local]`")
        );
        assert!(advised(Class::Quota, None).contains("add credit at the provider"));
        let own = advised(Class::Quota, Some(Cause::ConfiguredLimit));
        assert!(
            own.contains("raise `requests_per_day` in `[provider.local]`") && !own.contains("credit"),
            "{own}"
        );
        assert!(advised(Class::NotFound, Some(Cause::NoEndpoint)).contains("add /v1 to `base_url`"));
        assert_eq!(advised(Class::NotFound, Some(Cause::Redirected)), "");
        assert!(advised(Class::Unreadable, Some(Cause::NoApi)).contains("a login page?"));
        assert!(!advised(Class::Unreadable, None).contains("login"));
        assert_eq!(advised(Class::Internal, None), "");
    }
}
