//! The limit on open files of the process: each connection takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Files for the store, the log, the certificates, and what the runtime has open.
const OTHER_FILES: u64 = 200;

/// Raises the limit as far as the system allows it, if the configuration may need more. Returns a warning if that is not enough.
pub(super) fn raise(config: &Config) -> Option<String> {
    let needed = needed(config);
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current.unwrap_or(u64::MAX);
    if current >= needed {
        return None;
    }
    let most = limit.maximum.unwrap_or(u64::MAX).min(needed);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum });
    warning(if raised.is_ok() { most } else { current }, needed)
}

/// Returns how many files may be open at once: connections of callers, and those of the calls to providers.
fn needed(config: &Config) -> u64 {
    let calls = config.providers.values().map(|provider| provider.max_in_flight() as u64);
    let connections = config.serve.max_connections.get() as u64;
    calls.fold(connections.saturating_add(OTHER_FILES), u64::saturating_add)
}

fn warning(limit: u64, needed: u64) -> Option<String> {
    (limit < needed).then(|| {
        format!(
            "the process may open {limit} files, and max_connections of [serve] and the concurrency of the providers may need \
             {needed}: raise the limit (`ulimit -n`, `LimitNOFILE` of systemd), or lower max_connections"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_below_what_the_configuration_may_need_is_reported() {
        let text = "[provider.local]\nbase_url = 'http://localhost:1/v1'\nmax_concurrency = 300\nlimits.concurrency = 400\nmodels.m = {}\n[serve]\nmax_connections = 1000\n";
        let config = Config::parse("config.toml", text, &|_| None).unwrap();
        let needed = needed(&config);
        assert_eq!(needed, 1_500);
        assert_eq!(warning(1_500, needed), None);
        let text = warning(1_024, needed).unwrap();
        assert!(
            text.starts_with("the process may open 1024 files") && text.contains("may need 1500"),
            "{text}"
        );
    }
}
