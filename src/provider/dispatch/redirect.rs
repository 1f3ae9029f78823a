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
    let failure =
        Failure::new(Class::NotFound, message(location, base_url, path)).with_cause(Cause::Redirected);
    Some(Failure { status: Some(status), ..failure })
}

fn message(location: &str, base_url: &str, path: &str) -> String {
    let address = shown(location);
    let Some(base) = base_url.parse::<Uri>().ok().and_then(|base| Origin::of(&base)) else {
        return format!("the provider redirects to {address:?}: {NOT_FOLLOWED}");
    };
    match Destination::of(location, &base) {
        Destination::OtherHost(host) => format!(
            "the provider redirects to another host, {}: check base_url. The address of the redirect is {address:?}",
            cut(&host)
        ),
        Destination::Unencrypted => format!(
            "the provider redirects to {address:?}, which is not encrypted: redirects are not followed; check base_url"
        ),
        Destination::SameHost { address: target, is_encrypted_now } => {
            let advice = target.and_then(|target| advice(&target, path, is_encrypted_now));
            format!("the provider redirects to {address:?}: {}", advice.as_deref().unwrap_or(NOT_FOLLOWED))
        }
    }
}

/// The advice for a redirect from which no `base_url` follows.
const NOT_FOLLOWED: &str =
    "redirects are not followed; write the address of the API as base_url, without the path of its calls";

/// The scheme, the host and the port of an address.
#[derive(Debug, Clone)]
struct Origin {
    scheme: String,
    /// In lowercase.
    host: String,
    port: u16,
}

impl Origin {
    /// Returns the origin of an http or https address with a host.
    fn of(address: &Uri) -> Option<Self> {
        let scheme = address.scheme_str()?;
        let default_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        Some(Self {
            scheme: scheme.to_owned(),
            host: address.host()?.to_ascii_lowercase(),
            port: address.port_u16().unwrap_or(default_port),
        })
    }

    fn is_https(&self) -> bool {
        self.scheme == "https"
    }

    /// Returns the address of `path` at this origin, without a port that is the default.
    fn address(&self, path: &str) -> String {
        let Self { scheme, host, port } = self;
        match (scheme.as_str(), port) {
            ("http", 80) | ("https", 443) => format!("{scheme}://{host}{path}"),
            _ => format!("{scheme}://{host}:{port}{path}"),
        }
    }
}

/// Where a redirect leads, as seen from the configured address. A server that is not trusted may have sent it, so
/// that only an address at the configured host is advised: the key is sent there already.
enum Destination {
    /// To the configured host and port, or from http to https at the configured host.
    SameHost { address: Option<(Origin, String)>, is_encrypted_now: bool },
    /// To the configured host and port, from https to http.
    Unencrypted,
    /// To another host or port.
    OtherHost(String),
}

impl Destination {
    fn of(location: &str, base: &Origin) -> Self {
        let target: Option<Uri> = location.parse().ok();
        if let Some(target) = &target
            && let Some(origin) = Origin::of(target)
        {
            return Self::of_address(origin, target.path(), base);
        }
        // Not an address that `Uri` reads with its host, such as `//host/path`. Clients differ in how they read it.
        let [start, host, _] = split(location);
        if !start.is_empty() && !host.is_empty() && !host.eq_ignore_ascii_case(&base.host) {
            return Self::OtherHost(host.to_owned());
        }
        let path = target.filter(|target| target.authority().is_none() && host.is_empty());
        let address = path.map(|target| (base.clone(), target.path().to_owned()));
        Self::SameHost { address, is_encrypted_now: false }
    }

    fn of_address(origin: Origin, path: &str, base: &Origin) -> Self {
        if origin.host != base.host {
            return Self::OtherHost(origin.host);
        }
        if base.is_https() && !origin.is_https() {
            return Self::Unencrypted;
        }
        let is_encrypted_now = origin.is_https() && !base.is_https();
        let is_default_port = is_encrypted_now && origin.port == 443;
        if origin.port != base.port && !is_default_port {
            // At another port of the host, another user's program may listen.
            return Self::OtherHost(format!("{}:{}", origin.host, origin.port));
        }
        Self::SameHost { address: Some((origin, path.to_owned())), is_encrypted_now }
    }
}

/// Returns the advice for a redirect to the same path below another address.
fn advice((origin, target): &(Origin, String), path: &str, is_encrypted_now: bool) -> Option<String> {
    let path = path.split('?').next().unwrap_or_default();
    let prefix = target.trim_end_matches('/').strip_suffix(path)?.trim_end_matches('/');
    let what = if is_encrypted_now { "use https" } else { "use this address" };
    let address = origin.address(prefix);
    // An address that is cut is not the address to write.
    (address.len() <= MAX_SHOWN_ADDRESS_CHARS).then(|| format!("{what}, base_url = {address:?}"))
}

/// Returns an address without the parts that may be secret: user, query and fragment.
fn shown(location: &str) -> String {
    cut(&split(location).concat())
}

