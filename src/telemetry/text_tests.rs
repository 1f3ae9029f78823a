//! Checks the text with a strict parser of the format.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::{Bounds, CONTENT_TYPE, Histogram, Samples, table, text_of};

/// The labels of a sample, in their order.
type Labels = Vec<(String, String)>;

/// A metric as the text shows it.
#[derive(Debug)]
struct Family {
    kind: String,
    /// What is after the name of the metric (`_bucket`, ...), the labels and the value.
    samples: Vec<(String, Labels, f64)>,
}

/// Parses a text and checks that every line has its place: HELP, TYPE, then at least one sample of that metric.
fn parse(text: &str) -> BTreeMap<String, Family> {
    let mut families = BTreeMap::new();
    let text = text.strip_suffix('\n').unwrap_or_else(|| panic!("no line end: {text:?}"));
    let mut lines = text.split('\n').peekable();
    while let Some(line) = lines.next() {
        let help = line.strip_prefix("# HELP ").unwrap_or_else(|| panic!("not HELP: {line:?}"));
        let (name, help) = help.split_once(' ').unwrap();
        assert!(is_name(name) && !help.is_empty(), "{line:?}");
        let line = lines.next().unwrap();
        let kind = line.strip_prefix(&format!("# TYPE {name} "));
        let kind = kind.unwrap_or_else(|| panic!("not TYPE: {line:?}"));
        assert!(["counter", "gauge", "histogram"].contains(&kind), "{line:?}");
        let mut family = Family { kind: kind.to_owned(), samples: Vec::new() };
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let rest = line.strip_prefix(name).unwrap_or_else(|| panic!("not of {name}: {line:?}"));
            family.samples.push(parse_sample(rest));
        }
        check_family(name, &family);
        assert!(families.insert(name.to_owned(), family).is_none(), "{name} twice");
    }
    families
}

/// Parses what is after the name of the metric.
fn parse_sample(text: &str) -> (String, Labels, f64) {
    let end = text.find(['{', ' ']).unwrap();
    let (suffix, rest) = text.split_at(end);
    let (labels, value) = match rest.strip_prefix('{') {
        Some(rest) => parse_labels(rest),
        None => (Vec::new(), rest),
    };
    let value = value.strip_prefix(' ').unwrap_or_else(|| panic!("no space: {text:?}"));
    (suffix.to_owned(), labels, parse_value(value))
}

/// Parses labels until the closing brace. Returns the text after it.
fn parse_labels(mut text: &str) -> (Labels, &str) {
    let mut labels = Vec::new();
    loop {
        let (name, rest) = text.split_once("=\"").unwrap();
        assert!(is_name(name) && !name.contains(':'), "{name:?}");
        let mut value = String::new();
        let mut letters = rest.char_indices();
        let end = loop {
            let (at, letter) = letters.next().unwrap_or_else(|| panic!("no end of a label: {rest:?}"));
            match letter {
                '"' => break at,
                '\\' => match letters.next().unwrap() {
                    (_, '\\') => value.push('\\'),
                    (_, '"') => value.push('"'),
                    (_, 'n') => value.push('\n'),
                    (_, other) => panic!("an escape that does not exist: {other:?}"),
                },
                other => value.push(other),
            }
        };
        labels.push((name.to_owned(), value));
        let rest = &rest[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => text = more,
            None => return (labels, rest.strip_prefix('}').unwrap_or_else(|| panic!("no brace: {rest:?}"))),
        }
    }
}

fn parse_value(text: &str) -> f64 {
    let is_number = |letter: char| letter.is_ascii_digit() || "+-.e".contains(letter);
    match text {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        _ if text.chars().all(is_number) => text.parse().unwrap(),
        _ => panic!("not a number: {text:?}"),
    }
}

fn is_name(text: &str) -> bool {
    let is_inside = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
    !text.is_empty()
        && !text.starts_with(|letter: char| letter.is_ascii_digit())
        && text.chars().all(is_inside)
}

