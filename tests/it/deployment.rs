//! The files for deployment: their metrics exist, their configurations are accepted, and their times agree.
//!
//! Where the tools of the platforms are installed, they check the files as well.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use pointsman::Config;
use serde_json::Value;

use super::program::{Workspace, program, repository_path, run_program};

/// The configurations, each with the folder that has its keys in operation.
const CONFIGURATIONS: [(&str, &str); 3] = [
    ("config/pointsman.toml", "/run/secrets"),
    ("kubernetes/base/pointsman.toml", "/run/secrets/pointsman"),
    ("systemd/pointsman.toml", "/run/credentials/pointsman.service"),
];

/// How much later than the end of a drain the platform may kill the daemon, at the earliest.
const MARGIN: Duration = Duration::from_secs(15);

fn path(name: &str) -> PathBuf {
    repository_path("docs/deploy").join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

fn config(name: &str) -> Config {
    Config::from_file(path(name)).unwrap_or_else(|diagnostics| panic!("{name}: {diagnostics}"))
}

/// A row of the table of metrics.
struct Metric {
    is_histogram: bool,
    labels: BTreeSet<String>,
}

/// Returns the metrics of docs/metrics.md by name.
fn documented_metrics() -> BTreeMap<String, Metric> {
    let text = fs::read_to_string(repository_path("docs/metrics.md")).unwrap();
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `pointsman_"));
    let metrics = rows.map(|row| {
        let mut cells = row.split(" | ");
        let name = format!("pointsman_{}", cells.next().unwrap().trim_end_matches('`'));
        let is_histogram = cells.next().unwrap() == "histogram";
        let labels = cells.next().unwrap().split('`').skip(1).step_by(2).map(str::to_owned).collect();
        (name, Metric { is_histogram, labels })
    });
    let metrics: BTreeMap<_, _> = metrics.collect();
    assert!(metrics.len() > 30, "the test has read too few metrics");
    metrics
}

/// Returns the metric of a series, which for a histogram has a suffix.
fn metric_of<'a>(metrics: &'a BTreeMap<String, Metric>, series: &str) -> Option<&'a Metric> {
    let suffixes = ["_bucket", "_sum", "_count"];
    let histogram = suffixes.iter().find_map(|suffix| metrics.get(series.strip_suffix(suffix)?));
    let other = metrics.get(series).filter(|metric| !metric.is_histogram);
    other.or(histogram.filter(|metric| metric.is_histogram))
}

/// Returns the names of our series in a text.
fn series(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
    words.filter(|word| word.starts_with("pointsman_")).collect()
}

