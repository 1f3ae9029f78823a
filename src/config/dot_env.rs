//! The variables of a `.env` file: values for variables that the process does not have.
//!
//! They are never written into the environment of the process. Their values may be keys, so that no error and no `Debug`
//! output shows any.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::diagnostics::{Diagnostic, Diagnostics};
use crate::provider::Env;
use crate::types::Secret;

use super::environment::prefixes_of_vendor;

/// The name of the file.
const FILE_NAME: &str = ".env";

/// The largest file that is read.
const MAX_BYTES: u64 = 1 << 20;

const BYTE_ORDER_MARK: &str = "\u{feff}";

/// The variables of a file. Empty if there is no file.
#[derive(Clone, Default)]
pub(super) struct DotEnv {
    file: Option<PathBuf>,
    variables: BTreeMap<String, Variable>,
}

#[derive(Clone)]
struct Variable {
    value: Secret,
    /// From 1.
    line: usize,
}

impl DotEnv {
    /// Reads the file in `folder`, if there is one. Of two values of a variable the last counts, and an empty one does not
    /// set it.
    ///
    /// # Errors
    /// The file cannot be read, or one of its lines sets no variable.
    pub(super) fn read(folder: &Path) -> Result<Self, Diagnostics> {
        let file = folder.join(FILE_NAME);
        let unreadable = |why: &dyn fmt::Display| {
            let diagnostic = Diagnostic::new(format!("cannot read {}: {why}", file.display()));
            Diagnostics(vec![diagnostic.with_help("make it readable, or remove it")])
        };
        let Some(bytes) = bytes_of(&file).map_err(|error| unreadable(&error))? else {
            return Ok(Self::default());
        };
        if bytes.len() as u64 > MAX_BYTES {
            return Err(unreadable(&"it is larger than 1 MiB"));
        }
        // The error of a text that is not UTF-8 has no line.
        let text = String::from_utf8(bytes).map_err(|_| unreadable(&"it is not text in UTF-8"))?;
        if let Some(line) = line_with_expansion(&text) {
            let message = format!("{}:{line}: variables are not expanded here", file.display());
            let help = "write the value itself, in single quotes if it has a `$`";
            return Err(Diagnostics(vec![Diagnostic::new(message).with_help(help)]));
        }
        let variables = parse(&text).map_err(|line| {
            let message = format!("{}:{line}: this line does not set a variable", file.display());
            let help = "write NAME=VALUE, with a value that has spaces or a `#` in single quotes; a quote that is opened is closed";
            Diagnostics(vec![Diagnostic::new(message).with_help(help)])
        })?;
        Ok(Self { file: Some(file), variables })
    }

    /// Returns the content of the file in `folder`; empty if there is none. To notice a change of it.
    pub(super) fn content(folder: &Path) -> Vec<u8> {
        bytes_of(&folder.join(FILE_NAME)).ok().flatten().unwrap_or_default()
    }

    /// Removes the variables that `env` sets.
    ///
    /// # Errors
    /// A variable of the file is the address to which a key of `env` would be sent: the file may be of another author.
    pub(super) fn without(mut self, env: Env<'_>) -> Result<Self, Diagnostics> {
        self.variables.retain(|name, _| value_of(env, name).is_none());
        let Some(file) = self.file() else { return Ok(self) };
        for (name, variable) in &self.variables {
            let Some(prefix) = name.strip_suffix("_BASE_URL") else { continue };
            let keys = prefixes_of_vendor(prefix).map(|prefix| format!("{prefix}_API_KEY"));
            let mut foreign = keys.filter(|key| value_of(env, key).is_some());
            if let Some(key) = foreign.next() {
                let message = format!(
                    "{}:{}: {name} is the address to which the key {key} of the environment would be sent",
                    file.display(),
                    variable.line
                );
                let help = "set both of them here, or both of them in the environment";
                return Err(Diagnostics(vec![Diagnostic::new(message).with_help(help)]));
            }
        }
        Ok(self)
    }

    /// Returns the file, if there is one.
    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Returns the file and the line that set a variable.
    pub(super) fn position(&self, name: &str) -> Option<(&Path, usize)> {
        Some((self.file()?, self.variables.get(name)?.line))
    }

