//! Failure for a response that is a redirect: the address that the configuration should have named.
//!
//! Redirects are not followed: they would send the prompt and the key to an address that is not configured.
//! Pure.

use http::Uri;
use http::header::LOCATION;

use crate::types::{Cause, Class, Failure};

/// Maximum number of characters of an address that are shown.
const MAX_SHOWN_ADDRESS_CHARS: usize = 200;

/// Returns the failure of a call to `path` below `base_url` whose response is a redirect; `None` for any other
/// response.
pub(in crate::provider) fn failure(
    status: u16,
    headers: &http::HeaderMap,
    base_url: &str,
    path: &str,
) -> Option<Failure> {
    let location = headers.get(LOCATION).filter(|_| (300..400).contains(&status))?.to_str().ok()?;
    let target: Option<Uri> = location.parse().ok();
    let advice = target.as_ref().and_then(|target| advice(target, base_url, path));
    let advice = advice.unwrap_or_else(|| {
        "redirects are not followed; write the address of the API as base_url, without the path of its calls"
            .to_owned()
    });
    let message = format!("the provider redirects to {}: {advice}", shown(location));
    let failure = Failure::new(Class::NotFound, message).with_cause(Cause::Redirected);
    Some(Failure { status: Some(status), ..failure })
}

/// Returns the advice for a redirect to the same path below another address.
fn advice(target: &Uri, base_url: &str, path: &str) -> Option<String> {
    let base: Uri = base_url.parse().ok()?;
    // An address without a host is on the same host.
    let (scheme, authority) = match (target.scheme_str(), target.authority()) {
        (Some(scheme), Some(authority)) => (scheme, authority),
        _ => (base.scheme_str()?, base.authority()?),
    };
    let path = path.split('?').next().unwrap_or_default();
    let prefix = target.path().trim_end_matches('/').strip_suffix(path)?.trim_end_matches('/');
    let what = match (base.scheme_str(), base.host() == Some(authority.host())) {
        (Some("http"), true) if scheme == "https" => "use https",
        _ => "use this address",
    };
    // The user and password before a host are not part of a configured address.
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    let address: String =
        format!("{scheme}://{host}{prefix}").chars().take(MAX_SHOWN_ADDRESS_CHARS).collect();
    Some(format!("{what}, base_url = \"{address}\""))
}

/// Returns an address without the parts that may be secret: user, query and fragment.
fn shown(location: &str) -> String {
    let address = location.split(['?', '#']).next().unwrap_or_default();
    let is_slash = ['/', '\\'];
    // The scheme may be missing, and so may slashes: clients accept such addresses.
    let scheme_end =
        address.find(':').filter(|end| address[end + 1..].starts_with(is_slash)).map_or(0, |end| end + 1);
    let slashes = address[scheme_end..].len() - address[scheme_end..].trim_start_matches(is_slash).len();
    if scheme_end == 0 && slashes == 1 {
        return address.chars().take(MAX_SHOWN_ADDRESS_CHARS).collect();
    }
    let (start, rest) = address.split_at(scheme_end + slashes);
    let (authority, path) = rest.split_at(rest.find(is_slash).unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    let shown = format!("{start}{host}{path}");
    shown.chars().take(MAX_SHOWN_ADDRESS_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn message(status: u16, location: &'static str, base_url: &str) -> Option<String> {
        let headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_static(location))]);
        failure(status, &headers, base_url, "/chat/completions").map(|failure| {
            assert_eq!((failure.class, failure.status), (Class::NotFound, Some(status)));
            failure.message.into()
        })
    }

    #[test]
    fn a_redirect_names_the_address_to_write() {
        let moved = message(301, "https://a.example/v1/chat/completions", "http://a.example/v1").unwrap();
        assert_eq!(
            moved,
            "the provider redirects to https://a.example/v1/chat/completions: \
             use https, base_url = \"https://a.example/v1\""
        );
        let other =
            message(308, "https://b.example:8443/v1/chat/completions", "http://a.example/v1").unwrap();
        assert!(other.ends_with("use this address, base_url = \"https://b.example:8443/v1\""), "{other}");
        for (location, base_url, expected) in [
            ("https://a.example/v1/chat/completions", "http://a.example", "https://a.example/v1"),
            ("/v1/chat/completions", "http://a.example:81", "http://a.example:81/v1"),
            (
                "https://a.example/api/v1/chat/completions/",
                "https://a.example/v1",
                "https://a.example/api/v1",
            ),
            ("https://a.example/chat/completions", "https://a.example/v1", "https://a.example"),
        ] {
            let message_text = message(307, location, base_url).unwrap();
            assert!(
                message_text.ends_with(&format!(", base_url = \"{expected}\"")),
                "{location}: {message_text}"
            );
        }
    }

    #[test]
    fn a_redirect_to_another_page_is_reported_with_its_location() {
        for location in ["https://a.example/login", "/login", "login page"] {
            let message_text = message(302, location, "https://a.example/v1").unwrap();
            assert!(
                message_text.contains(&format!("redirects to {location}: redirects are not followed")),
                "{message_text}"
            );
        }
    }

    #[test]
    fn user_query_and_fragment_of_a_redirect_are_not_shown() {
        let message_text = message(
            307,
            "https://me:pass@a.example/v1/chat/completions?key=sk-1#sk-2",
            "https://b.example/v1",
        )
        .unwrap();
        assert!(
            message_text.contains("redirects to https://a.example/v1/chat/completions: use this address"),
            "{message_text}"
        );
        assert!(!message_text.contains("sk-") && !message_text.contains("pass"), "{message_text}");
        for (location, shown) in [
            ("//me:pass@a.example/v1", "redirects to //a.example/v1:"),
            ("https:/me:pass@a.example/v1", "redirects to https:/a.example/v1:"),
            ("https:\\\\me:pass@a.example\\v1", "redirects to https:\\\\a.example\\v1:"),
            ("me:pass@a.example/v1", "redirects to a.example/v1:"),
            ("/v1/me@x/y", "redirects to /v1/me@x/y:"),
        ] {
            let message_text = message(307, location, "https://b.example/v1").unwrap();
            assert!(message_text.contains(shown) && !message_text.contains("pass"), "{message_text}");
        }
    }

    #[test]
    fn a_response_without_a_location_or_another_status_is_no_redirect() {
        assert_eq!(message(404, "https://a.example", "https://a.example"), None);
        assert_eq!(message(200, "https://a.example", "https://a.example"), None);
        assert!(failure(302, &HeaderMap::new(), "https://a.example", "/x").is_none());
    }
}
