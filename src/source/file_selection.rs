//! The files of a folder, or those that a pattern such as `scans/*.pdf` names.
//!
//! Hidden files and folders are left out, unless the pattern names them with their dot. Folders that are links are not
//! entered, so that a loop of links ends. A file that is a link must lead to a file of the selection, and a file that the
//! program itself uses is none. A walk finds that out without opening a file: to close a file of a database would release
//! the locks that this process has on it.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::vec;

use glob::{MatchOptions, Pattern};

use super::Error;
use crate::files::protected::{FileUse, ProtectedFiles};

/// Most files and folders in one folder: their names are sorted in memory.
const MAX_ENTRIES: usize = 1_000_000;

/// Extensions of SQLite databases.
const DATABASE_EXTENSIONS: [&str; 4] = ["db", "db3", "sqlite", "sqlite3"];

/// What follows the name of a database in the names of its journals.
const JOURNAL_ENDS: [&str; 3] = ["-wal", "-shm", "-journal"];

const OTHER_PLACE: &str = "is a link to a file that is not in the folder or does not match the pattern; links to other places are not followed";

const NOT_REGULAR: &str = "is a pipe, a socket or a device, not a regular file";

const DATABASE: &str = "is an SQLite database or its journal by its name; such a file is not opened";

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
    /// Files that do not belong to it, because the program uses them.
    used: ProtectedFiles,
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
            Ok(Some(Self { name: name.clone(), folder, pattern, used: ProtectedFiles::default() }))
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

    /// Leaves out files, such as the output of a run. They are recognized under other names, too, and may not exist yet.
    #[must_use]
    pub fn without<'p>(mut self, files: impl IntoIterator<Item = &'p Path>) -> Self {
        files.into_iter().for_each(|file| self.used.add(FileUse::Output, file));
        self
    }

    /// Leaves out the files that the program uses.
    pub(crate) fn leave_out(&mut self, used: &ProtectedFiles) {
        self.used.extend(used);
    }

    /// Returns whether the program uses a file.
    pub(super) fn is_used(&self, path: &Path, metadata: &Metadata) -> bool {
        self.used.has_file(path, metadata)
    }

    /// Returns how many files are left out that would otherwise be items, without hidden files and those of the store.
    pub(crate) fn skipped_files(&self) -> usize {
        let Ok(folder) = self.folder.canonicalize() else { return 0 };
        let in_folder = |(used_as, path): (FileUse, &Path)| {
            let path = path.parent()?.canonicalize().ok()?.join(path.file_name()?);
            let inside = path.strip_prefix(&folder).ok()?;
            let is_skipped = used_as != FileUse::Store && is_visible(inside) && self.names(inside);
            (is_skipped && path.is_file()).then(|| inside.to_owned())
        };
        let skipped: HashSet<PathBuf> = self.used.iter().filter_map(in_folder).collect();
        skipped.len()
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
        self.names(inside) && !self.used.has_path(&self.folder.join(inside))
    }

    /// Returns whether the folder or the pattern names a path in the folder, without links.
    fn names(&self, inside: &Path) -> bool {
        let is_inside = inside.components().all(|part| matches!(part, Component::Normal(_)));
        let is_named = match &self.pattern {
            Some(pattern) => pattern.matches_path_with(inside, MATCH),
            None => is_visible(inside),
        };
        is_inside && is_named
    }

    /// Returns the path in the folder, without links, of the file that is at `inside`; or why it is not read.
    fn target(&self, inside: &Path, is_link: bool, metadata: &Metadata) -> Result<PathBuf, &'static str> {
        let target = if is_link {
            let real = self.folder.canonicalize().ok().zip(self.folder.join(inside).canonicalize().ok());
            let target = real.and_then(|(folder, real)| Some(real.strip_prefix(folder).ok()?.to_owned()));
            target.filter(|target| self.contains(target)).ok_or(OTHER_PLACE)?
        } else {
            inside.to_owned()
        };
        if !metadata.is_file() {
            return Err(NOT_REGULAR);
        }
        if is_of_database(&self.folder.join(&target)) { Err(DATABASE) } else { Ok(target) }
    }

    /// Returns the files in the folder, in the order of their paths. An error is the last value.
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

/// Returns whether no component of a path in the folder is hidden.
fn is_visible(inside: &Path) -> bool {
    inside.components().all(|component| match component {
        Component::Normal(name) => !is_hidden(name.as_encoded_bytes()),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => false,
    })
}

/// Returns whether a file is an SQLite database or one of its journals, by its name and the names beside it.
fn is_of_database(path: &Path) -> bool {
    let has_database_name = |path: &Path| {
        let extension = path.extension().unwrap_or_default();
        DATABASE_EXTENSIONS.iter().any(|known| extension.eq_ignore_ascii_case(known))
    };
    let beside = |end: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(end);
        PathBuf::from(name).is_file()
    };
    let is_journal = |end: &str| {
        let name = path.file_name().unwrap_or_default().as_encoded_bytes();
        let Some(length) = name.strip_suffix(end.as_bytes()).map(<[u8]>::len).filter(|length| *length > 0)
        else {
            return false;
        };
        // The database of a journal has the same name without the end.
        let Some(database) = str::from_utf8(&name[..length]).ok().map(|name| path.with_file_name(name))
        else {
            return true;
        };
        has_database_name(&database) || database.is_file()
    };
    // A database in use has these files beside it.
    has_database_name(path) || beside("-wal") || beside("-shm") || JOURNAL_ENDS.into_iter().any(is_journal)
}

