//! Where keys come from: the environment, a file, a command. A key itself is never written into a
//! configuration.
//!
//! What is read here goes into a [`Secret`] and nowhere else: no error, label or `Debug` shows it.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::mpsc;
use std::time::Duration;

use http::HeaderValue;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};

use crate::types::{KeyLabel, Secret};

/// A key is a line; whoever names a disk image by mistake must not have it read whole.
const LONGEST_KEY: u64 = 64 * 1024;

/// A password store may have to ask a person first.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Looks a variable up. Passed in, so that nobody has to change the process's environment.
pub type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

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

/// A key that cannot be read. Never holds the key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The text names no source.
    #[error("this is no source of a key; write env:NAME, file:PATH or command:..., never the key itself")]
    NoSource,
    /// The file cannot be read.
    #[error("cannot read the key file {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The command cannot be run or read.
    #[error("cannot run the key command {label}")]
    Command {
        /// The command's label.
        label: KeyLabel,
        /// Why.
        source: io::Error,
    },
    /// The command failed.
    #[error("the key command {label} failed ({status}); run it by hand to see why")]
    CommandFailed {
        /// The command's label.
        label: KeyLabel,
        /// Its exit status.
        status: std::process::ExitStatus,
    },
    /// The command did not end in time.
    #[error("the key command {label} did not end in time; run it by hand to see why")]
    CommandHung {
        /// The command's label.
        label: KeyLabel,
    },
    /// The source holds nothing.
    #[error("{label} holds no key")]
    Empty {
        /// The source's label.
        label: KeyLabel,
    },
    /// The source holds what no header can carry.
    #[error("{label} holds a line break or another character that no key has")]
    NoKey {
        /// The source's label.
        label: KeyLabel,
    },
}

impl KeyError {
    /// Returns what to do about it, where the text does not say.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::File { .. } => "put the key into this file, let it be read, or name another under `keys`",
            Self::Empty { .. } => "put the key into it, alone on one line",
            Self::NoKey { .. } => "leave nothing in it but the key, on one line",
            Self::NoSource | Self::Command { .. } | Self::CommandFailed { .. } | Self::CommandHung { .. } => {
                "run it by hand to see why"
            }
        }
    }
}

impl KeySource {
    /// Returns a name to show; of a command only the program, since its arguments may be secret.
    pub fn label(&self) -> KeyLabel {
        match self {
            Self::Env(name) => format!("env:{name}"),
            Self::File(path) => format!("file:{}", path.display()),
            Self::Command(line) => format!("command:{}", line.split_whitespace().next().unwrap_or_default()),
        }
        .into()
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
            Self::File(path) => {
                read_file(path).map_err(|source| KeyError::File { path: path.clone(), source })?
            }
            Self::Command(line) => run(line, label, COMMAND_LIMIT)?,
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

fn read_file(path: &PathBuf) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST_KEY).read_to_string(&mut text)?;
    Ok(text)
}

fn run(line: &str, label: impl Fn() -> KeyLabel, limit: Duration) -> Result<String, KeyError> {
    let failed = |source| KeyError::Command { label: label(), source };
    let mut child = Command::new("sh")
        .args(["-c", line])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let output = child.stdout.take().ok_or_else(|| failed(io::ErrorKind::BrokenPipe.into()))?;
    // Reading has no time limit of its own, hence the thread; it ends with the command's output.
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output.take(LONGEST_KEY));
        let mut first = String::new();
        let read = output.read_line(&mut first);
        // A command that finds its pipe closed would fail for no fault of its own.
        let drained = io::copy(&mut output, &mut io::sink());
        // Nobody listens any more when the time is over.
        let _ = sender.send(read.and(drained).map(|_| first));
    });
    match receiver.recv_timeout(limit) {
        Ok(first) => {
            let status = child.wait().map_err(failed)?;
            if status.success() {
                first.map_err(failed)
            } else {
                Err(KeyError::CommandFailed { label: label(), status })
            }
        }
        Err(_) => {
            child.kill().and_then(|()| child.wait()).map_err(failed)?;
            Err(KeyError::CommandHung { label: label() })
        }
    }
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
        from.deserialize_str(Text(str::parse::<Self>))
    }
}

