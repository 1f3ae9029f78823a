//! Checks the environment variables that configure proxies. A malformed variable would be ignored, and calls
//! would bypass the proxy.
//!
//! Never shows a value: it may contain a password.

use http::Uri;

use crate::provider::keys::key_source::Env;
use crate::provider::settings::{Remote, Settings};

/// The variables for `http://` addresses, for `https://` addresses and for both; the first one that is set
/// wins.
const HTTP_VARIABLES: [&str; 2] = ["HTTP_PROXY", "http_proxy"];
const HTTPS_VARIABLES: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const ALL_VARIABLES: [&str; 2] = ["ALL_PROXY", "all_proxy"];

/// The variables that list hosts without a proxy.
const NO_PROXY_VARIABLES: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// Returns each malformed variable that would apply to calls of one of these providers, with advice. Calls to
/// this machine and to the simulator use no proxy.
pub fn malformed_proxies<'s>(
    env: Env<'_>,
    providers: impl Iterator<Item = &'s Settings>,
) -> Vec<(&'static str, &'static str)> {
    let set = |name: &str| env(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    let malformed = |name: &'static str, check: fn(&str) -> Result<(), &'static str>| {
        check(&set(name)?).err().map(|advice| (name, advice))
    };
    let remotes: Vec<Remote> = providers.filter_map(Settings::remote).collect();
    if remotes.is_empty() {
        return Vec::new();
    }
    let malformed_no_proxy: Vec<_> =
        NO_PROXY_VARIABLES.into_iter().filter_map(|name| malformed(name, check_no_proxy)).collect();
    let no_proxy_lists: Vec<String> = NO_PROXY_VARIABLES.into_iter().filter_map(set).collect();
    let is_exempt = |remote: &&Remote| no_proxy_lists.iter().any(|list| is_listed(list, &remote.host));
    let mut found = Vec::new();
    for remote in remotes.iter().filter(|remote| !is_exempt(remote)) {
        let by_scheme = if remote.is_https { HTTPS_VARIABLES } else { HTTP_VARIABLES };
        let is_set = by_scheme.into_iter().any(|name| set(name).is_some());
        let names = if is_set { by_scheme } else { ALL_VARIABLES };
        for fault in names.into_iter().filter_map(|name| malformed(name, check_proxy)) {
            if !found.contains(&fault) {
                found.push(fault);
            }
        }
    }
    found.extend(malformed_no_proxy);
    found
}

/// Returns whether this list exempts a host by name. Networks in the list are not evaluated. The vendor's own
/// host is empty here and never matches.
fn is_listed(list: &str, host: &str) -> bool {
    let mut entries = list.split(',').map(|entry| entry.trim().trim_start_matches('.'));
    entries.any(|entry| {
        let matches_entry = |host: &str| !entry.is_empty() && host.eq_ignore_ascii_case(entry);
        let domains = host.match_indices('.').filter_map(|(at, _)| host.get(at + 1..));
        entry == "*" || matches_entry(host) || domains.into_iter().any(matches_entry)
    })
}

fn check_proxy(value: &str) -> Result<(), &'static str> {
    const ADVICE: &str = "write it like http://proxy.example.com:3128, with a user as http://user:password@host:port \
                          and special characters of the password percent-encoded, or unset it";
    let with_scheme = if value.contains("://") { value.to_owned() } else { format!("http://{value}") };
    let uri: Uri = with_scheme.parse().map_err(|_| ADVICE)?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("only http:// and https:// proxies are supported; write one of those, or unset it");
    }
    let authority = uri.authority().ok_or(ADVICE)?;
    let port = authority.as_str().rsplit('@').next().and_then(|host| host.rsplit_once(':'));
    // The text after the last colon of an IPv6 address is not a port.
    let has_bad_port = port.is_some_and(|(_, port)| !port.ends_with(']') && port.parse::<u16>().is_err());
    if authority.host().is_empty() || has_bad_port || authority.as_str().matches('@').count() > 1 {
        return Err(ADVICE);
    }
    Ok(())
}

