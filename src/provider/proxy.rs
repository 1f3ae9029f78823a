//! Checks the variables that name proxies: a malformed one would be passed over, and calls would go out directly.
//!
//! Never shows a value: it may hold a password.

use http::Uri;

use super::key_source::Env;

/// The variables that name a proxy; the HTTP client reads the lower-case ones as well.
const PROXIES: [&str; 6] =
    ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// The variables that name hosts without a proxy.
const EXCEPTIONS: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// Returns each variable that is malformed, with what to write.
pub fn malformed_proxies(env: Env<'_>) -> Vec<(&'static str, &'static str)> {
    let wrong = |name: &'static str, check: fn(&str) -> Result<(), &'static str>| {
        let value = env(name).filter(|value| !value.trim().is_empty())?;
        check(value.trim()).err().map(|advice| (name, advice))
    };
    let proxies = PROXIES.into_iter().filter_map(|name| wrong(name, check_proxy));
    proxies.chain(EXCEPTIONS.into_iter().filter_map(|name| wrong(name, check_exceptions))).collect()
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
    // What stands after the last colon of an IPv6 address is no port.
    let has_bad_port = port.is_some_and(|(_, port)| !port.ends_with(']') && port.parse::<u16>().is_err());
    if authority.host().is_empty() || has_bad_port || authority.as_str().matches('@').count() > 1 {
        return Err(ADVICE);
    }
    Ok(())
}

fn check_exceptions(value: &str) -> Result<(), &'static str> {
    const ADVICE: &str = "list hosts, domains and addresses with commas between them, such as \
                          localhost,.example.com,10.0.0.0/8";
    let is_right = |entry: &str| match entry.split_once('/') {
        Some((address, bits)) => {
            let most =
                address.parse::<std::net::IpAddr>().map(|address| if address.is_ipv4() { 32 } else { 128 });
            most.is_ok_and(|most| bits.parse::<u8>().is_ok_and(|bits| bits <= most))
        }
        None => !entry.contains(['@', ' ', ';']),
    };
    let mut entries = value.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    if entries.all(is_right) { Ok(()) } else { Err(ADVICE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn malformed(name: &'static str, value: &str) -> Vec<(&'static str, &'static str)> {
        malformed_proxies(&|asked| (asked == name).then(|| value.to_owned()))
    }

    #[test]
    fn a_malformed_proxy_variable_is_named_and_its_value_is_not() {
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
    fn a_proxy_variable_that_is_right_is_no_fault() {
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
