//! Says which hosts are this machine: what is sent to them stays here and goes through no proxy.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Returns whether a host of an address is this machine. Names below `localhost` are (RFC 6761).
pub(super) fn is_this_machine(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => is_localhost(host) || is_below_localhost(host),
    }
}

/// Returns the addresses of a name below `localhost`, which not every system resolves itself; a name server elsewhere
/// must not decide where they lead. `None` for any other host.
pub(super) fn addresses(host: &str) -> Option<[SocketAddr; 2]> {
    // The port is that of the request.
    let at = |address: IpAddr| SocketAddr::new(address, 0);
    is_below_localhost(host).then(|| [at(Ipv4Addr::LOCALHOST.into()), at(Ipv6Addr::LOCALHOST.into())])
}

fn is_localhost(host: &str) -> bool {
    host.trim_end_matches('.').eq_ignore_ascii_case("localhost")
}

fn is_below_localhost(host: &str) -> bool {
    host.trim_end_matches('.').rsplit_once('.').is_some_and(|(_, last)| is_localhost(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_known_by_each_of_its_names() {
        for host in [
            "localhost",
            "LocalHost.",
            "models.localhost",
            "a.b.localhost.",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
        ] {
            assert!(is_this_machine(host), "{host}");
        }
        assert!(is_this_machine("[::ffff:127.0.0.1]"));
        for host in ["localhost.example.com", "notlocalhost", "10.0.0.7", "[2001:db8::1]", "0.0.0.0", "", "."]
        {
            assert!(!is_this_machine(host), "{host}");
        }
    }

    #[test]
    fn a_name_below_localhost_is_resolved_without_a_name_server() {
        let addresses_of =
            |host| addresses(host).map(|addresses| addresses.map(|address| address.to_string()));
        let here = Some(["127.0.0.1:0".to_owned(), "[::1]:0".to_owned()]);
        assert_eq!(addresses_of("models.localhost"), here);
        assert_eq!(addresses_of("localhost"), None);
        assert_eq!(addresses_of("localhost.example.com"), None);
    }
}
