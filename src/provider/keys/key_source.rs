//! Sources of keys: the environment, a file, a command. A configuration never contains the key itself.
//!
//! The value that is read goes into a [`Secret`]. No error, label or `Debug` output shows it.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

use crate::diagnostics::path_may_be_key;
use crate::types::{KeyLabel, Secret};

use super::key_command::{self, COMMAND_TIMEOUT};
use super::key_error::{KeyError, shown_path};
use super::key_file;
use super::random_word::is_random;

/// The label of a command whose program cannot be determined from its text.
const SHELL: &str = "sh";

/// Looks up an environment variable. A parameter, so that tests need not change the environment of the process.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Looks up a variable of this process, for [`Env`]. A value that is not UTF-8 is returned with replacement
/// characters: the reader then reports an invalid value instead of a missing one.
pub fn process_env(name: &str) -> Option<String> {
    Some(std::env::var_os(name)?.to_string_lossy().into_owned())
}

/// A key with its label.
#[derive(Debug, Clone)]
pub struct Key {
    /// The name in messages and reports.
    pub label: KeyLabel,
    /// The value to send.
    pub secret: Secret,
    /// The file that it was read from, which is read again regularly; `None` for a key that does not change.
    pub file: Option<PathBuf>,
}

/// The source of a key.
#[derive(Clone, PartialEq, Eq)]
pub enum KeySource {
    /// `env:NAME`, an environment variable.
    Env(String),
    /// `file:PATH`, such as a Docker or Kubernetes secret.
    File(PathBuf),
    /// `command:...`, run by `sh -c`; the key is the first line of its output.
    Command(String),
}

impl KeySource {
    /// Returns the label. For a command it is only the program's name, because the rest may be secret.
    pub fn label(&self) -> KeyLabel {
        match self {
            Self::Env(name) => format!("env:{}", shown_variable(name)),
            Self::File(path) => format!("file:{}", shown_path(path)),
            Self::Command(line) => format!("command:{}", program_name(line)),
        }
        .into()
    }

    /// Returns whether the source may contain the secret itself by mistake: in the arguments of a command, or in
    /// place of a variable's name or of a path.
    pub fn may_hold_secret(&self) -> bool {
        match self {
            Self::Env(name) => !is_clearly_variable(name),
            Self::File(path) => path_may_be_key(&path.to_string_lossy()),
            Self::Command(_) => true,
        }
    }

    /// Reads the key; `None` when its variable is not set or empty.
    ///
    /// # Errors
    /// If the file or the command yields no key, or a value that is not valid as a key.
    pub fn read(&self, env: Env<'_>) -> Result<Option<Secret>, KeyError> {
        let label = || self.label();
        let text = match self {
            Self::Env(name) => match env(name) {
                Some(text) if !text.trim().is_empty() => text,
                _ => return Ok(None),
            },
            Self::File(path) => key_file::read(path)?,
            Self::Command(line) => key_command::run(line, &label, COMMAND_TIMEOUT)?,
        };
        match text.trim() {
            "" => Err(KeyError::Empty { label: label() }),
            key if key.chars().any(|character| character.is_control() || !character.is_ascii()) => {
                Err(KeyError::InvalidKey { label: label() })
            }
            key => Ok(Some(Secret::from(key.to_owned()))),
        }
    }
}

/// Returns the part of a variable's name that a label shows: the whole name if it is clearly one, else its
/// beginning. If a user writes a key in place of the name, messages must not show the key.
fn shown_variable(name: &str) -> Cow<'_, str> {
    if is_clearly_variable(name) {
        return name.into();
    }
    let shown: String = name.chars().take(MAX_SHOWN_OF_SECRET).collect();
    if shown.len() == name.len() { shown.into() } else { format!("{shown}…").into() }
}

/// Characters of a name that are shown if it may be a key. Providers show at least as many of a key.
const MAX_SHOWN_OF_SECRET: usize = 4;

/// Returns whether a name is spelled like a variable's, and no part of it looks random.
fn is_clearly_variable(name: &str) -> bool {
    let is_variable_byte = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    name.bytes().all(is_variable_byte) && !name.split('_').any(is_random)
}