/// Reads a text. In contrast to a `String` that is parsed afterwards, an element of a list that is
/// wrong is then known by its own place.
struct Text<F>(F);

impl<T, E: fmt::Display, F: FnOnce(&str) -> Result<T, E>> Visitor<'_> for Text<F> {
    type Value = T;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("env:NAME, file:PATH or command:... in quotes")
    }

    fn visit_str<D: serde::de::Error>(self, text: &str) -> Result<T, D> {
        (self.0)(text).map_err(D::custom)
    }
}

/// The value of an extra header: written out, or read from where a key can be.
#[derive(Clone, PartialEq, Eq)]
pub enum HeaderSource {
    /// The value itself, marked as sensitive all the same: it may be a token.
    Value(HeaderValue),
    /// Where it can be read.
    Read(KeySource),
}

impl HeaderSource {
    /// Reads the value, marked as sensitive; `None` when its variable is not set.
    ///
    /// # Errors
    /// As [`KeySource::read`].
    pub fn read(&self, env: Env<'_>) -> Result<Option<HeaderValue>, KeyError> {
        match self {
            Self::Value(value) => Ok(Some(value.clone())),
            Self::Read(source) => match source.read(env)? {
                Some(secret) => match sensitive(secret.expose()) {
                    Some(value) => Ok(Some(value)),
                    None => Err(KeyError::NoKey { label: source.label() }),
                },
                None => Ok(None),
            },
        }
    }
}

fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

impl fmt::Debug for HeaderSource {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => out.write_str("Value(..)"),
            Self::Read(source) => source.fmt(out),
        }
    }
}

impl<'de> Deserialize<'de> for HeaderSource {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_str(Text(|text: &str| match text.parse() {
            Ok(source) => Ok(Self::Read(source)),
            Err(_) => sensitive(text)
                .map(Self::Value)
                .ok_or("no header can carry this value; leave out line breaks and the like"),
        }))
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
    fn a_command_that_hangs_is_given_up() {
        let given_up = run("exec sleep 600", || "command:sleep".into(), Duration::from_millis(20));
        assert!(matches!(given_up, Err(KeyError::CommandHung { .. })), "{given_up:?}");
    }

    #[test]
    fn a_key_written_out_is_refused_and_not_repeated() {
        for text in ["sk-live-1234", "env:", "env:A-B", "env:1A", "file:", "command: ", "ENV:KEY", ""] {
            let error = text.parse::<KeySource>().unwrap_err().to_string();
            assert!(error.contains("env:NAME"), "{error}");
            assert!(text.is_empty() || !error.contains(text) || text.ends_with(':'), "{error}");
        }
    }

    #[test]
    fn a_label_shows_the_program_and_not_its_arguments() {
        let source: KeySource = "command:echo sk-live-1234".parse().unwrap();
        assert_eq!(source.label().as_str(), "command:echo");
        assert_eq!(format!("{source:?}"), "KeySource(command:echo)");
    }

    #[test]
    fn a_header_is_written_out_or_read_and_never_prints() {
        let env = |name: &str| (name == "ORG").then(|| "org-secret".to_owned());
        for (text, value) in [("'plain'", "plain"), ("'env:ORG'", "org-secret")] {
            #[derive(Deserialize)]
            struct Holder {
                header: HeaderSource,
            }
            let holder: Holder = toml::from_str(&format!("header = {text}")).unwrap();
            let read = holder.header.read(&env).unwrap().unwrap();
            assert_eq!(read, value);
            assert!(!format!("{read:?} {:?}", holder.header).contains(value));
        }
    }
}
