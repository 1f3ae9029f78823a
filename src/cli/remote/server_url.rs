//! The address of a daemon.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;

use crate::config::ServeSettings;

/// The address at which a daemon listens if its configuration names none.
const DEFAULT: &str = "http://127.0.0.1:7700";

/// The address of a daemon: scheme, host, port, and the path under which it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct ServerUrl {
    text: String,
    is_local: bool,
}

impl ServerUrl {
    /// Returns the address of a daemon on this machine that has no other address in its configuration.
    pub(in crate::cli) fn local() -> Self {
        Self { text: DEFAULT.to_owned(), is_local: true }
    }

    /// Returns the address of the daemon with these settings, from this machine; `None` if it takes any free port.
    pub(in crate::cli) fn of(settings: &ServeSettings) -> Option<Self> {
        let listen = settings.listen;
        let ip = match listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let scheme = if settings.tls.files().is_some() { "https" } else { "http" };
        let text = format!("{scheme}://{}", SocketAddr::new(ip, listen.port()));
        (listen.port() != 0).then(|| Self { text, is_local: ip.is_loopback() })
    }

    /// Parses an address.
    pub(in crate::cli) fn parse(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("{why}; write it like {DEFAULT}");
        let url = Url::parse(text.trim()).map_err(|_| wrong("this is not the URL of a daemon"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("the URL of a daemon begins with http:// or https://"));
        }
        let Some(host) = url.host_str() else { return Err(wrong("the URL has no host")) };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong(
                "the URL of a daemon has no user and no password: a token is in a file or in POINTSMAN_TOKEN",
            ));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("the URL of a daemon has no query and no fragment"));
        }
        let is_local = is_loopback(host);
        Ok(Self { text: url.as_str().trim_end_matches('/').to_owned(), is_local })
    }

    /// Returns whether it is an address of this machine.
    pub(super) fn is_local(&self) -> bool {
        self.is_local
    }
}

impl fmt::Display for ServerUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(&self.text)
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Returns `text` as one segment of a path.
pub(in crate::cli) fn path_segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_url_without_secrets() {
        let parsed = |text: &str| ServerUrl::parse(text).map(|url| (url.to_string(), url.is_local));
        assert_eq!(parsed("http://127.0.0.1:7700/"), Ok((DEFAULT.to_owned(), true)));
        assert_eq!(parsed("http://[::1]:7700"), Ok(("http://[::1]:7700".to_owned(), true)));
        assert_eq!(parsed("https://llm.example/under/"), Ok(("https://llm.example/under".to_owned(), false)));
        for wrong in
            ["127.0.0.1:7700", "localhost:7700", "ftp://a", "http://u:p@a", "http://a?b=c", "http://a#b", ""]
        {
            let why = parsed(wrong).unwrap_err();
            assert!(why.ends_with("; write it like http://127.0.0.1:7700") && !why.contains("u:p"), "{why}");
        }
    }

    #[test]
    fn the_address_of_a_daemon_is_that_of_its_settings() {
        let of = |listen: &str| {
            let settings = ServeSettings { listen: listen.parse().unwrap(), ..ServeSettings::default() };
            ServerUrl::of(&settings).map(|url| (url.to_string(), url.is_local))
        };
        assert_eq!(ServerUrl::of(&ServeSettings::default()), Some(ServerUrl::local()));
        assert_eq!(of("0.0.0.0:80"), Some(("http://127.0.0.1:80".to_owned(), true)));
        assert_eq!(of("[::]:80"), Some(("http://[::1]:80".to_owned(), true)));
        assert_eq!(of("10.0.0.7:80"), Some(("http://10.0.0.7:80".to_owned(), false)));
        assert_eq!(of("127.0.0.1:0"), None);
    }

    #[test]
    fn a_daemon_at_all_addresses_is_reached_at_the_loopback_one() {
        let of = |listen: &str| {
            let serve = ServeSettings { listen: listen.parse().unwrap(), ..ServeSettings::default() };
            ServerUrl::of(&serve).map(|url| (url.to_string(), url.is_local))
        };
        assert_eq!(of("0.0.0.0:7700"), Some((DEFAULT.to_owned(), true)));
        assert_eq!(of("[::]:7701"), Some(("http://[::1]:7701".to_owned(), true)));
        assert_eq!(of("10.1.2.3:7700"), Some(("http://10.1.2.3:7700".to_owned(), false)));
        assert_eq!(of("127.0.0.1:0"), None);
    }

    #[test]
    fn a_name_is_one_segment_of_a_path() {
        assert_eq!(path_segment("ci-1"), "ci-1");
        assert_eq!(path_segment("../a b/ä"), "%2E%2E%2Fa%20b%2F%C3%A4");
    }
}
