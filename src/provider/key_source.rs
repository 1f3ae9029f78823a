//! Where keys come from: the environment, a file, a command. A key itself is never written into a
//! configuration.
//!
//! What is read here goes into a [`Secret`] and nowhere else: no error, label or `Debug` shows it.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

use crate::types::{KeyLabel, Secret};

use super::key_command::{self, COMMAND_LIMIT};
use super::key_error::KeyError;
use super::key_file;

/// What a label shows of a command whose program cannot be told from its text.
const SHELL: &str = "sh";

/// Looks a variable up. Passed in, so that nobody has to change the process's environment.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Looks a variable of this process up, for [`Env`]. A value that is no UTF-8 is there all the same, with replacement
/// characters: what reads it says that it is wrong, and does not take it for missing.
pub fn process_env(name: &str) -> Option<String> {
    Some(std::env::var_os(name)?.to_string_lossy().into_owned())
}

/// A key with the name it is shown by.
#[derive(Debug, Clone)]
pub struct Key {
    /// What to show.
    pub label: KeyLabel,
    /// What to send.
    pub secret: Secret,
    /// The file that it was read from, which is looked at again; `None` for a key that stays.
    pub file: Option<PathBuf>,
}

/// Where a key can be read.
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
    /// Returns a name to show; of a command the program's name alone, since the rest may be secret.
    pub fn label(&self) -> KeyLabel {
        match self {
            Self::Env(name) => format!("env:{}", shown_variable(name)),
            Self::File(path) => format!("file:{}", path.display()),
            Self::Command(line) => format!("command:{}", program(line)),
        }
        .into()
    }

    /// Returns whether it may hold the secret itself, by mistake: a command's arguments, or a name that is none.
    pub fn may_hold_secret(&self) -> bool {
        match self {
            Self::Env(name) => !is_plainly_a_variable(name),
            Self::File(_) => false,
            Self::Command(_) => true,
        }
    }

    /// Reads the key; `None` when its variable is not set, or is empty.
    ///
    /// # Errors
    /// When the file or the command gives none, or when what it gives can be no key.
    pub fn read(&self, env: Env<'_>) -> Result<Option<Secret>, KeyError> {
        let label = || self.label();
        let text = match self {
            Self::Env(name) => match env(name) {
                Some(text) if !text.trim().is_empty() => text,
                _ => return Ok(None),
            },
            Self::File(path) => key_file::read(path)?,
            Self::Command(line) => key_command::run(line, &label, COMMAND_LIMIT)?,
        };
        match text.trim() {
            "" => Err(KeyError::Empty { label: label() }),
            key if key.chars().any(|character| character.is_control() || !character.is_ascii()) => {
                Err(KeyError::NoKey { label: label() })
            }
            key => Ok(Some(Secret::from(key.to_owned()))),
        }
    }
}

/// Returns what a label shows of a variable's name: all of it where it plainly is one, else its beginning. Who puts a
/// key where its variable's name belongs must not find it in messages.
fn shown_variable(name: &str) -> Cow<'_, str> {
    if is_plainly_a_variable(name) {
        return name.into();
    }
    let shown: String = name.chars().take(MAX_SHOWN_OF_SECRET).collect();
    if shown.len() == name.len() { shown.into() } else { format!("{shown}…").into() }
}

/// Characters of a name that show where it may be a key; providers show no fewer of one.
const MAX_SHOWN_OF_SECRET: usize = 4;

/// Fewest characters of a word of a variable's name that is taken for a key if it mixes letters and digits.
const MIN_RANDOM_WORD: usize = 16;

/// Returns whether a name is written as variables are, and no part of it looks random.
fn is_plainly_a_variable(name: &str) -> bool {
    let of_variable = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let is_random = |word: &str| {
        let digits = word.bytes().filter(u8::is_ascii_digit).count();
        word.len() >= MIN_RANDOM_WORD && digits > 0 && digits < word.len()
    };
    name.bytes().all(of_variable) && !name.split('_').any(is_random)
}