/// Adds all texts with this key in a JSON document.
fn texts_of<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field {
                    Value::String(text) if name == key => found.push(text),
                    _ => texts_of(field, key, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| texts_of(value, key, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Asserts that an expression uses our metrics, and groups them by labels that they have.
#[track_caller]
fn assert_is_known(metrics: &BTreeMap<String, Metric>, expression: &str) {
    // Prometheus adds the label of the scraped daemon, and a histogram has that of its buckets.
    let mut labels = BTreeSet::from(["instance", "le"]);
    for name in series(expression) {
        let metric = metric_of(metrics, name).unwrap_or_else(|| panic!("no metric {name} in {expression}"));
        labels.extend(metric.labels.iter().map(String::as_str));
    }
    for group in ["by (", "on (", "ignoring("].iter().flat_map(|words| expression.split(words).skip(1)) {
        let (group, _) = group.split_once(')').unwrap();
        for label in group.split(',').map(str::trim) {
            assert!(labels.contains(label), "no metric has the label {label}: {expression}");
        }
    }
}

#[test]
fn the_dashboard_uses_metrics_that_exist() {
    let metrics = documented_metrics();
    let dashboard: Value = serde_json::from_str(&read("grafana/dashboard.json")).unwrap();
    let mut expressions = Vec::new();
    texts_of(&dashboard, "expr", &mut expressions);
    assert!(expressions.len() > 40, "the test has found too few expressions");
    for expression in &expressions {
        assert!(!series(expression).is_empty(), "{expression}");
        assert_is_known(&metrics, expression);
    }
    let mut queries = Vec::new();
    texts_of(&dashboard, "definition", &mut queries);
    assert!(queries.iter().flat_map(|query| series(query)).all(|name| metric_of(&metrics, name).is_some()));
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have the same ID");
}

#[test]
fn the_alerts_use_metrics_that_exist() {
    let metrics = documented_metrics();
    let rules = read("prometheus/alerts.yaml");
    // An expression may be folded over several lines.
    let rules: Vec<_> = rules.split("- alert: ").skip(1).collect();
    assert!(rules.len() > 10, "the test has found too few alerts");
    for rule in rules {
        let (_, expression) = rule.split_once("expr: ").unwrap();
        let ends = ["\n        for: ", "\n        labels:"].iter().filter_map(|end| expression.find(end));
        assert_is_known(&metrics, &expression[..ends.min().unwrap()]);
    }
    let tests = read("prometheus/alerts.test.yaml");
    assert!(series(&tests).into_iter().all(|name| metric_of(&metrics, name).is_some()));
}

#[test]
fn the_guide_says_what_to_do_about_every_alert() {
    let guide = fs::read_to_string(repository_path("docs/operations.md")).unwrap();
    let rules = read("prometheus/alerts.yaml");
    let alerts = rules.split("- alert: ").skip(1).map(|rule| rule.lines().next().unwrap());
    let alerts: BTreeSet<_> = alerts.collect();
    let rows = guide.lines().filter(|line| line.starts_with("| `Pointsman"));
    let explained = rows.flat_map(|row| row.split('|').nth(1).unwrap().split(','));
    let explained: BTreeSet<_> = explained.map(|alert| alert.trim().trim_matches('`')).collect();
    assert_eq!(alerts, explained);
}

#[test]
fn the_configurations_are_accepted_and_listen_at_the_port_of_the_platform() {
    for (name, _) in CONFIGURATIONS {
        let serve = config(name).serve;
        assert_eq!(serve.listen.port(), 7700, "{name}");
        // A container is reached from outside, so that its callers need tokens.
        let is_container = !name.starts_with("systemd/");
        assert_eq!(serve.needs_tokens(), is_container, "{name}");
    }
    for (file, words) in [
        ("Dockerfile", "EXPOSE 7700"),
        ("Dockerfile", "\"--health\", \"--config\", \"/etc/pointsman/pointsman.toml\""),
        ("compose.yaml", "127.0.0.1:7700:7700"),
        ("prometheus/prometheus.yaml", "pointsman:7700"),
        ("kubernetes/base/service.yaml", "port: 7700"),
        ("kubernetes/base/statefulset.yaml", "containerPort: 7700"),
    ] {
        assert!(read(file).contains(words), "{file}: {words}");
    }
}

#[test]
fn each_key_file_of_a_configuration_is_provided_by_its_platform() {
    for (name, folder) in CONFIGURATIONS {
        let config = config(name);
        let files: Vec<_> = config.secret_files().collect();
        assert!(!files.is_empty(), "{name}");
        for file in files {
            assert_eq!(file.parent().unwrap().to_str().unwrap(), folder, "{name}");
            let key = file.file_name().unwrap().to_str().unwrap();
            let (provider, words) = match name {
                "config/pointsman.toml" => ("compose.yaml", format!("file: ./secrets/{key}\n")),
                "kubernetes/base/pointsman.toml" => {
                    ("kubernetes/overlays/example/secret.yaml", format!("\n  {key}: "))
                }
                _ => ("systemd/pointsman.service", format!("\nLoadCredential={key}:")),
            };
            assert!(read(provider).contains(&words), "{provider}: {words:?}");
        }
    }
    assert!(read("kubernetes/base/statefulset.yaml").contains("mountPath: /run/secrets/pointsman\n"));
}

#[test]
fn the_store_is_on_the_volume() {
    for (name, _) in CONFIGURATIONS {
        let store = config(name).store.url.to_string();
        assert_eq!(store, "sqlite:/var/lib/pointsman/pointsman.db", "{name}");
    }
    for (file, words) in [
        ("Dockerfile", "VOLUME [\"/var/lib/pointsman\"]"),
        ("compose.yaml", "- data:/var/lib/pointsman\n"),
        ("kubernetes/base/statefulset.yaml", "mountPath: /var/lib/pointsman\n"),
        ("systemd/pointsman.service", "\nStateDirectory=pointsman\n"),
    ] {
        assert!(read(file).contains(words), "{file}: {words}");
    }
}

#[test]
fn a_platform_kills_the_daemon_only_after_its_drain() {
    for (name, file, setting) in [
        (CONFIGURATIONS[0].0, "compose.yaml", "stop_grace_period: "),
        (CONFIGURATIONS[1].0, "kubernetes/base/statefulset.yaml", "terminationGracePeriodSeconds: "),
        (CONFIGURATIONS[2].0, "systemd/pointsman.service", "\nTimeoutStopSec="),
    ] {
        let text = read(file);
        let (_, value) = text.split_once(setting).unwrap();
        let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
        let killed_after = Duration::from_secs(digits.parse().unwrap());
        let drain = config(name).serve.drain;
        assert!(killed_after >= drain + MARGIN, "{file}: {killed_after:?}, with a drain of {drain:?}");
    }
}

#[test]
fn the_images_have_the_version_of_the_program_and_are_built_with_its_rust() {
    let version = env!("CARGO_PKG_VERSION");
    for (file, words) in [
        ("compose.yaml", format!("image: pointsman:{version}\n")),
        ("kubernetes/base/kustomization.yaml", format!("newTag: {version}\n")),
        ("kubernetes/overlays/example/kustomization.yaml", format!("newTag: {version}\n")),
        ("Dockerfile", format!("FROM rust:{}-", env!("CARGO_PKG_RUST_VERSION"))),
    ] {
        assert!(read(file).contains(&words), "{file}: {words}");
    }
}

#[test]
fn the_pipelines_are_accepted() {
    let pipeline = "config/pipelines/tickets.toml";
    assert_eq!(read(pipeline), read("kubernetes/base/pipelines/tickets.toml"));
    let check = format!("check {}", path(pipeline).display());
    Workspace::new("").run(&check).expect_stderr(0, &["no problems found"]);
}

#[test]
fn the_program_has_the_options_that_the_files_use() {
    for (command, options) in [
        ("serve --help", ["--config", "--log"]),
        ("status --help", ["--config", "--health"]),
        ("token new --help", ["--name", "--scope"]),
    ] {
        let output = run_program(program(command));
        output.expect_code(0);
        for option in options {
            assert!(output.stdout.contains(option), "{command}: {option}");
        }
    }
}

/// Runs a tool. Returns its exit code and its output, or `None` if it is not installed.
fn run_tool(name: &str, arguments: &[&str]) -> Option<(Option<i32>, String)> {
    match Command::new(name).args(arguments).output() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
            Some((output.status.code(), text.concat()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{name}: {error}"),
    }
}

/// Returns whether systemd-analyze is installed and can check the security of a unit without a running systemd.
#[cfg(target_os = "linux")]
fn has_systemd_analyze() -> bool {
    let Some((_, text)) = run_tool("systemd-analyze", &["--version"]) else { return false };
    let version = text.split_whitespace().nth(1).and_then(|version| version.parse::<u32>().ok());
    version.is_some_and(|version| version >= 250)
}

#[cfg(target_os = "linux")]
#[test]
fn systemd_accepts_the_unit_and_its_exposure_is_low() {
    if !has_systemd_analyze() {
        return;
    }
    // systemd looks for the program, which is not installed on the machine of a developer.
    let start = concat!("\nExecStart=", env!("CARGO_BIN_EXE_pointsman"));
    let unit = read("systemd/pointsman.service").replace("\nExecStart=/usr/local/bin/pointsman", start);
    let workspace = Workspace::empty();
    workspace.write("pointsman.service", unit);
    let unit = workspace.path("pointsman.service");
    let unit = unit.to_str().unwrap();
    let (_, output) = run_tool("systemd-analyze", &["verify", "--man=no", unit]).unwrap();
    // Other units of the machine may have faults.
    let faults: Vec<_> = output.lines().filter(|line| line.contains("pointsman")).collect();
    assert!(faults.is_empty(), "{faults:?}");
    let arguments = ["security", "--offline=true", "--threshold=20", "--no-pager", unit];
    let (code, output) = run_tool("systemd-analyze", &arguments).unwrap();
    assert_eq!(code, Some(0), "the exposure is above 2.0:\n{output}");
}

#[test]
fn kustomize_builds_the_manifests() {
    for folder in ["kubernetes/base", "kubernetes/overlays/example"] {
        let folder = path(folder);
        let arguments = ["kustomize", folder.to_str().unwrap()];
        let Some((code, output)) = run_tool("kubectl", &arguments) else { return };
        assert_eq!(code, Some(0), "{output}");
        for kind in ["ConfigMap", "NetworkPolicy", "PodDisruptionBudget", "Service", "StatefulSet"] {
            assert!(output.contains(&format!("\nkind: {kind}\n")), "{kind}");
        }
    }
}

#[test]
fn prometheus_accepts_the_alerts_and_they_fire_as_tested() {
    for (command, file) in
        [(["check", "rules"], "prometheus/alerts.yaml"), (["test", "rules"], "prometheus/alerts.test.yaml")]
    {
        let file = path(file);
        let arguments = [command[0], command[1], file.to_str().unwrap()];
        let Some((code, output)) = run_tool("promtool", &arguments) else { return };
        assert_eq!(code, Some(0), "{output}");
    }
}
