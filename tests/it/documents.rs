//! What the README and the other documents say, held to the program.

use std::fs;
use std::path::PathBuf;

use super::program::{Room, finish, program, repository};

/// The project's documents, with their text.
fn documents() -> Vec<(PathBuf, String)> {
    let mut paths = vec![repository("README.md"), repository("CHANGELOG.md")];
    for folder in ["docs", "examples/email", "examples/ad_accounts", "examples/leads"] {
        let entries = fs::read_dir(repository(folder)).unwrap().map(|entry| entry.unwrap().path());
        paths.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "md")));
    }
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

/// The targets of a document's links.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// What a heading is called in a link.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept.chars().filter(|letter| letter.is_alphanumeric() || "-_ ".contains(*letter));
    kept.collect::<String>().replace(' ', "-")
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_exist() {
    let mut seen = 0;
    for (path, text) in documents() {
        for link in links(&text).filter(|link| !link.starts_with("http")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link}", path.display());
            let has =
                |text: String| text.lines().any(|line| line.starts_with('#') && anchor(line) == heading);
            assert!(
                heading.is_empty() || has(fs::read_to_string(&target).unwrap()),
                "{}: {link}",
                path.display()
            );
            seen += 1;
        }
    }
    assert!(seen > 10, "the test has read nothing");
}

#[test]
fn every_file_that_a_document_names_exists() {
    let mut seen = 0;
    for (path, text) in documents() {
        let is_end = |letter: char| !(letter.is_alphanumeric() || "_./*-".contains(letter));
        for word in text.split(is_end).map(|word| word.trim_end_matches(['.', '/'])) {
            let is_path = ["src/", "tests/", "docs/", "examples/"].iter().any(|root| word.starts_with(root));
            if is_path && !word.contains('*') {
                assert!(repository(word).exists(), "{} names {word}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "the test has read nothing");
}

#[test]
fn the_exit_codes_of_the_readme_are_those_of_the_help() {
    let help = finish(program("--help")).out;
    let (_, listed) = help.split_once("Exit codes:\n").unwrap();
    let listed: Vec<(&str, &str)> = listed
        .lines()
        .filter_map(|line| line.trim().split_once("  "))
        .map(|(code, what)| (code, what.trim()))
        .collect();
    let readme = fs::read_to_string(repository("README.md")).unwrap();
    let (_, table) = readme.split_once("## Exit codes").unwrap();
    let rows = table.lines().skip_while(|line| !line.starts_with("|---")).skip(1);
    let rows: Vec<(&str, &str)> =
        rows.map_while(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | ")).collect();
    assert_eq!(rows.len(), 9);
    assert_eq!(rows, listed);
}

#[test]
fn the_configurations_of_the_readme_and_the_examples_are_accepted() {
    let readme = fs::read_to_string(repository("README.md")).unwrap();
    let (_, section) = readme.split_once("## Configuration").unwrap();
    let example = section.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    // A key file is read, and there is none here.
    let room = Room::new(&example.replace(", \"file:/run/secrets/claude\"", ""));
    room.run("check").says(0, &["no fault found"]);
    let simulated = repository("examples/simulated.toml");
    room.run(&format!("check --config {}", simulated.display())).says(0, &["no fault found"]);
}

#[test]
fn every_fault_that_can_be_simulated_is_described_and_in_the_readme() {
    let [readme, described] =
        ["README.md", "docs/configuration.md"].map(|file| fs::read_to_string(repository(file)).unwrap());
    for kind in pointsman::simulator::FaultKind::ALL {
        let name = serde_json::to_value(kind).unwrap().as_str().unwrap().to_owned();
        assert!(readme.contains(&format!("`{name}`")) || readme.contains(&format!("\"{name}\"")), "{name}");
        assert!(described.contains(&format!("\n| `{name}` | ")), "{name}");
    }
}
