//! Globs of pipeline files, as `[serve] pipelines` contains them: `pipelines/*.toml`.
//!
//! A `*` in the name of the file stands for any characters. There is no other wildcard, so a glob names the files of one
//! folder.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The wildcards of other programs.
const OTHER_WILDCARDS: [char; 5] = ['?', '[', ']', '{', '}'];

/// The files of one folder whose names match a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FileGlob {
    folder: PathBuf,
    /// The pattern of the name; any `*` stands for any characters.
    name: String,
}

/// A text that is not a glob.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct GlobError {
    message: String,
    /// What to write instead.
    pub(super) advice: String,
}

impl FromStr for FileGlob {
    type Err = GlobError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |message: &str, advice: String| Err(GlobError { message: message.to_owned(), advice });
        let (folder, name) = match text.rfind('/') {
            Some(slash) => text.split_at(slash + 1),
            None => ("", text),
        };
        if text.trim().is_empty() {
            return error("this glob is empty", "write one such as \"pipelines/*.toml\"".to_owned());
        }
        if text.contains(OTHER_WILDCARDS) {
            let advice = "the only wildcard is `*` in the name of the file, as in \"pipelines/*.toml\"";
            return error("this glob has a wildcard that is not supported", advice.to_owned());
        }
        if text.contains("**") || folder.contains('*') {
            let advice = "write one glob for each folder, such as \"pipelines/*.toml\"";
            return error("a `*` stands only in the name of the file, and once in a row", advice.to_owned());
        }
        if matches!(name, "" | "." | "..") {
            let folder = if name.is_empty() { folder.to_owned() } else { format!("{text}/") };
            return error("this names a folder", format!("name its files: write \"{folder}*.toml\""));
        }
        Ok(Self { folder: folder.into(), name: name.to_owned() })
    }
}

impl FileGlob {
    /// Returns the folder of the files. A relative one is relative to `base`.
    pub(super) fn folder(&self, base: &Path) -> PathBuf {
        let folder = base.join(&self.folder);
        if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder }
    }

    /// Returns the files that match, sorted by name. Without a `*` this is the named file, even if it does not exist.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub(super) fn files(&self, base: &Path) -> io::Result<Vec<PathBuf>> {
        if !self.name.contains('*') {
            return Ok(vec![base.join(&self.folder).join(&self.name)]);
        }
        let mut files = Vec::new();
        for entry in std::fs::read_dir(self.folder(base))? {
            let path = base.join(&self.folder).join(entry?.file_name());
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            if self.matches(&name) && path.is_file() {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    /// Returns whether a name matches. A hidden file matches only if the pattern begins with a dot, as in a shell.
    fn matches(&self, name: &str) -> bool {
        if name.starts_with('.') && !self.name.starts_with('.') {
            return false;
        }
        let Some((first, rest)) = self.name.split_once('*') else { return name == self.name };
        let Some(mut remaining) = name.strip_prefix(first) else { return false };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        for part in middle.split('*') {
            let Some(at) = remaining.find(part) else { return false };
            remaining = &remaining[at + part.len()..];
        }
        remaining.ends_with(last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_star_stands_for_any_characters_of_a_name() {
        for (pattern, name, expected) in [
            ("*.toml", "a.toml", true),
            ("*.toml", ".toml", false),
            ("*.toml", ".a.toml", false),
            (".*.toml", ".a.toml", true),
            ("*.toml", "a.toml.bak", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "acb", false),
            ("a*ab", "ab", false),
            ("*", "a", true),
            ("a.toml", "a.toml", true),
            ("a.toml", "b.toml", false),
            ("é*", "été", true),
        ] {
            let glob: FileGlob = pattern.parse().unwrap();
            assert_eq!(glob.matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn anything_but_a_star_in_the_name_is_refused_with_advice() {
        for (wrong, advice) in [
            ("", "write one such as"),
            (" ", "write one such as"),
            ("*/a.toml", "one glob for each folder"),
            ("a/**/b.toml", "one glob for each folder"),
            ("**.toml", "one glob for each folder"),
            ("a/?.toml", "the only wildcard is `*`"),
            ("[ab].toml", "the only wildcard is `*`"),
            ("{a,b}.toml", "the only wildcard is `*`"),
            ("pipelines/", "write \"pipelines/*.toml\""),
            ("a/..", "write \"a/../*.toml\""),
            (".", "write \"./*.toml\""),
        ] {
            let error = wrong.parse::<FileGlob>().unwrap_err();
            assert!(error.advice.contains(advice), "{wrong}: {error}; {}", error.advice);
        }
    }

    #[test]
    fn the_files_of_a_folder_are_sorted_and_relative_to_the_base() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("pipelines");
        std::fs::create_dir_all(folder.join("c.toml")).unwrap();
        for name in ["b.toml", "a.toml", ".hidden.toml", "a.md"] {
            std::fs::write(folder.join(name), "").unwrap();
        }
        let files = |glob: &str| glob.parse::<FileGlob>().unwrap().files(base.path());
        assert_eq!(files("pipelines/*.toml").unwrap(), [folder.join("a.toml"), folder.join("b.toml")]);
        assert_eq!(files("pipelines/x.toml").unwrap(), [folder.join("x.toml")]);
        assert_eq!(files("missing/*.toml").unwrap_err().kind(), io::ErrorKind::NotFound);
        let absolute = format!("{}/a*", folder.display());
        assert_eq!(files(&absolute).unwrap(), [folder.join("a.md"), folder.join("a.toml")]);
    }

    proptest! {
        #[test]
        fn a_name_matches_the_pattern_that_is_made_of_its_parts(
            parts in prop::collection::vec("[a-c]{0,3}", 1..5),
        ) {
            let name = parts.concat();
            let pattern = parts.join("*").replace("**", "*").replace("**", "*");
            prop_assume!(!pattern.is_empty());
            let glob: FileGlob = pattern.parse().unwrap();
            prop_assert!(glob.matches(&name), "{} {}", pattern, name);
        }
    }
}