/// Checks what holds for all samples of a metric together.
fn check_family(name: &str, family: &Family) {
    assert!(!family.samples.is_empty(), "{name} without samples");
    let mut seen = BTreeSet::new();
    for (suffix, labels, _) in &family.samples {
        let names: BTreeSet<&str> = labels.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names.len(), labels.len(), "a label of {name} twice");
        assert!(seen.insert((suffix, labels)), "{name}{suffix} {labels:?} twice");
    }
    let suffixes: BTreeSet<&str> = family.samples.iter().map(|(suffix, _, _)| suffix.as_str()).collect();
    match family.kind.as_str() {
        "histogram" => {
            assert_eq!(suffixes, BTreeSet::from(["_bucket", "_count", "_sum"]), "{name}");
            check_histograms(name, family);
        }
        kind => {
            assert_eq!(suffixes, BTreeSet::from([""]), "{name}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        }
    }
}

/// Checks that the buckets of each histogram ascend, are cumulative, and end with the count.
fn check_histograms(name: &str, family: &Family) {
    let mut buckets = BTreeMap::<&[(String, String)], Vec<(f64, f64)>>::new();
    for (suffix, labels, count) in &family.samples {
        if suffix == "_bucket" {
            let ((le, bound), labels) = labels.split_last().unwrap();
            assert_eq!(le, "le", "{name}");
            buckets.entry(labels).or_default().push((parse_value(bound), *count));
        }
    }
    for (labels, buckets) in buckets {
        assert!(buckets.is_sorted_by(|(lower, _), (upper, _)| lower < upper), "{name} {buckets:?}");
        assert!(buckets.is_sorted_by_key(|(_, count)| *count), "{name} {buckets:?}");
        let (last_bound, last_count) = *buckets.last().unwrap();
        let count = family.samples.iter().find(|(suffix, of, _)| suffix == "_count" && of == labels);
        assert_eq!(last_bound, f64::INFINITY, "{name}");
        assert_eq!(Some(last_count), count.map(|(_, _, count)| *count), "{name}");
        assert!(family.samples.iter().any(|(suffix, of, _)| suffix == "_sum" && of == labels), "{name}");
    }
}

/// Returns the value of a metric without labels, or with the given values of its labels.
fn value(families: &BTreeMap<String, Family>, name: &str, values: &[&str]) -> Option<f64> {
    let has_values =
        |labels: &Labels| labels.iter().map(|(_, value)| value.as_str()).eq(values.iter().copied());
    let samples = &families.get(name)?.samples;
    samples.iter().find(|(_, labels, _)| has_values(labels)).map(|(_, _, value)| *value)
}

#[test]
fn the_text_is_as_prometheus_expects_it() {
    let mut samples = Samples::default();
    samples.counter(&table::ATTEMPTS, &["acme", "small", "rate_limit"], 2);
    samples.counter(&table::ATTEMPTS, &["acme", "small", "answered"], 41);
    samples.counter(&table::HEDGES, &[], 0);
    samples.real_counter(&table::COST_USD, &["acme", "small"], 0.0125);
    samples.gauge(&table::QUEUED, &["acme", "small"], 3.0);
    samples.gauge(&table::BUILD_INFO, &["0.1.0"], 1.0);
    let commits = Histogram::new(Bounds::SHORT_SECONDS);
    for micros in [20, 25, 2_000_000, 20_000_000] {
        commits.record(Duration::from_micros(micros));
    }
    samples.histogram(&table::COMMIT_SECONDS, &[], commits.snapshot());
    let expected = r#"# HELP pointsman_attempts_total Attempts that ended, by outcome: answered, superseded, cancelled, or the class of the failure
# TYPE pointsman_attempts_total counter
pointsman_attempts_total{provider="acme",model="small",outcome="answered"} 41
pointsman_attempts_total{provider="acme",model="small",outcome="rate_limit"} 2
# HELP pointsman_build_info Version of Pointsman, with the value 1
# TYPE pointsman_build_info gauge
pointsman_build_info{version="0.1.0"} 1.0
# HELP pointsman_commit_duration_seconds Time of one commit to the store
# TYPE pointsman_commit_duration_seconds histogram
pointsman_commit_duration_seconds_bucket{le="1e-05"} 0
pointsman_commit_duration_seconds_bucket{le="2.5e-05"} 2
pointsman_commit_duration_seconds_bucket{le="5e-05"} 2
pointsman_commit_duration_seconds_bucket{le="0.0001"} 2
pointsman_commit_duration_seconds_bucket{le="0.00025"} 2
pointsman_commit_duration_seconds_bucket{le="0.0005"} 2
pointsman_commit_duration_seconds_bucket{le="0.001"} 2
pointsman_commit_duration_seconds_bucket{le="0.0025"} 2
pointsman_commit_duration_seconds_bucket{le="0.005"} 2
pointsman_commit_duration_seconds_bucket{le="0.01"} 2
pointsman_commit_duration_seconds_bucket{le="0.025"} 2
pointsman_commit_duration_seconds_bucket{le="0.1"} 2
pointsman_commit_duration_seconds_bucket{le="1"} 2
pointsman_commit_duration_seconds_bucket{le="10"} 3
pointsman_commit_duration_seconds_bucket{le="+Inf"} 4
pointsman_commit_duration_seconds_sum 22.000045
pointsman_commit_duration_seconds_count 4
# HELP pointsman_cost_usd_total Cost of attempts in US dollars, from reported tokens and prices
# TYPE pointsman_cost_usd_total counter
pointsman_cost_usd_total{provider="acme",model="small"} 0.0125
# HELP pointsman_hedges_total Attempts sent to another target because one was slow
# TYPE pointsman_hedges_total counter
pointsman_hedges_total 0
# HELP pointsman_queued_attempts Attempts that wait to be sent
# TYPE pointsman_queued_attempts gauge
pointsman_queued_attempts{provider="acme",model="small"} 3.0
"#;
    let text = text_of(&samples);
    assert_eq!(text, expected);
    assert_eq!(parse(&text).len(), 6);
    assert_eq!(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
}

#[test]
fn the_text_of_no_samples_is_empty() {
    assert_eq!(text_of(&Samples::default()), "");
}

#[test]
fn label_values_are_escaped() {
    let names =
        ["", "a\"b", "a\\b", "a\nb", "\\n", "\"} 1\nforged 2", "grün 🚂", "a\rb\tc\u{2028}", "a,b=\"c\""];
    let mut samples = Samples::default();
    for (count, name) in (1..).zip(names) {
        samples.counter(&table::HOLDS, &[name], count);
    }
    let text = text_of(&samples);
    assert!(text.contains(r#"pointsman_holds_total{pipeline="a\"b"} 2"#), "{text}");
    assert!(text.contains(r#"pointsman_holds_total{pipeline="a\\b"} 3"#), "{text}");
    assert!(text.contains(r#"pointsman_holds_total{pipeline="a\nb"} 4"#), "{text}");
    assert!(text.contains(r#"pointsman_holds_total{pipeline="grün 🚂"} 7"#), "{text}");
    let families = parse(&text);
    for (count, name) in (1u32..).zip(names) {
        assert_eq!(value(&families, "pointsman_holds_total", &[name]), Some(f64::from(count)), "{name:?}");
    }
    assert_eq!(families["pointsman_holds_total"].samples.len(), names.len());
}

#[test]
fn numbers_of_every_size_can_be_read() {
    let numbers = [0.0, 1.0, -1.5, 1e-9, 1e21, f64::MAX, f64::MIN_POSITIVE, f64::INFINITY];
    for number in numbers {
        let mut samples = Samples::default();
        samples.gauge(&table::UPTIME_SECONDS, &[], number);
        assert_eq!(value(&parse(&text_of(&samples)), "pointsman_uptime_seconds", &[]), Some(number));
    }
    let mut samples = Samples::default();
    samples.counter(&table::COMMITS, &[], u64::MAX);
    assert!(text_of(&samples).contains("pointsman_commits_total 18446744073709551615\n"));
}

/// Names of providers and models, with the characters that matter to the format.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![any::<String>(), "[a-c\"\\\\\n{},= ]{0,4}"]
}

/// Durations in microseconds, up to more than an hour.
fn micros() -> impl Strategy<Value = Vec<u32>> {
    proptest::collection::vec(any::<u32>(), 1..5)
}

proptest! {
    #[test]
    fn every_text_can_be_read_and_has_the_values(
        counts in proptest::collection::btree_map((name(), name(), name()), 0u64..1 << 53, 0..8),
        amounts in proptest::collection::btree_map((name(), name()), 0.0f64..1e12, 0..8),
        durations in proptest::collection::btree_map((name(), name()), micros(), 0..4),
    ) {
        let mut samples = Samples::default();
        for ((provider, model, kind), count) in &counts {
            samples.counter(&table::TOKENS, &[provider, model, kind], *count);
        }
        for ((provider, model), amount) in &amounts {
            samples.real_counter(&table::COST_USD, &[provider, model], *amount);
            samples.gauge(&table::IN_FLIGHT, &[provider, model], *amount);
        }
        for ((provider, model), micros) in &durations {
            let histogram = Histogram::new(Bounds::SECONDS);
            micros.iter().for_each(|micros| histogram.record(Duration::from_micros((*micros).into())));
            samples.histogram(&table::ATTEMPT_SECONDS, &[provider, model], histogram.snapshot());
        }
        let families = parse_if_any(&text_of(&samples));
        let number_of = |name: &str| families.get(name).map_or(0, |family| family.samples.len());
        prop_assert_eq!(number_of("pointsman_tokens_total"), counts.len());
        prop_assert_eq!(number_of("pointsman_cost_usd_total"), amounts.len());
        prop_assert_eq!(number_of("pointsman_attempts_in_flight"), amounts.len());
        // The 15 buckets, the sum and the count.
        prop_assert_eq!(number_of("pointsman_attempt_duration_seconds"), durations.len() * 17);
        for ((provider, model, kind), count) in &counts {
            let read = value(&families, "pointsman_tokens_total", &[provider, model, kind]);
            prop_assert_eq!(read, Some(*count as f64));
        }
        for ((provider, model), amount) in &amounts {
            for name in ["pointsman_cost_usd_total", "pointsman_attempts_in_flight"] {
                prop_assert_eq!(value(&families, name, &[provider, model]), Some(*amount));
            }
        }
        for ((provider, model), micros) in &durations {
            let labels = [("provider", provider), ("model", model)];
            let labels = labels.map(|(name, value)| (name.to_owned(), value.clone())).to_vec();
            let family = &families["pointsman_attempt_duration_seconds"].samples;
            let counted = family.iter().find(|(suffix, of, _)| suffix == "_count" && *of == labels);
            prop_assert_eq!(counted.map(|(_, _, count)| *count), Some(micros.len() as f64));
        }
    }
}

/// Parses a text that may be empty.
fn parse_if_any(text: &str) -> BTreeMap<String, Family> {
    if text.is_empty() { BTreeMap::new() } else { parse(text) }
}
