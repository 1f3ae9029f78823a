//! The files of a folder, or those that a pattern such as `scans/*.pdf` names.
//!
//! Hidden files and folders are left out, unless the pattern names them with their dot. Folders that are links are not
//! entered, so that a loop of links ends; files that are links count as files.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::vec;

use glob::{MatchOptions, Pattern};

use super::Error;

/// Most files and folders in one folder: their names are sorted in memory.
const MAX_ENTRIES: usize = 1_000_000;

/// How a pattern matches a path.
const MATCH: MatchOptions =
    MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

/// Files that are the items of a run, one item per file.
///
/// ```
/// use pointsman::io::FileSelection;
///
/// assert!(FileSelection::of("scans/*.pdf").unwrap().is_some());
/// assert!(FileSelection::of("items.csv").unwrap().is_none());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSelection {
    name: String,
    /// The folder that has all of the files, as an absolute path.
    folder: PathBuf,
    /// The pattern of their paths in the folder; all of them without one.
    pattern: Option<Pattern>,
    /// Files that do not belong to it.
    without: Vec<PathBuf>,
}

impl FileSelection {
    /// Returns the files that `path` names: those of a folder, or of a pattern with `*`, `?`, `[...]` or `**`. `None` if it
    /// is the path of one file.
    ///
    /// # Errors
    /// If the pattern is not valid.
    pub fn of(path: impl AsRef<Path>) -> Result<Option<Self>, Error> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let found = |folder: &Path, pattern| {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            let folder =
                std::path::absolute(folder).map_err(|source| Error::Open { name: name.clone(), source })?;
            Ok(Some(Self { name: name.clone(), folder, pattern, without: Vec::new() }))
        };
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => return found(path, None),
            Ok(_) => return Ok(None),
            Err(_) => {}
        }
        let is_pattern =
            |component: &Component<'_>| component.as_os_str().to_string_lossy().contains(['*', '?', '[']);
        let mut components = path.components().peekable();
        let mut folder = PathBuf::new();
        while let Some(literal) = components.next_if(|component| !is_pattern(component)) {
            folder.push(literal);
        }
        if components.peek().is_none() {
            return Ok(None);
        }
        let rest: Vec<_> =
            components.map(|component| component.as_os_str().to_string_lossy().into_owned()).collect();
        let pattern = Pattern::new(&rest.join("/")).map_err(|error| Error::NoFiles {
            name: name.clone(),
            reason: format!("the pattern is not valid at character {}: {}", error.pos + 1, error.msg),
        })?;
        found(&folder, Some(pattern))
    }

    /// Leaves out files, such as the output of a run.
    #[must_use]
    pub fn without<'p>(mut self, files: impl IntoIterator<Item = &'p Path>) -> Self {
        self.without.extend(files.into_iter().filter_map(|file| std::path::absolute(file).ok()));
        self
    }

    /// Returns the folder or the pattern, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the folder that has all of the files.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Returns whether a path in the folder, without links, is one of the files.
    pub(crate) fn contains(&self, inside: &Path) -> bool {
        let is_visible = |component: Component<'_>| match component {
            Component::Normal(name) => !is_hidden(name.as_encoded_bytes()),
            Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => false,
        };
        let is_inside = inside.components().all(|part| matches!(part, Component::Normal(_)));
        let is_named = match &self.pattern {
            Some(pattern) => pattern.matches_path_with(inside, MATCH),
            None => inside.components().all(is_visible),
        };
        is_inside && is_named && !self.without.contains(&self.folder.join(inside))
    }

    /// Returns the paths of the files in the folder, sorted. An error is the last value.
    pub(super) fn walk(&self) -> Walk<'_> {
        Walk { selection: self, open: Vec::new(), begun: false }
    }

    /// Returns how many folders deep the files are at most; `None` if there is no limit.
    fn max_depth(&self) -> Option<usize> {
        let pattern = self.pattern.as_ref()?.as_str();
        (!pattern.contains("**")).then(|| pattern.matches('/').count())
    }

    /// Returns whether folders with a hidden name can have files of the pattern.
    fn enters_hidden(&self) -> bool {
        let pattern = self.pattern.as_ref().map_or("", Pattern::as_str);
        pattern.starts_with('.') || pattern.contains("/.")
    }
}

fn is_hidden(name: &[u8]) -> bool {
    name.first() == Some(&b'.')
}

/// The entries of one folder that were not visited.
struct OpenFolder {
    /// Its path in the folder of the selection.
    inside: PathBuf,
    names: vec::IntoIter<OsString>,
}

/// Finds the files of a selection, in the order of their paths.
pub(super) struct Walk<'s> {
    selection: &'s FileSelection,
    open: Vec<OpenFolder>,
    begun: bool,
}

/// Why a folder cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the folder {} cannot be read: {error}", .folder.display())]
pub(super) struct FolderError {
    folder: PathBuf,
    error: io::Error,
}

