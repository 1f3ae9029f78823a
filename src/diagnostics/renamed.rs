//! Configuration keys and values that had other names in earlier versions.
//!
//! An old name is an error. Its help states the new name.

/// Old names, each with the new one. An old name may have several new ones: which one is meant depends on the
/// table.
const RENAMED: [(&str, &str); 29] = [
    ("attempts_per_lane", "attempts_per_target"),
    ("base", "initial_backoff"),
    ("failure_share", "failure_rate"),
    ("failures", "consecutive_failures"),
    ("floor_per_second", "min_per_second"),
    ("foreseen", "oracle"),
    ("hedge_share", "hedge_ratio"),
    ("inputs", "keep_inputs"),
    ("lane", "target"),
    ("lanes", "targets"),
    ("lanes_per_ask", "max_targets"),
    ("learned", "p95"),
    ("max", "max_backoff"),
    ("max_pause", "max_backoff"),
    ("max_pause", "max_open_duration"),
    ("min_calls", "min_requests"),
    ("others_per_minute", "background_requests_per_minute"),
    ("output_counts", "output_accounting"),
    ("pause", "backoff"),
    ("pause", "open_duration"),
    ("reasks", "max_validation_retries"),
    ("reserve", "output_reservation"),
    ("retries", "retry_budget"),
    ("rounds", "max_rounds"),
    ("share", "ratio"),
    ("shared", "shared_across_keys"),
    ("structured", "structured_output"),
    ("window", "max_in_flight_items"),
    ("window", "ttl"),
];

/// Returns the accepted name that `old` was renamed to.
pub(super) fn renamed<'k>(old: &str, accepted: &[&'k str]) -> Option<&'k str> {
    let mut new_names = RENAMED.iter().filter(|(name, _)| *name == old).map(|(_, new)| *new);
    new_names.find_map(|new| accepted.iter().copied().find(|name| *name == new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_decides_which_new_name_an_old_one_has() {
        assert_eq!(renamed("pause", &["consecutive_failures", "open_duration"]), Some("open_duration"));
        assert_eq!(renamed("pause", &["run_restarts", "backoff"]), Some("backoff"));
        assert_eq!(renamed("pause", &["targets"]), None);
        assert_eq!(renamed("targets", &["targets"]), None);
    }
}