    /// Returns the value of a variable: that of `env`, or else that of the file.
    pub(super) fn value(&self, env: Env<'_>, name: &str) -> Option<String> {
        let of_file = || Some(self.variables.get(name)?.value.expose().to_owned());
        value_of(env, name).or_else(of_file)
    }
}

/// Returns the first line, from 1, in which other programs would put in the value of a variable: the file may be of another
/// author, and the environment has secrets.
fn line_with_expansion(text: &str) -> Option<usize> {
    let mut quote = None;
    for (index, line) in text.lines().enumerate() {
        if quote.is_none() && line.trim_start().starts_with('#') {
            continue;
        }
        let mut letters = line.chars().peekable();
        let mut before = ' ';
        while let Some(letter) = letters.next() {
            let is_comment = letter == '#' && quote.is_none() && before.is_whitespace();
            before = letter;
            match letter {
                _ if is_comment => break,
                '\\' if quote != Some('\'') => drop(letters.next()),
                '\'' | '"' if quote.is_none() => quote = Some(letter),
                '\'' | '"' if quote == Some(letter) => quote = None,
                '$' if quote != Some('\'') => {
                    let begins_name =
                        |next: &char| *next == '{' || *next == '_' || next.is_ascii_alphabetic();
                    if letters.peek().is_some_and(begins_name) {
                        return Some(index + 1);
                    }
                }
                _ => {}
            }
        }
    }
    None
}

/// Returns the value of a variable that is set and not empty.
fn value_of(env: Env<'_>, name: &str) -> Option<String> {
    env(name).filter(|value| !value.trim().is_empty())
}

/// Returns the content of a file, at most one byte more than is allowed; `None` if there is no such file. A folder of this
/// name is a common one for packages of Python.
fn bytes_of(file: &Path) -> io::Result<Option<Vec<u8>>> {
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Ok(None),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    }
    let mut bytes = Vec::new();
    std::fs::File::open(file)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes))
}

/// Parses the text of a file.
///
/// # Errors
/// The line, from 1, that sets no variable.
fn parse(text: &str) -> Result<BTreeMap<String, Variable>, usize> {
    // The parser refuses a space at the end of a text.
    let text = &format!("{}\n", text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text));
    let lines_read = Rc::new(Cell::new(0));
    let reader = LineReader { rest: text.as_bytes(), lines_read: lines_read.clone() };
    let mut variables = BTreeMap::new();
    let mut end = 0;
    for item in dotenvy::from_read_iter(reader) {
        let line = first_line_with_text(text, end);
        // The error contains the line, which may have a key.
        let Ok((name, value)) = item else { return Err(line) };
        end = lines_read.get();
        if value.trim().is_empty() {
            variables.remove(&name);
        } else {
            variables.insert(name, Variable { value: Secret::from(value), line });
        }
    }
    Ok(variables)
}

/// Returns the number, from 1, of the first line after `end` lines that is neither blank nor a comment.
fn first_line_with_text(text: &str, end: usize) -> usize {
    let is_text = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let skipped = text.lines().skip(end).take_while(|line| !is_text(line)).count();
    end + skipped + 1
}

/// Gives out one line at a time, so that the number of lines that a parser has read is known.
struct LineReader<'t> {
    rest: &'t [u8],
    lines_read: Rc<Cell<usize>>,
}

impl Read for LineReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let line_end = self.rest.iter().position(|byte| *byte == b'\n').map_or(self.rest.len(), |at| at + 1);
        let length = line_end.min(buffer.len());
        buffer[..length].copy_from_slice(&self.rest[..length]);
        if length == line_end && length > 0 {
            self.lines_read.set(self.lines_read.get() + 1);
        }
        self.rest = &self.rest[length..];
        Ok(length)
    }
}

impl fmt::Debug for DotEnv {
    /// Shows no names: a key may stand in place of one.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "DotEnv({} variables)", self.variables.len())
    }
}

