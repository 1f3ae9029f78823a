//! Recognizes the hosts that are this machine. Requests to them stay here and use no proxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Returns whether a host is this machine. Names below `localhost` are (RFC 6761).
pub(in crate::provider) fn is_loopback_host(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => is_localhost(host) || is_localhost_subdomain(host),
    }
}

/// Returns the addresses of a name below `localhost`; `None` for any other host. Not every system resolves such
/// names itself, and a remote name server must not decide where they lead.
pub(in crate::provider) fn localhost_addresses(host: &str) -> Option<[SocketAddr; 2]> {
    // The port comes from the request.
    let at = |address: IpAddr| SocketAddr::new(address, 0);
    is_localhost_subdomain(host).then(|| [at(Ipv4Addr::LOCALHOST.into()), at(Ipv6Addr::LOCALHOST.into())])
}

fn is_localhost(host: &str) -> bool {
    host.trim_end_matches('.').eq_ignore_ascii_case("localhost")
}

fn is_localhost_subdomain(host: &str) -> bool {
    host.trim_end_matches('.').rsplit_once('.').is_some_and(|(_, last)| is_localhost(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_recognized_by_each_of_its_names() {
        for host in [
            "localhost",
            "LocalHost.",
            "models.localhost",
            "a.b.localhost.",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
        ] {
            assert!(is_loopback_host(host), "{host}");
        }
        assert!(is_loopback_host("[::ffff:127.0.0.1]"));
        for host in ["localhost.example.com", "notlocalhost", "10.0.0.7", "[2001:db8::1]", "0.0.0.0", "", "."]
        {
            assert!(!is_loopback_host(host), "{host}");
        }
    }

    #[test]
    fn a_name_below_localhost_is_resolved_without_a_name_server() {
        let addresses_of =
            |host| localhost_addresses(host).map(|addresses| addresses.map(|address| address.to_string()));
        let here = Some(["127.0.0.1:0".to_owned(), "[::1]:0".to_owned()]);
        assert_eq!(addresses_of("models.localhost"), here);
        assert_eq!(addresses_of("localhost"), None);
        assert_eq!(addresses_of("localhost.example.com"), None);
    }
}