/// Returns the name of the program that a command runs. Variable assignments before it and everything after it
/// may be secret. Text that is not clearly a program's name is not shown.
fn program_name(line: &str) -> &str {
    let mut rest = line.trim_start();
    while let Some(after) = after_assignment(rest) {
        rest = after.trim_start();
    }
    let word = rest.split_whitespace().next().unwrap_or_default();
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "/._+-".contains(character);
    let name = word.rsplit('/').next().unwrap_or_default();
    // Program names are shorter than keys.
    let is_name = word.chars().all(is_plain) && name.starts_with(|first: char| first.is_ascii_alphabetic());
    if is_name && name.len() <= MAX_PROGRAM_NAME_LENGTH { name } else { SHELL }
}

/// Maximum length of a program's name that is shown.
const MAX_PROGRAM_NAME_LENGTH: usize = 20;

/// Returns the text after the assignment at the start of a command. `None` if the command does not start with an
/// assignment, or with one whose end only a shell can find.
fn after_assignment(line: &str) -> Option<&str> {
    let (name, value) = line.split_once('=')?;
    if !is_variable(name) {
        return None;
    }
    let mut quote = None;
    let mut is_escaped = false;
    for (at, character) in value.char_indices() {
        match (quote, character) {
            _ if is_escaped => is_escaped = false,
            (None | Some('"'), '\\') => is_escaped = true,
            // A substitution contains another command.
            (None | Some('"'), '$' | '`') | (None, '(' | ')' | ';' | '&' | '|' | '<' | '>') => return None,
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), _) if open == character => quote = None,
            (None, _) if character.is_whitespace() => return Some(&value[at..]),
            _ => {}
        }
    }
    None
}

impl FromStr for KeySource {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("env", name)) if is_variable(name) => Ok(Self::Env(name.to_owned())),
            Some(("file", path)) if !path.is_empty() => Ok(Self::File(path.into())),
            Some(("command", line)) if !line.trim().is_empty() => Ok(Self::Command(line.trim().to_owned())),
            _ => Err(KeyError::InvalidSource),
        }
    }
}

fn is_variable(name: &str) -> bool {
    let is_name_character = |character: char| character.is_ascii_alphanumeric() || character == '_';
    !name.is_empty()
        && name.chars().all(is_name_character)
        && !name.starts_with(|first: char| first.is_ascii_digit())
}

impl fmt::Debug for KeySource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "KeySource({})", self.label())
    }
}

impl<'de> Deserialize<'de> for KeySource {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let advised = |error: KeyError| format!("{error}; {}", error.advice());
        from.deserialize_str(StrVisitor(move |text: &str| text.parse::<Self>().map_err(advised)))
    }
}

/// Parses a string while it is deserialized. In contrast to parsing a `String` afterwards, an error then has the
/// position of the list element.
pub(in crate::provider) struct StrVisitor<F>(pub(in crate::provider) F);

