//! Words that the project no longer uses, in the sources, the documents and the help of the program.
//!
//! One concept has one word. A word that was replaced must not come back. The library names no options of the program.
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

/// Returns the options of the program that the text of a source file names, with their lines. Comments and test modules
/// do not count.
fn named_options(name: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut follows_test_attribute = false;
    for (number, line) in text.lines().enumerate() {
        if follows_test_attribute && line.starts_with("mod ") && line.trim_end().ends_with('{') {
            break;
        }
        follows_test_attribute = line.starts_with("#[cfg(test")
            || line.starts_with("#[cfg(all(test")
            || follows_test_attribute && line.starts_with("#[");
        let code = line.split(" // ").next().unwrap_or_default();
        if code.trim_start().starts_with("//") {
            continue;
        }
        for (at, _) in code.match_indices("--") {
            let follows_text = code[..at].ends_with([' ', '(', '`', '"', '[']);
            let is_word = code[at + 2..].starts_with(|letter: char| letter.is_ascii_lowercase());
            if follows_text && is_word {
                let option = code[at..].split(|letter: char| !(letter.is_alphanumeric() || letter == '-'));
                let option = option.take(1).collect::<String>();
                found.push(format!("{name}:{}: {option}; use `types::Remedy`", number + 1));
            }
        }
    }
    found
}

#[test]
fn the_library_names_no_options_of_the_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    files(&root.join("src"), "rs", &mut paths);
    let mut found = Vec::new();
    let mut read = 0;
    for path in paths {
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let is_test = |part: &str| {
            matches!(part, "tests" | "tests.rs" | "properties.rs" | "fixtures.rs")
                || part.ends_with("_tests.rs")
        };
        if name.starts_with("src/cli/") || name.split('/').any(is_test) {
            continue;
        }
        read += 1;
        found.extend(named_options(&name, &fs::read_to_string(&path).unwrap()));
    }
    assert!(read > 200, "the test has read nothing");
    assert!(
        found.is_empty(),
        "a message of the library names an option of the program; `src/cli/advice.rs` adds it:\n{}",
        found.join("\n")
    );
}

#[test]
fn an_option_is_found_in_a_message_and_not_in_a_comment_or_a_test() {
    let text = "/// As `--store` does.\nconst A: &str = \"name it, or \\\n    --config FILE (--new)\"; // --later\n\
                let x = 3 - -1;\n#[cfg(test)]\nmod tests {\n    const B: &str = \"--exact\";\n}\n";
    assert_eq!(
        named_options("a.rs", text),
        ["a.rs:3: --config; use `types::Remedy`", "a.rs:3: --new; use `types::Remedy`"]
    );
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