/// Returns the name of the program that a command runs. Variables that are set before it may be secret, and so may
/// everything after it; a text that is not plainly a program's name is not shown.
fn program(line: &str) -> &str {
    let mut rest = line.trim_start();
    while let Some(after) = after_assignment(rest) {
        rest = after.trim_start();
    }
    let word = rest.split_whitespace().next().unwrap_or_default();
    let is_plain = |character: char| character.is_ascii_alphanumeric() || "/._+-".contains(character);
    let name = word.rsplit('/').next().unwrap_or_default();
    // No program has a name as long as a key.
    let is_name = word.chars().all(is_plain) && name.starts_with(|first: char| first.is_ascii_alphabetic());
    if is_name && name.len() <= MAX_PROGRAM_NAME { name } else { SHELL }
}

/// Longest name of a program that is shown.
const MAX_PROGRAM_NAME: usize = 20;

/// Returns what follows the assignment that a command begins with. `None` where it begins with something else, or
/// with an assignment whose end only a shell can find.
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
            // A substitution holds a command of its own.
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
            _ => Err(KeyError::NoSource),
        }
    }
}

fn is_variable(name: &str) -> bool {
    let letter = |character: char| character.is_ascii_alphanumeric() || character == '_';
    !name.is_empty() && name.chars().all(letter) && !name.starts_with(|first: char| first.is_ascii_digit())
}

impl fmt::Debug for KeySource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "KeySource({})", self.label())
    }
}

impl<'de> Deserialize<'de> for KeySource {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let advised = |error: KeyError| format!("{error}; {}", error.advice());
        from.deserialize_str(Text(move |text: &str| text.parse::<Self>().map_err(advised)))
    }
}

/// Reads a text. In contrast to a `String` that is parsed afterwards, an element of a list that is
/// wrong is then known by its own place.
pub(super) struct Text<F>(pub(super) F);

impl<T, E: fmt::Display, F: FnOnce(&str) -> Result<T, E>> Visitor<'_> for Text<F> {
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
    fn a_variable_is_read_without_the_blanks_around_it() {
        assert_eq!(read("env:KEY", &[("KEY", " sk-1\n")]), Ok(Some("sk-1".to_owned())));
    }

    #[test]
    fn a_variable_that_is_not_set_or_empty_is_missing_and_no_error() {
        assert_eq!(read("env:KEY", &[]), Ok(None));
        assert_eq!(read("env:KEY", &[("KEY", " ")]), Ok(None));
    }

    #[test]
    fn a_file_gives_its_key() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"sk-from-file\n").unwrap();
        let source = format!("file:{}", file.path().display());
        assert_eq!(read(&source, &[]), Ok(Some("sk-from-file".to_owned())));
    }

    #[test]
    fn a_file_that_is_missing_empty_or_no_key_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let source = |name: &str| format!("file:{}", folder.path().join(name).display());
        std::fs::write(folder.path().join("empty"), "\n").unwrap();
        std::fs::write(folder.path().join("two"), "sk-1\nsk-2\n").unwrap();
        assert!(read(&source("none"), &[]).unwrap_err().contains("cannot read the key file"));
        assert!(read(&source("empty"), &[]).unwrap_err().contains("holds no key"));
        let two = read(&source("two"), &[]).unwrap_err();
        assert!(two.contains("line break") && !two.contains("sk-1"), "{two}");
    }

    #[test]
    fn a_command_gives_the_first_line_of_its_output() {
        assert_eq!(read("command: printf 'sk-%s\\nuser: x\\n' cmd", &[]), Ok(Some("sk-cmd".to_owned())));
    }

    #[test]
    fn a_command_that_fails_or_says_nothing_is_an_error() {
        let failed = read("command:sh -c 'echo sk-half; exit 3'", &[]).unwrap_err();
        assert!(failed.contains("command:sh failed") && failed.contains('3'), "{failed}");
        assert!(!failed.contains("half"), "{failed}");
        assert!(read("command:true", &[]).unwrap_err().contains("holds no key"));
    }

    #[test]
    fn a_key_written_out_is_refused_and_not_repeated() {
        for text in ["sk-live-1234", "env:", "env:A-B", "env:1A", "file:", "command: ", "ENV:KEY", ""] {
            let error = text.parse::<KeySource>().unwrap_err();
            assert!(error.advice().contains("env:NAME"), "{error}");
            let error = error.to_string();
            assert!(text.is_empty() || !error.contains(text) || text.ends_with(':'), "{error}");
        }
    }

    #[test]
    fn a_key_where_a_variables_name_belongs_is_cut_in_labels() {
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
    fn a_label_shows_nothing_of_a_command_but_its_programs_name() {
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