impl Walk<'_> {
    fn enter(&mut self, inside: PathBuf) -> Result<(), FolderError> {
        let folder = self.selection.folder.join(&inside);
        let failed = |error| FolderError { folder: folder.clone(), error };
        let mut names = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed)? {
            names.push(entry.map_err(failed)?.file_name());
            if names.len() > MAX_ENTRIES {
                let reason =
                    format!("it has more than {MAX_ENTRIES} files; divide them among several folders");
                return Err(failed(io::Error::other(reason)));
            }
        }
        names.sort_unstable();
        self.open.push(OpenFolder { inside, names: names.into_iter() });
        Ok(())
    }

    /// Enters a folder, or returns a file that belongs to the selection.
    fn visit(&mut self, inside: PathBuf) -> Result<Option<PathBuf>, FolderError> {
        let path = self.selection.folder.join(&inside);
        // What was deleted meanwhile, and a link to nothing, is no file.
        let Ok(entry) = fs::symlink_metadata(&path) else { return Ok(None) };
        if entry.is_dir() {
            let is_deep = self.selection.max_depth().is_some_and(|depth| self.open.len() > depth);
            let name = inside.file_name().unwrap_or_default().as_encoded_bytes();
            if !is_deep && (!is_hidden(name) || self.selection.enters_hidden()) {
                self.enter(inside)?;
            }
            return Ok(None);
        }
        let is_file = entry.is_file() || fs::metadata(&path).is_ok_and(|target| target.is_file());
        Ok((is_file && self.selection.contains(&inside)).then_some(inside))
    }

    fn next_file(&mut self) -> Result<Option<PathBuf>, FolderError> {
        if !self.begun {
            self.begun = true;
            self.enter(PathBuf::new())?;
        }
        while let Some(folder) = self.open.last_mut() {
            let Some(name) = folder.names.next() else {
                self.open.pop();
                continue;
            };
            let inside = folder.inside.join(name);
            if let Some(file) = self.visit(inside)? {
                return Ok(Some(file));
            }
        }
        Ok(None)
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<PathBuf, FolderError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next_file();
        if next.is_err() {
            // The next call ends.
            self.open.clear();
        }
        next.transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "text").unwrap();
        }
        folder
    }

    fn found(path: &Path) -> Vec<String> {
        let selection = FileSelection::of(path).unwrap().unwrap();
        selection.walk().map(|file| file.unwrap().display().to_string()).collect()
    }

    const FILES: [&str; 7] =
        ["b.pdf", "a.txt", "sub/c.pdf", "sub/deep/d.pdf", ".hidden.pdf", ".git/e.pdf", "sub/.f.pdf"];

    #[test]
    fn a_folder_has_all_its_visible_files_in_order() {
        let folder = folder(&FILES);
        assert_eq!(found(folder.path()), ["a.txt", "b.pdf", "sub/c.pdf", "sub/deep/d.pdf"]);
    }

    #[test]
    fn a_pattern_names_files_at_its_depth() {
        let folder = folder(&FILES);
        for (pattern, expected) in [
            ("*.pdf", &["b.pdf"][..]),
            ("*/*.pdf", &["sub/c.pdf"]),
            ("**/*.pdf", &["b.pdf", "sub/c.pdf", "sub/deep/d.pdf"]),
            ("[ab].*", &["a.txt", "b.pdf"]),
            (".*.pdf", &[".hidden.pdf"]),
            (".git/*", &[]),
        ] {
            let path = folder.path().join(pattern);
            if pattern == ".git/*" {
                assert_eq!(found(&path), ["e.pdf"], "the folder is named literally");
            } else {
                assert_eq!(found(&path), expected, "{pattern}");
            }
        }
        assert_eq!(found(&folder.path().join("sub/*.pdf")), ["c.pdf"]);
    }

    #[test]
    fn a_path_without_a_pattern_is_no_selection_and_a_wrong_pattern_is_an_error() {
        let folder = folder(&["x[1].csv"]);
        assert_eq!(FileSelection::of(folder.path().join("none.csv")).unwrap(), None);
        assert_eq!(FileSelection::of(folder.path().join("x[1].csv")).unwrap(), None);
        let error = FileSelection::of("scans/[a").unwrap_err();
        assert!(error.to_string().contains("the pattern is not valid"), "{error}");
    }

    #[test]
    fn files_that_are_left_out_do_not_belong_to_it() {
        let folder = folder(&["a.txt", "out.jsonl"]);
        let out = folder.path().join("out.jsonl");
        let selection = FileSelection::of(folder.path()).unwrap().unwrap().without([out.as_path()]);
        assert!(selection.contains(Path::new("a.txt")) && !selection.contains(Path::new("out.jsonl")));
        assert!(!selection.contains(Path::new("../a.txt")) && !selection.contains(Path::new(".a")));
    }

    #[test]
    #[cfg(unix)]
    fn a_loop_of_links_ends_and_a_link_to_a_file_is_a_file() {
        let folder = folder(&["sub/a.txt"]);
        std::os::unix::fs::symlink(folder.path(), folder.path().join("sub/loop")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("sub/a.txt"), folder.path().join("link.txt")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("gone"), folder.path().join("broken.txt")).unwrap();
        assert_eq!(found(folder.path()), ["link.txt", "sub/a.txt"]);
        assert_eq!(found(&folder.path().join("**/*.txt")), ["link.txt", "sub/a.txt"]);
    }
}
