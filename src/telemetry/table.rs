//! The table of all metrics. `docs/metrics.md` shows it to users.
//!
//! A name is `pointsman_` and what is measured, with the unit as the last word. The values of a label come from the
//! configuration, the pipelines or an enumeration, so the number of series is bounded.

use super::metric::{Kind, Metric};

/// Defines the metrics and the list of all of them, so that the list lacks none. The help of a metric is its
/// documentation.
macro_rules! metrics {
    ($($metric:ident = $kind:ident $name:literal [$($label:literal)*] $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $metric: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: $help,
            };
        )*

        /// All metrics.
        pub const ALL: &[&Metric] = &[$(&$metric),*];
    };
}

metrics! {
    // Attempts: one attempt is one HTTP request to a provider.
    ATTEMPTS = Counter "pointsman_attempts" ["provider" "model" "outcome"]
        "Attempts that ended, by outcome: answered, superseded, cancelled, or the class of the failure";
    ATTEMPT_SECONDS = Histogram "pointsman_attempt_duration_seconds" ["provider" "model"]
        "Time from sending an attempt to its end";
    ATTEMPT_QUEUE_SECONDS = Histogram "pointsman_attempt_queue_seconds" ["provider" "model"]
        "Time from queueing an attempt to sending it";
    FIRST_TOKEN_SECONDS = Histogram "pointsman_time_to_first_token_seconds" ["provider" "model"]
        "Time from sending an attempt to the first piece of its answer";
    TOKENS = Counter "pointsman_tokens" ["provider" "model" "kind"]
        "Tokens that providers reported: input contains cached and cache_write, output contains reasoning";
    COST_USD = Counter "pointsman_cost_usd" ["provider" "model"]
        "Cost of attempts in US dollars, from reported tokens and prices";
    UNCERTAIN_COST_USD = Counter "pointsman_uncertain_cost_usd" ["provider" "model"]
        "Highest cost in US dollars of attempts that the provider may have charged without reporting tokens";
    POSSIBLY_CHARGED = Counter "pointsman_possibly_charged_attempts" ["provider" "model"]
        "Attempts that the provider may have charged without reporting tokens";

    // Providers.
    IN_FLIGHT = Gauge "pointsman_attempts_in_flight" ["provider" "model"]
        "Attempts that were sent and have not ended";
    CONCURRENCY_LIMIT = Gauge "pointsman_concurrency_limit" ["provider" "model"]
        "Attempts that may be in flight at once";
    QUEUED = Gauge "pointsman_queued_attempts" ["provider" "model"]
        "Attempts that wait to be sent";
    QUEUE_AGE_SECONDS = Gauge "pointsman_oldest_queued_attempt_seconds" ["provider"]
        "Time for which the oldest queued attempt has waited";
    BREAKER_OPEN = Gauge "pointsman_breaker_state" ["provider" "model" "state"]
        "State of the circuit breaker: 1 for the present one of closed, open and half-open, 0 for the others";
    LIMIT_UTILIZATION = Gauge "pointsman_rate_limit_utilization_ratio" ["provider" "limit"]
        "Used part of a rate limit per minute, the highest of the account and its models: 1 is all of it";
    HELD_SECONDS = Gauge "pointsman_provider_held_seconds" ["provider"]
        "Remaining wait that the provider asked for";
    KEYS_COOLING_DOWN = Gauge "pointsman_keys_in_cooldown" ["provider"]
        "API keys that are not used for a while, because the provider refused them";

    // Requests: a request has one or more attempts.
    REQUESTS = Counter "pointsman_requests" ["outcome"]
        "Requests that ended, by outcome: answered, or the class of the failure";
    FAILOVERS = Counter "pointsman_failovers" []
        "Moves of requests to another target, because one failed or rejected the attempt";
    HEDGES = Counter "pointsman_hedges" []
        "Attempts sent to another target because one was slow";
    RETRIES = Counter "pointsman_retries" []
        "Attempts sent to the same target again after a failure";
    REQUEST_OVERHEAD_SECONDS = Histogram "pointsman_request_overhead_seconds" []
        "Time that Pointsman itself adds to a request, without attempts, their queues, and waits for backoff, budgets and scopes";
    REQUESTS_PENDING = Gauge "pointsman_requests_pending" []
        "Requests that have not ended";

    // Runs and items.
    ITEMS = Counter "pointsman_items" ["pipeline" "status"]
        "Items that ended, by status: completed, failed, skipped or rejected";
    ITEM_SECONDS = Histogram "pointsman_item_duration_seconds" ["pipeline"]
        "Time from the start of an item to its end";
    STEP_SECONDS = Histogram "pointsman_step_duration_seconds" ["pipeline" "step"]
        "Time from the start of a step of an item to its end";
    ANSWERS_RESTORED = Counter "pointsman_restored_answers" ["pipeline"]
        "Answers of the same item and run taken from the store instead of a provider";
    CACHE_HITS = Counter "pointsman_cache_hits" ["pipeline"]
        "Answers of another item or run taken from the store instead of a provider";
    CACHE_SAVED_USD = Counter "pointsman_cache_saved_usd" ["pipeline"]
        "What these answers had cost in US dollars, as far as it is known";
    VALIDATION_RETRIES = Counter "pointsman_validation_retries" ["pipeline"]
        "Requests sent because an answer failed validation";
    ITEMS_IN_PROGRESS = Gauge "pointsman_items_in_progress" ["pipeline"]
        "Items that were started and have not ended";
    RUNS_OPEN = Gauge "pointsman_open_runs" []
        "Runs in progress in this process";
    RUNS_HOLDING = Gauge "pointsman_holding_runs" ["pipeline"]
        "Runs that hold, because no target of a route is usable";
    HOLDS = Counter "pointsman_holds" ["pipeline"]
        "Holds that began";
    RUNS = Gauge "pointsman_runs" ["state"]
        "Runs of the daemon that have not ended, by state: running, holding, paused, stopped, io_error or crashed";

    // The store.
    COMMITS = Counter "pointsman_commits" []
        "Transactions committed to the store";
    COMMIT_SECONDS = Histogram "pointsman_commit_duration_seconds" []
        "Time of one commit to the store";
    COMMITTED_RECORDS = Counter "pointsman_committed_records" []
        "Records committed to the store";
    FAILED_COMMITS = Counter "pointsman_failed_commits" []
        "Commits to the store that failed: each stops its run";
    STORE_WRITABLE = Gauge "pointsman_store_writable" []
        "Whether the store of the daemon can be written: 1 or 0";

    // Budgets and configuration.
    BUDGET_CAP_USD = Gauge "pointsman_budget_cap_usd" ["budget"]
        "Cap of a day in US dollars: of all (day), of a provider (provider:NAME) or of a scope (scope:NAME)";
    BUDGET_SPENT_USD = Gauge "pointsman_budget_spent_usd" ["budget"]
        "What counts against that cap today, UTC, with the uncertain cost";
    CONFIGURATION_FAULTY = Gauge "pointsman_configuration_faulty" []
        "Whether the last reload was refused because the configuration is faulty: 1 or 0";

    // The process.
    READY = Gauge "pointsman_ready" []
        "Whether the daemon can take work, as in /ready: 1 or 0";
    ACTOR_RESTARTS = Counter "pointsman_actor_restarts" ["actor"]
        "Restarts of actors after a panic, by kind of actor";
    MEMORY_RESERVED_BYTES = Gauge "pointsman_memory_reserved_bytes" []
        "Memory reserved for items and responses in progress, of max_memory";
    UPTIME_SECONDS = Gauge "pointsman_uptime_seconds" []
        "Time since Pointsman started";
    BUILD_INFO = Gauge "pointsman_build_info" ["version"]
        "Version of Pointsman, with the value 1";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::telemetry::{Bounds, Histogram, Samples, text_of};

    const DOCS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md"));

    /// All labels. None has a value per item, caller, answer, request or message, so that the series are bounded.
    const LABELS: [&str; 12] = [
        "actor", "budget", "kind", "limit", "model", "outcome", "pipeline", "provider", "state", "status",
        "step", "version",
    ];

    /// Returns the names of a metric's series in the text.
    fn series(metric: &Metric) -> Vec<String> {
        let suffixes: &[&str] = match metric.kind {
            Kind::Counter => &["_total"],
            Kind::Gauge => &[""],
            Kind::Histogram => &["_bucket", "_sum", "_count"],
        };
        suffixes.iter().map(|suffix| format!("{}{suffix}", metric.name)).collect()
    }

    /// Returns the name of a metric in its TYPE line, which is the one in the page.
    fn shown_name(metric: &Metric) -> String {
        let suffix = if metric.kind == Kind::Counter { "_total" } else { "" };
        format!("{}{suffix}", metric.name)
    }

    #[test]
    fn names_are_lower_case_words_and_unique() {
        let mut names = BTreeSet::new();
        for metric in ALL {
            let mut words = metric.name.strip_prefix("pointsman_").unwrap().split('_');
            let is_word =
                |word: &str| !word.is_empty() && word.chars().all(|letter| letter.is_ascii_lowercase());
            assert!(words.all(is_word), "{}", metric.name);
            for name in series(metric) {
                assert!(names.insert(name.clone()), "{name} twice");
            }
        }
    }

    #[test]
    fn no_name_has_a_suffix_that_the_text_adds() {
        for metric in ALL {
            for suffix in ["_total", "_bucket", "_sum", "_count", "_created"] {
                assert!(!metric.name.ends_with(suffix), "{}", metric.name);
            }
        }
    }

    #[test]
    fn a_unit_is_the_last_word_of_a_name_and_is_a_base_unit() {
        for metric in ALL {
            let words: Vec<&str> = metric.name.split('_').collect();
            let (last, others) = words.split_last().unwrap();
            for unit in ["seconds", "usd", "bytes", "ratio", "tokens"] {
                assert!(!others.contains(&unit), "{}", metric.name);
            }
            for unit in ["ms", "milliseconds", "us", "microseconds", "minutes", "dollars", "kib", "percent"] {
                assert!(!words.contains(&unit), "{}", metric.name);
            }
            assert!(metric.kind != Kind::Histogram || *last == "seconds", "{}", metric.name);
        }
    }

    #[test]
    fn help_is_one_sentence_without_a_period() {
        let mut helps = BTreeSet::new();
        for metric in ALL {
            let help = metric.help;
            assert!(help.starts_with(|letter: char| letter.is_ascii_uppercase()), "{help}");
            assert!(help.is_ascii() && !help.contains(['\n', '\\', '`', '|']) && help.len() <= 160, "{help}");
            assert!(!help.contains('.') && !help.ends_with([' ', ',', ':', ';']), "{help}");
            assert!(helps.insert(help), "{help} twice");
        }
    }

    #[test]
    fn labels_are_known_and_no_metric_has_one_twice() {
        let mut used = BTreeSet::new();
        for metric in ALL {
            let labels: BTreeSet<&str> = metric.labels.iter().copied().collect();
            assert_eq!(labels.len(), metric.labels.len(), "{}", metric.name);
            used.extend(labels);
        }
        assert_eq!(used, BTreeSet::from(LABELS));
    }

    #[test]
    fn a_metric_of_a_step_or_model_names_its_pipeline_or_provider_too() {
        for metric in ALL {
            for (part, whole) in [("model", "provider"), ("step", "pipeline")] {
                assert!(!metric.labels.contains(&part) || metric.labels.contains(&whole), "{}", metric.name);
            }
        }
    }

    #[test]
    fn the_page_has_the_table() {
        let rows = DOCS.lines().filter(|line| line.starts_with("| `pointsman_"));
        let rows: Vec<Vec<String>> = rows
            .map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().replace('`', "")).collect())
            .collect();
        let expected = ALL.iter().map(|metric| {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let labels = if metric.labels.is_empty() { "–".to_owned() } else { metric.labels.join(", ") };
            vec![shown_name(metric), kind.to_owned(), labels, metric.help.to_owned()]
        });
        assert_eq!(rows, expected.collect::<Vec<_>>());
    }

    #[test]
    fn the_page_explains_every_label() {
        let rows = DOCS.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let explained = rows.map(|(name, _)| name).filter(|name| !name.starts_with("pointsman_"));
        assert_eq!(explained.collect::<BTreeSet<_>>(), BTreeSet::from(LABELS));
    }

    #[test]
    fn the_alerts_of_the_page_use_metrics_and_labels_that_exist() {
        let known: BTreeSet<String> =
            ALL.iter().flat_map(|metric| [series(metric), vec![shown_name(metric)]].concat()).collect();
        let is_end = |letter: char| !(letter.is_ascii_lowercase() || letter == '_');
        let words = DOCS.split(is_end).filter(|word| word.starts_with("pointsman_"));
        let unknown: Vec<&str> = words.filter(|word| !known.contains(*word)).collect();
        assert_eq!(unknown, Vec::<&str>::new());

        let expressions = DOCS.lines().filter_map(|line| line.trim_start().strip_prefix("expr: "));
        let expressions: Vec<&str> = expressions.collect();
        assert_eq!(expressions.len(), 5);
        for expression in expressions {
            let metrics = ALL.iter().filter(|metric| expression.contains(metric.name));
            // The buckets of a histogram have the label `le`.
            let labels = metrics.flat_map(|metric| metric.labels).copied().chain(["le"]);
            let labels: BTreeSet<&str> = labels.collect();
            let lists = |start: &'static str, end: char| {
                expression.split(start).skip(1).filter_map(move |part| part.split(end).next())
            };
            let groups = lists("by (", ')').flat_map(|list| list.split(',')).map(str::trim);
            let matchers = lists("{", '}').flat_map(|list| list.split(','));
            let matched = matchers.filter_map(|matcher| matcher.split(['=', '!']).next());
            let unknown: Vec<&str> = groups.chain(matched).filter(|label| !labels.contains(label)).collect();
            assert_eq!(unknown, Vec::<&str>::new(), "{expression}");
        }
    }

    #[test]
    fn the_text_has_every_metric() {
        let mut samples = Samples::default();
        for metric in ALL {
            let labels: Vec<&str> = metric.labels.iter().map(|_| "x").collect();
            match metric.kind {
                Kind::Counter => samples.counter(metric, &labels, 1),
                Kind::Gauge => samples.gauge(metric, &labels, 1.0),
                Kind::Histogram => {
                    samples.histogram(metric, &labels, Histogram::new(Bounds::SECONDS).snapshot());
                }
            }
        }
        let text = text_of(&samples);
        for metric in ALL {
            let name = shown_name(metric);
            assert_eq!(text.matches(&format!("# HELP {name} {}\n", metric.help)).count(), 1, "{name}");
            assert_eq!(text.matches(&format!("# TYPE {name} ")).count(), 1, "{name}");
            for name in series(metric) {
                let mut rests = text.lines().filter_map(|line| line.strip_prefix(name.as_str()));
                assert!(rests.any(|rest| rest.starts_with(['{', ' '])), "{name}");
            }
        }
    }
}