impl PartialEq for DotEnv {
    fn eq(&self, other: &Self) -> bool {
        let values = |of: &Self| -> Vec<(String, String)> {
            let all = of.variables.iter();
            all.map(|(name, variable)| (name.clone(), variable.value.expose().to_owned())).collect()
        };
        values(self) == values(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<DotEnv, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE_NAME), text).unwrap();
        DotEnv::read(folder.path()).map_err(|diagnostics| diagnostics.to_string())
    }

    #[test]
    fn the_usual_forms_of_a_variable_are_read_with_their_lines() {
        let text = "\u{feff}# keys\n\nA=1\nexport B = 'two words' # comment\nC=\"x\ny\"\n\n# more\nD=z\r\nA=2\nE=\nF=a=b\n";
        let dot_env = read(text).unwrap();
        for (name, value, line) in
            [("A", "2", 10), ("B", "two words", 4), ("C", "x\ny", 5), ("D", "z", 9), ("F", "a=b", 12)]
        {
            assert_eq!(dot_env.value(&|_| None, name).as_deref(), Some(value), "{name}");
            assert_eq!(dot_env.position(name).unwrap().1, line, "{name}");
        }
        assert_eq!(dot_env.value(&|_| None, "E"), None);
        assert_eq!(dot_env.position("E"), None);
    }

    #[test]
    fn the_environment_precedes_unless_its_variable_is_empty() {
        let dot_env = read("A=file\nB=file\n").unwrap();
        let env = |name: &str| match name {
            "A" => Some("process".to_owned()),
            "B" => Some(" ".to_owned()),
            _ => None,
        };
        assert_eq!(dot_env.value(&env, "A").as_deref(), Some("process"));
        assert_eq!(dot_env.value(&env, "B").as_deref(), Some("file"));
        let rest = dot_env.without(&env).unwrap();
        assert!(rest.position("A").is_none() && rest.position("B").is_some());
    }

    #[test]
    fn a_key_of_the_environment_is_not_sent_to_an_address_of_the_file() {
        let env = |name: &str| (name == "CLAUDE_API_KEY").then(|| "sk-live-4711".to_owned());
        let refused =
            read("\nANTHROPIC_BASE_URL=http://127.0.0.1:1\n").unwrap().without(&env).unwrap_err().to_string();
        assert!(
            refused.contains(".env:2: ANTHROPIC_BASE_URL") && refused.contains("CLAUDE_API_KEY"),
            "{refused}"
        );
        assert!(!refused.contains("4711"), "{refused}");
        for allowed in ["OPENAI_BASE_URL=http://127.0.0.1:1\nOPENAI_API_KEY=k\n", "OTHER_BASE_URL=x\n"] {
            assert!(read(allowed).unwrap().without(&env).is_ok(), "{allowed}");
        }
    }

    #[test]
    fn the_value_of_another_variable_is_not_put_in() {
        for (text, line) in [
            ("A=1\nB=http://host/${HOME}\n", 2),
            ("A=\"$HOME\"\n", 1),
            ("A=\"x\n$HOME\"\n", 2),
            ("A='x'$HOME\n", 1),
        ] {
            assert!(
                read(text).unwrap_err().contains(&format!(".env:{line}: variables are not expanded")),
                "{text}"
            );
        }
        let text = "# $HOME\nA='$HOME'\nB=1 # don't $HOME\nC=5$\nD=$5\n";
        let dot_env = read(text).unwrap();
        assert_eq!(dot_env.value(&|_| None, "A").as_deref(), Some("$HOME"));
        assert_eq!(dot_env.value(&|_| None, "B").as_deref(), Some("1"));
    }

    #[test]
    fn a_faulty_line_is_named_by_its_number_and_not_shown() {
        for (text, line) in [
            ("A=1\n\n# c\nsk-live-4711\nB=2\n", 4),
            ("A=sk-live-4711 4711\n", 1),
            ("A=1\nB=\"sk-live-4711\nC=2\n", 2),
            ("4711=sk-live-4711", 1),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(&format!(".env:{line}: ")), "{error}");
            assert!(!error.contains("4711"), "{error}");
        }
        assert!(!format!("{:?}", read("A=sk-live-4711\n").unwrap()).contains("4711"));
        assert!(read(&"#".repeat(1 + (1 << 20))).unwrap_err().contains("larger than 1 MiB"));
    }

    #[test]
    fn a_folder_without_such_a_file_has_no_variables() {
        let folder = tempfile::tempdir().unwrap();
        assert!(DotEnv::read(folder.path()).unwrap().file().is_none());
        std::fs::create_dir(folder.path().join(FILE_NAME)).unwrap();
        assert!(DotEnv::read(folder.path()).unwrap().file().is_none());
        assert!(DotEnv::read(&folder.path().join("none")).unwrap().file().is_none());
    }
}
