//! Words that the project no longer uses, in the sources, the documents and the help of the program.
//!
//! One concept has one word. A word that was replaced must not come back.
#![expect(clippy::unwrap_used, reason = "a test that cannot read the sources fails")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Words and phrases, each with what to write instead.
const DROPPED: [(&str, &str); 31] = [
    ("anew", "again, or a new ..."),
    ("asker", "caller, or request context"),
    ("beaten", "superseded"),
    ("desk", "inbox"),
    ("floor_per_second", "min_per_second"),
    ("foretell", "estimate"),
    ("foretold", "estimated"),
    ("gave up", "restarts exhausted, or failed"),
    ("give up", "fail, or stop"),
    ("gives up", "fails, or stops"),
    ("go on", "resume, or continue"),
    ("goes on", "resumes, or continues"),
    ("grounds", "manifest"),
    ("in vain", "without effect, or without a result"),
    ("lane", "target"),
    ("lanes", "targets"),
    ("nobody", "name the subject: no caller, no user"),
    ("owed", "outstanding"),
    ("perhaps", "uncertain, or possibly"),
    ("played", "simulated"),
    ("practice", "simulated"),
    ("purse", "budget"),
    ("re-ask", "validation retry"),
    ("reask", "validation retry"),
    ("reasks", "max_validation_retries"),
    ("seal", "checksum"),
    ("somebody", "name the subject: the user, another process"),
    ("told", "advertised, reported, or sent"),
    ("trail", "attempt log"),
    ("vain", "unused"),
    ("whoever", "name the subject: the caller, the user"),
];

/// Lines that may have a word: they read what earlier versions wrote, or show the old name.
const ALLOWED: [(&str, &str); 9] = [
    ("src/diagnostics/renamed.rs", ""),
    ("src/", "alias = \""),
    ("src/config/check.rs", "\"lanes\""),
    ("src/config/tests.rs", "\\nlanes = "),
    ("src/store/tests.rs", "RENAME COLUMN"),
    ("src/store/tests.rs", "replace(trail"),
    ("src/types/response.rs", "{{\"lane\":"),
    ("src/runtime/existing_run.rs", "LEGACY_SIMULATED_SUFFIX"),
    ("src/sink/output_owner.rs", "\"practice\""),
];

fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|name| name == extension) {
            found.push(path);
        }
    }
}

/// Returns whether a text has a word, not as a part of another word.
fn has_word(text: &str, word: &str) -> bool {
    let is_part =
        |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
    text.match_indices(word).any(|(at, _)| {
        !is_part(text[..at].chars().next_back()) && !is_part(text[at + word.len()..].chars().next())
    })
}

/// Returns the dropped words of a text, with their lines.
fn dropped_words(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if ALLOWED.iter().any(|(file, part)| name.starts_with(file) && line.contains(part)) {
            continue;
        }
        let line = line.to_lowercase();
        let words = DROPPED.iter().filter(|(word, _)| has_word(&line, word));
        found
            .extend(words.map(|(word, instead)| format!("{name}:{}: {word:?}; write {instead}", number + 1)));
    }
    found
}

#[test]
fn the_sources_and_documents_have_no_dropped_words() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = vec![root.join("README.md"), root.join("config.toml")];
    files(&root.join("src"), "rs", &mut paths);
    files(&root.join("docs"), "md", &mut paths);
    assert!(paths.len() > 300, "the test has read nothing");
    let mut found = Vec::new();
    for path in paths {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        found.extend(dropped_words(&name, &fs::read_to_string(&path).unwrap()));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
#[cfg(feature = "cli")]
fn the_help_of_every_command_has_no_dropped_words() {
    let help = |arguments: &[&str]| {
        let output =
            Command::new(env!("CARGO_BIN_EXE_pointsman")).args(arguments).arg("--help").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let general = help(&[]);
    let (_, commands) = general.split_once("Commands:\n").unwrap();
    let commands: Vec<&str> = commands
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() > 10, "{commands:?}");
    let mut found = dropped_words("--help", &general);
    for command in commands {
        found.extend(dropped_words(&format!("{command} --help"), &help(&[command])));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_dropped_word_is_found_with_its_line_and_not_inside_another_word() {
    assert_eq!(dropped_words("a.md", "a plane\nThe Lane."), ["a.md:2: \"lane\"; write target"]);
    assert!(dropped_words("src/a.rs", "#[serde(alias = \"lane\")]").is_empty());
}
