//! The origin of a URL: its scheme and host.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The scheme and host of an `http` or `https` URL, normalized.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origin(Box<str>);

/// A text is not a scheme and host that all URL parsers read alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not a plain host, such as \"cdn.example.com\" or \"http://intranet:8080\"")]
pub struct OriginError;

impl Origin {
    /// Returns the origin of a URL. `None` if no `/`, `?` or `#` ends the host, or if some URL parser could read
    /// another host.
    pub fn of(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let host = &rest[..rest.find(['/', '?', '#'])?];
        Self::new(scheme, host)
    }

    fn new(scheme: &str, host: &str) -> Option<Self> {
        // No user name, escape, backslash or space, so that all URL parsers read the same host.
        let is_plain = |byte: u8| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']')
        };
        let is_host = !host.is_empty() && host.bytes().all(is_plain);
        let is_known = ["http", "https"].contains(&scheme);
        (is_host && is_known).then(|| Self(format!("{scheme}://{}", host.to_ascii_lowercase()).into()))
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    /// Parses a host with an optional scheme; the default is `https`.
    fn from_str(text: &str) -> Result<Self, OriginError> {
        let (scheme, host) = text.split_once("://").unwrap_or(("https", text));
        Self::new(scheme, host.strip_suffix('/').unwrap_or(host)).ok_or(OriginError)
    }
}

impl TryFrom<String> for Origin {
    type Error = OriginError;

    fn try_from(text: String) -> Result<Self, OriginError> {
        text.parse()
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.0.into()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Option<String> {
        Origin::of(url).map(String::from)
    }

    #[test]
    fn the_origin_is_scheme_and_host() {
        assert_eq!(of("https://CDN.example.com/a.png").as_deref(), Some("https://cdn.example.com"));
        assert_eq!(of("http://[::1]:8080/?a").as_deref(), Some("http://[::1]:8080"));
        assert_eq!("cdn.example.com".parse::<Origin>().unwrap().to_string(), "https://cdn.example.com");
        assert_eq!("http://intranet:8080/".parse::<Origin>().unwrap().to_string(), "http://intranet:8080");
    }

    #[test]
    fn a_host_that_url_parsers_read_differently_is_rejected() {
        for url in [
            "https://cdn.example.com",
            "https://cdn.example.com@evil.example/a.png",
            "https://evil.example\\.cdn.example.com/a.png",
            "https://cdn.example.com\t.evil.example/a.png",
            "https://cdn.example.com%2eevil.example/a.png",
            "https:///a.png",
            "ftp://cdn.example.com/a.png",
            "//cdn.example.com/a.png",
        ] {
            assert_eq!(of(url), None, "{url}");
        }
        for host in ["", "*.example.com", "a b", "ftp://a", "https://a/b"] {
            assert_eq!(host.parse::<Origin>(), Err(OriginError), "{host}");
        }
    }
}