fn cut(address: &str) -> String {
    address.chars().take(MAX_SHOWN_ADDRESS_CHARS).collect()
}

/// Splits an address into its scheme with the slashes, its host with the port, and its path. The host is empty in a
/// path without a host.
fn split(location: &str) -> [&str; 3] {
    let address = location.split(['?', '#']).next().unwrap_or_default();
    let is_slash = ['/', '\\'];
    // The scheme may be missing, and so may slashes: clients accept such addresses.
    let scheme_end =
        address.find(':').filter(|end| address[end + 1..].starts_with(is_slash)).map_or(0, |end| end + 1);
    let slashes = address[scheme_end..].len() - address[scheme_end..].trim_start_matches(is_slash).len();
    if scheme_end == 0 && slashes == 1 {
        return ["", "", address];
    }
    let (start, rest) = address.split_at(scheme_end + slashes);
    let (authority, path) = rest.split_at(rest.find(is_slash).unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    [start, host, path]
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
            "the provider redirects to \"https://a.example/v1/chat/completions\": \
             use https, base_url = \"https://a.example/v1\""
        );
        for (location, base_url, expected) in [
            ("https://a.example/v1/chat/completions", "http://a.example", "https://a.example/v1"),
            ("/v1/chat/completions", "http://a.example:81", "http://a.example:81/v1"),
            (
                "https://a.example/api/v1/chat/completions/",
                "https://a.example/v1",
                "https://a.example/api/v1",
            ),
            ("https://a.example/chat/completions", "https://a.example/v1", "https://a.example"),
            ("https://A.example:443/v1/chat/completions", "https://a.example", "https://a.example/v1"),
            (
                "https://a.example:8443/v1/chat/completions",
                "http://a.example:8443/v1",
                "https://a.example:8443/v1",
            ),
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
                message_text.contains(&format!("redirects to {location:?}: redirects are not followed")),
                "{message_text}"
            );
        }
    }

    #[test]
    fn a_redirect_to_another_host_or_port_advises_no_address() {
        for (location, base_url, host) in [
            ("https://b.example:8443/v1/chat/completions", "http://a.example/v1", "b.example"),
            ("https://a.example.evil/v1/chat/completions", "https://a.example/v1", "a.example.evil"),
            ("https://a.example@evil.example/v1/chat/completions", "https://a.example/v1", "evil.example"),
            ("//evil.example/chat/completions", "https://a.example", "evil.example"),
            ("/\\evil.example/chat/completions", "https://a.example", "evil.example"),
            ("http://127.0.0.1:81/v1/chat/completions", "http://127.0.0.1:80/v1", "127.0.0.1:81"),
            ("https://127.0.0.1:81/v1/chat/completions", "http://127.0.0.1:80/v1", "127.0.0.1:81"),
            ("https://a.example:81/v1/chat/completions", "https://a.example/v1", "a.example:81"),
        ] {
            let message_text = message(308, location, base_url).unwrap();
            let expected = format!("the provider redirects to another host, {host}: check base_url. ");
            assert!(message_text.starts_with(&expected), "{location}: {message_text}");
            assert!(!message_text.contains("base_url ="), "{location}: {message_text}");
        }
        let message_text =
            message(308, "http://a.example/v1/chat/completions", "https://a.example/v1").unwrap();
        assert!(message_text.contains("which is not encrypted"), "{message_text}");
        assert!(!message_text.contains("base_url ="), "{message_text}");
    }

    #[test]
    fn an_address_with_quotes_is_advised_as_valid_toml() {
        let message_text = message(308, "/v1\"x/chat/completions", "https://a.example").unwrap();
        assert!(message_text.ends_with("base_url = \"https://a.example/v1\\\"x\""), "{message_text}");
    }

    #[test]
    fn user_query_and_fragment_of_a_redirect_are_not_shown() {
        let location = "https://me:pass@b.example/v1/chat/completions?key=sk-1#sk-2";
        let message_text = message(307, location, "https://b.example/v1").unwrap();
        assert!(
            message_text.contains("redirects to \"https://b.example/v1/chat/completions\": use this address"),
            "{message_text}"
        );
        assert!(!message_text.contains("sk-") && !message_text.contains("pass"), "{message_text}");
        for (location, shown) in [
            ("https://me:pass@a.example/v1?key=sk-1", "the redirect is \"https://a.example/v1\""),
            ("//me:pass@a.example/v1", "the redirect is \"//a.example/v1\""),
            ("https:/me:pass@a.example/v1", "the redirect is \"https:/a.example/v1\""),
            ("https:\\\\me:pass@a.example\\v1", "the redirect is \"https:\\\\\\\\a.example\\\\v1\""),
            ("me:pass@a.example/v1", "redirects to \"a.example/v1\":"),
            ("/v1/me@x/y", "redirects to \"/v1/me@x/y\":"),
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
