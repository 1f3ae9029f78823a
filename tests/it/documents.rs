//! The README and the other documents agree with the program.

#[cfg(feature = "server")]
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

#[cfg(feature = "server")]
use super::daemon::{Answer, DaemonFolder, client};
use super::program::{Workspace, program, repository_path, run_program};
#[cfg(feature = "server")]
use super::support::start_simulator;

/// Returns the path and the text of each document of the project.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths = vec![repository_path("README.md"), repository_path("CHANGELOG.md")];
    let folders = [
        "docs",
        "docs/install",
        "examples/email",
        "examples/ad_accounts",
        "examples/leads",
        "examples/search",
    ];
    for folder in folders {
        let entries = fs::read_dir(repository_path(folder)).unwrap().map(|entry| entry.unwrap().path());
        paths.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// Returns the destinations of a document's links.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// Returns the anchor of a heading in a link.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let text = text.chars().filter(|letter| letter.is_alphanumeric() || "-_ ".contains(*letter));
    text.collect::<String>().replace(' ', "-")
}

#[test]
fn every_link_points_to_an_existing_file_and_heading() {
    let mut checked = 0;
    for (path, text) in documents() {
        for link in links(&text).filter(|link| !link.starts_with("http")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link}", path.display());
            let has_heading =
                |text: String| text.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
            assert!(
                heading.is_empty() || has_heading(fs::read_to_string(&target).unwrap()),
                "{}: {link}",
                path.display()
            );
            checked += 1;
        }
    }
    assert!(checked > 10, "the test has found too few links");
}

#[test]
fn every_path_in_a_document_exists() {
    let mut checked = 0;
    for (path, text) in documents() {
        let is_end = |letter: char| !(letter.is_alphanumeric() || "_./*-".contains(letter));
        for word in text.split(is_end).map(|word| word.trim_end_matches(['.', '/'])) {
            let is_path = ["src/", "tests/", "docs/", "examples/"].iter().any(|root| word.starts_with(root));
            if is_path && !word.contains('*') {
                assert!(repository_path(word).exists(), "{} names {word}", path.display());
                checked += 1;
            }
        }
    }
    assert!(checked > 20, "the test has found too few paths");
}

#[test]
fn the_exit_codes_in_the_readme_are_those_of_the_help() {
    let help = run_program(program("--help")).stdout;
    let (_, listed) = help.split_once("Exit codes:\n").unwrap();
    let listed: Vec<(&str, &str)> = listed
        .lines()
        .filter_map(|line| line.trim().split_once("  "))
        .map(|(code, what)| (code, what.trim()))
        .collect();
    let readme = fs::read_to_string(repository_path("README.md")).unwrap();
    let (_, table) = readme.split_once("## Exit codes").unwrap();
    let rows = table.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let rows: Vec<(&str, &str)> =
        rows.map_while(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | ")).collect();
    assert_eq!(rows.len(), 9);
    assert_eq!(rows, listed);
}

#[test]
fn the_configurations_of_the_readme_and_the_examples_are_accepted() {
    let readme = fs::read_to_string(repository_path("README.md")).unwrap();
    let (_, section) = readme.split_once("## Configuration").unwrap();
    let example = section.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    // `check` reads key files, and this one does not exist.
    let workspace = Workspace::new(&example.replace(", \"file:/run/secrets/claude\"", ""));
    workspace.run("check").expect_stderr(0, &["no problems found"]);
    let simulated = repository_path("examples/simulated.toml");
    workspace
        .run(&format!("check --config {}", simulated.display()))
        .expect_stderr(0, &["no problems found"]);
}

#[test]
fn every_fault_of_the_simulator_is_documented() {
    let text = fs::read_to_string(repository_path("docs/configuration.md")).unwrap();
    for kind in pointsman::simulator::FaultKind::ALL {
        let name = serde_json::to_value(kind).unwrap().as_str().unwrap().to_owned();
        assert!(text.contains(&format!("\n| `{name}` | ")), "{name}");
    }
}

#[cfg(feature = "server")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_endpoints_of_the_http_api_are_those_of_its_description() {
    let simulator = start_simulator(pointsman::simulator::Settings::default());
    let folder = DaemonFolder::new(&simulator);
    let daemon = folder.start().await;
    let url = format!("http://{}/api/openapi.json", daemon.address());
    let described = Answer::of(client().get(url)).await.json();
    let mut described_endpoints = BTreeSet::new();
    for (path, item) in described["paths"].as_object().unwrap() {
        let path = path.strip_prefix("/api/v1").unwrap_or(path);
        let methods = item.as_object().unwrap().keys();
        described_endpoints.extend(methods.map(|method| format!("{} {path}", method.to_uppercase())));
    }
    let text = fs::read_to_string(repository_path("docs/http-api.md")).unwrap();
    let (_, table) = text.split_once("| endpoint | permission | what it does |\n|---|---|---|\n").unwrap();
    let rows = table.lines().map_while(|row| row.strip_prefix("| `")?.split_once("` | "));
    let documented_endpoints: BTreeSet<String> = rows.map(|(endpoint, _)| endpoint.to_owned()).collect();
    assert!(documented_endpoints.len() > 40, "the test has read nothing");
    assert_eq!(documented_endpoints, described_endpoints);
}