fn check_no_proxy(value: &str) -> Result<(), &'static str> {
    const ADVICE: &str = "list hosts, domains and addresses with commas between them, such as \
                          localhost,.example.com,10.0.0.0/8";
    let is_valid = |entry: &str| match entry.split_once('/') {
        Some((address, bits)) => {
            let max_bits =
                address.parse::<std::net::IpAddr>().map(|address| if address.is_ipv4() { 32 } else { 128 });
            max_bits.is_ok_and(|max_bits| bits.parse::<u8>().is_ok_and(|bits| bits <= max_bits))
        }
        // A value that is not UTF-8 has replacement characters.
        None => !entry.contains(['@', ' ', ';', '\u{fffd}']),
    };
    let mut entries = value.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    if entries.all(is_valid) { Ok(()) } else { Err(ADVICE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> Settings {
        Settings { base_url: Some(url.to_owned()), ..Settings::default() }
    }

    fn names(env: Env<'_>, providers: &[Settings]) -> Vec<&'static str> {
        malformed_proxies(env, providers.iter()).into_iter().map(|(name, _)| name).collect()
    }

    fn malformed(name: &'static str, value: &str) -> Vec<(&'static str, &'static str)> {
        let providers = [at("http://a.example.com"), at("https://b.example.com")];
        malformed_proxies(&|requested| (requested == name).then(|| value.to_owned()), providers.iter())
    }

    #[test]
    fn a_proxy_variable_is_checked_only_if_a_provider_would_use_it() {
        let set =
            |name: &str| name.to_ascii_uppercase().ends_with("_PROXY").then(|| "socks5://proxy".to_owned());
        let local =
            ["http://localhost:1", "http://127.0.0.1:1", "http://models.localhost:1", "simulator"].map(at);
        assert_eq!(names(&set, &local), [""; 0]);
        assert_eq!(names(&set, &[at("https://a.example.com")])[..2], ["HTTPS_PROXY", "https_proxy"]);
        assert_eq!(names(&set, &[Settings::default()])[..2], ["HTTPS_PROXY", "https_proxy"]);
        let with = |pairs: &'static [(&str, &str)]| {
            move |requested: &str| {
                pairs.iter().find(|(name, _)| *name == requested).map(|(_, value)| (*value).to_owned())
            }
        };
        let socks = with(&[("HTTPS_PROXY", "socks5://p"), ("ALL_PROXY", "socks5://p")]);
        assert_eq!(names(&socks, &[at("http://a.example.com")]), ["ALL_PROXY"]);
        assert_eq!(names(&socks, &[at("https://a.example.com")]), ["HTTPS_PROXY"], "ALL_PROXY is not used");
        for (list, is_exempt) in [
            ("*", true),
            ("x, .Example.com", true),
            ("a.example.com", true),
            ("example.com", true),
            ("b.example.com,ample.com", false),
            ("", false),
        ] {
            let env = |requested: &str| match requested {
                "HTTPS_PROXY" => Some("socks5://p".to_owned()),
                "NO_PROXY" => Some(list.to_owned()),
                _ => None,
            };
            assert_eq!(names(&env, &[at("https://a.example.com")]).is_empty(), is_exempt, "{list}");
        }
    }

    #[test]
    fn a_proxy_variable_that_is_not_utf_8_is_malformed() {
        for name in ["HTTPS_PROXY", "NO_PROXY"] {
            let value = String::from_utf8_lossy(b"http://\xff\xfe").into_owned();
            assert_eq!(malformed(name, &value).len(), 1, "{name}");
            assert_eq!(malformed("NO_PROXY", "a\u{fffd}.com").len(), 1);
        }
    }

    #[test]
    fn a_malformed_proxy_variable_is_reported_without_its_value() {
        for (name, value) in [
            ("HTTPS_PROXY", "http://me:pass word@proxy:3128"),
            ("HTTPS_PROXY", "http://me:p@ss@proxy:3128"),
            ("https_proxy", "http://proxy:port"),
            ("HTTP_PROXY", "http://proxy:99999"),
            ("ALL_PROXY", "socks5://me:hunter22@proxy:1080"),
            ("all_proxy", "://proxy"),
            ("HTTP_PROXY", "http://"),
            ("NO_PROXY", "http://internal"),
            ("NO_PROXY", "10.0.0.0/33"),
            ("no_proxy", "a.com b.com"),
        ] {
            let found = malformed(name, value);
            let [(variable, advice)] = found.as_slice() else { panic!("{name}={value}: {found:?}") };
            assert_eq!(*variable, name);
            assert!(!advice.contains("hunter22") && !advice.contains("ss@"), "{advice}");
        }
    }

    #[test]
    fn a_valid_proxy_variable_is_accepted() {
        for (name, value) in [
            ("HTTPS_PROXY", "http://proxy.example.com:3128"),
            ("HTTPS_PROXY", "https://me:p%40ss@proxy:3128/"),
            ("http_proxy", "proxy:3128"),
            ("ALL_PROXY", "http://[::1]:8080"),
            ("ALL_PROXY", ""),
            ("NO_PROXY", "localhost, .example.com,10.0.0.0/8,fd00::/8,*"),
        ] {
            assert_eq!(malformed(name, value), [], "{name}={value}");
        }
    }
}