/// The entries of one folder that were not visited.
struct OpenFolder {
    /// Its path in the folder of the selection.
    inside: PathBuf,
    names: vec::IntoIter<OsString>,
}

/// A file of a selection.
#[derive(Debug)]
pub(super) struct FoundFile {
    /// Its path in the folder.
    pub(super) inside: PathBuf,
    /// The path in the folder that it leads to, without links; or why it is not read.
    pub(super) target: Result<PathBuf, &'static str>,
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
    fn visit(&mut self, inside: PathBuf) -> Result<Option<FoundFile>, FolderError> {
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
        if !self.selection.contains(&inside) {
            return Ok(None);
        }
        let is_link = entry.is_symlink();
        let metadata = match if is_link { fs::metadata(&path) } else { Ok(entry) } {
            Ok(metadata) if metadata.is_dir() || self.selection.is_used(&path, &metadata) => return Ok(None),
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            // A link to itself, or to a place that this user cannot see.
            Err(_) => return Ok(Some(FoundFile { inside, target: Err(OTHER_PLACE) })),
        };
        let target = self.selection.target(&inside, is_link, &metadata);
        Ok(Some(FoundFile { inside, target }))
    }

    fn next_file(&mut self) -> Result<Option<FoundFile>, FolderError> {
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
    type Item = Result<FoundFile, FolderError>;

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
        selection.walk().map(|file| file.unwrap().inside.display().to_string()).collect()
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

    /// Returns why each file that is not read is not.
    #[cfg(unix)]
    fn refused(path: &Path) -> Vec<(String, &'static str)> {
        let selection = FileSelection::of(path).unwrap().unwrap();
        let refused = |file: FoundFile| Some((file.inside.display().to_string(), file.target.err()?));
        selection.walk().filter_map(|file| refused(file.unwrap())).collect()
    }

    #[test]
    #[cfg(unix)]
    fn a_link_to_another_place_and_what_is_no_regular_file_are_refused() {
        use std::os::unix::fs::symlink;

        let outer = folder(&["secret.txt", "in/a.txt", "in/.hidden.txt", "in/sub/b.md"]);
        let at = |name: &str| outer.path().join("in").join(name);
        symlink(outer.path().join("secret.txt"), at("out.txt")).unwrap();
        symlink("../secret.txt", at("relative.txt")).unwrap();
        symlink("/dev/zero", at("device.txt")).unwrap();
        symlink("/proc/self/environ", at("environ.txt")).unwrap();
        symlink(at(".hidden.txt"), at("hidden.txt")).unwrap();
        symlink(at("sub/b.md"), at("b.txt")).unwrap();
        symlink(at("self.txt"), at("self.txt")).unwrap();
        symlink(outer.path(), at("up")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(at("pipe.txt")).status().unwrap().success());
        let _socket = std::os::unix::net::UnixListener::bind(at("socket.txt")).unwrap();
        let elsewhere = ["device.txt", "environ.txt", "hidden.txt", "out.txt", "relative.txt", "self.txt"];
        let mut expected: Vec<_> = elsewhere.into_iter().map(|name| (name.to_owned(), OTHER_PLACE)).collect();
        expected.extend(["pipe.txt", "socket.txt"].map(|name| (name.to_owned(), NOT_REGULAR)));
        expected.sort();
        assert_eq!(refused(&at("")), expected);
        // The target of `b.txt` is in the folder and does not match the pattern.
        expected.push(("b.txt".to_owned(), OTHER_PLACE));
        expected.sort();
        assert_eq!(refused(&at("*.txt")), expected);
    }

    #[test]
    #[cfg(unix)]
    fn databases_and_their_journals_are_refused_by_their_names() {
        let folder = folder(&[
            "a.db",
            "b.SQLite3",
            "c.db-journal",
            "diary",
            "diary-journal",
            "e.data",
            "e.data-wal",
            "f-wal",
            "travel-journal",
            "z.txt",
        ]);
        let names = ["a.db", "b.SQLite3", "c.db-journal", "diary-journal", "e.data", "e.data-wal"];
        assert_eq!(refused(folder.path()), names.map(|name| (name.to_owned(), DATABASE)));
        assert_eq!(found(folder.path()).len(), 10);
    }

    #[test]
    #[cfg(unix)]
    fn files_that_the_program_uses_are_left_out_under_each_of_their_names() {
        let folder = folder(&["a.txt", "key.txt", "sub/p.toml", "runs.data", "runs.data-run3.lock", ".env"]);
        let at = |name: &str| folder.path().join(name);
        fs::hard_link(at("key.txt"), at("copy.txt")).unwrap();
        fs::hard_link(at("runs.data"), at("notes.txt")).unwrap();
        std::os::unix::fs::symlink(at("key.txt"), at("link.txt")).unwrap();
        let mut used = ProtectedFiles::default();
        used.add(FileUse::Secret, &at("key.txt"));
        used.add(FileUse::Secret, &at(".env"));
        used.add(FileUse::Pipeline, &at("sub/p.toml"));
        used.add(FileUse::Configuration, &at("sub/../sub/p.toml"));
        used.add(FileUse::Output, &at("not-yet.txt"));
        used.add(FileUse::Store, &at("runs.data"));
        let mut selection = FileSelection::of(folder.path()).unwrap().unwrap();
        selection.leave_out(&used);
        let left: Vec<_> = selection.walk().map(|file| file.unwrap().inside).collect();
        assert_eq!(left, [Path::new("a.txt")]);
        assert_eq!(selection.skipped_files(), 2, "the key and the pipeline");
        fs::write(at("not-yet.txt"), "later").unwrap();
        assert_eq!(selection.walk().count(), 1);
    }
}