impl<T, E: fmt::Display, F: FnOnce(&str) -> Result<T, E>> Visitor<'_> for StrVisitor<F> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("env:NAME, file:PATH or command:... in quotes")
    }

    fn visit_str<D: serde::de::Error>(self, text: &str) -> Result<T, D> {
        (self.0)(text).map_err(D::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn read(source: &str, env: &[(&str, &str)]) -> Result<Option<String>, String> {
        let env =
            |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let source: KeySource = source.parse().map_err(|error: KeyError| error.to_string())?;
        let secret = source.read(&env).map_err(|error| error.to_string())?;
        Ok(secret.map(|secret| secret.expose().to_owned()))
    }

    #[test]
    fn a_variable_is_read_without_surrounding_whitespace() {
        assert_eq!(read("env:KEY", &[("KEY", " sk-1\n")]), Ok(Some("sk-1".to_owned())));
    }

    #[test]
    fn an_unset_or_empty_variable_is_missing_and_not_an_error() {
        assert_eq!(read("env:KEY", &[]), Ok(None));
        assert_eq!(read("env:KEY", &[("KEY", " ")]), Ok(None));
    }

    #[test]
    fn a_key_is_read_from_a_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"sk-from-file\n").unwrap();
        let source = format!("file:{}", file.path().display());
        assert_eq!(read(&source, &[]), Ok(Some("sk-from-file".to_owned())));
    }

    #[test]
    fn a_missing_or_empty_file_or_one_with_two_lines_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let source = |name: &str| format!("file:{}", folder.path().join(name).display());
        std::fs::write(folder.path().join("empty"), "\n").unwrap();
        std::fs::write(folder.path().join("two"), "sk-1\nsk-2\n").unwrap();
        let missing = read(&source("none"), &[]).unwrap_err();
        assert!(missing.contains("cannot read the key file"));
        assert!(!missing.contains("working directory"), "an absolute path is complete: {missing}");
        let directory = std::env::current_dir().unwrap();
        let missing = read("file:no/such/key", &[]).unwrap_err();
        let place = format!("no/such/key, relative to the working directory {}", directory.display());
        assert!(missing.ends_with(&place), "{missing}");
        assert!(read(&source("empty"), &[]).unwrap_err().contains("has no key"));
        let two = read(&source("two"), &[]).unwrap_err();
        assert!(two.contains("line break") && !two.contains("sk-1"), "{two}");
    }

    #[test]
    fn the_key_is_the_first_line_of_a_commands_output() {
        assert_eq!(read("command: printf 'sk-%s\\nuser: x\\n' cmd", &[]), Ok(Some("sk-cmd".to_owned())));
    }

    #[test]
    fn a_command_that_fails_or_writes_nothing_is_an_error() {
        let failed = read("command:sh -c 'echo sk-half; exit 3'", &[]).unwrap_err();
        assert!(failed.contains("command:sh failed") && failed.contains('3'), "{failed}");
        assert!(!failed.contains("half"), "{failed}");
        assert!(read("command:true", &[]).unwrap_err().contains("has no key"));
    }

    #[test]
    fn a_literal_key_is_refused_and_not_repeated() {
        for text in ["sk-live-1234", "env:", "env:A-B", "env:1A", "file:", "command: ", "ENV:KEY", ""] {
            let error = text.parse::<KeySource>().unwrap_err();
            assert!(error.advice().contains("env:NAME"), "{error}");
            let error = error.to_string();
            assert!(text.is_empty() || !error.contains(text) || text.ends_with(':'), "{error}");
        }
    }

    #[test]
    fn a_key_in_place_of_a_variables_name_is_truncated_in_labels() {
        for (name, shown) in [
            ("OPENAI_API_KEY", "OPENAI_API_KEY"),
            ("_KEY2", "_KEY2"),
            ("gsk_0123456789abcdef", "gsk_…"),
            ("sk_live", "sk_l…"),
            ("AKIAIOSFODNN7EXAMPLE", "AKIA…"),
            ("key", "key"),
        ] {
            let source: KeySource = format!("env:{name}").parse().unwrap();
            assert_eq!(source.label().as_str(), format!("env:{shown}"));
            assert_eq!(format!("{source:?}"), format!("KeySource(env:{shown})"));
        }
    }

    #[test]
    fn a_label_shows_the_program_and_not_its_arguments() {
        let source: KeySource = "command:echo sk-live-1234".parse().unwrap();
        assert_eq!(source.label().as_str(), "command:echo");
        assert_eq!(format!("{source:?}"), "KeySource(command:echo)");
    }

    #[test]
    fn a_label_shows_only_the_program_name_of_a_command() {
        for (line, shown) in [
            ("VAULT_TOKEN=hvs.secret vault read x", "vault"),
            ("A=1 B='two words' C=\"x \\\" y\" D=a\\ b /opt/bin/op read", "op"),
            ("TOKEN=$(printf hvs.secret x) vault", "sh"),
            ("TOKEN=`printf hvs.secret x` vault", "sh"),
            ("TOKEN=hvs.secret", "sh"),
            ("TOKEN=hvs.secret; vault", "sh"),
            ("TOKEN='hvs.secret vault", "sh"),
            ("(hvs.secret)", "sh"),
            ("<hvs.secret cat", "sh"),
            ("sk-live-0123456789abcdef0123456789", "sh"),
            ("\"$HOME\"/bin/key hvs.secret", "sh"),
            ("pass show openai", "pass"),
        ] {
            let source: KeySource = format!("command:{line}").parse().unwrap();
            assert_eq!(source.label().as_str(), format!("command:{shown}"), "{line}");
        }
    }
}
