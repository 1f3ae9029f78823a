//! Files that no item may be or attach, because the program itself uses them.
//!
//! They may be in the pipeline's directory, from which items attach files, or in a folder whose files are the items. A file
//! is identified by its device and inode, so it is recognized under other names and through links. The identities are read
//! for each file, because a key file may be replaced, and a journal may be deleted and created again, during a run.

use std::fs::Metadata;
use std::path::{Path, PathBuf};

use super::FileId;

/// What the program uses a file for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileUse {
    /// It contains an API key or the value of a header.
    Secret,
    /// It is a file of the store: the database, its journal, or a lock.
    Store,
    /// It is the configuration.
    Configuration,
    /// It is the pipeline, or a schema that the pipeline names.
    Pipeline,
    /// The run reads its items from it.
    Input,
    /// The run writes to it.
    Output,
}

impl FileUse {
    /// Returns the term for such a file in messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Secret => "a file of a key or a header",
            Self::Store => "a file of the store",
            Self::Configuration => "the configuration",
            Self::Pipeline => "a file of the pipeline",
            Self::Input => "the input of the run",
            Self::Output => "an output of the run",
        }
    }

    /// Returns whether the pipeline may attach it by a literal path, which the author chose and not an item.
    fn allows_literal_path(self) -> bool {
        match self {
            Self::Secret | Self::Store => false,
            Self::Configuration | Self::Pipeline | Self::Input | Self::Output => true,
        }
    }
}

/// Files that no item may be or attach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProtectedFiles(Vec<ProtectedFile>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct ProtectedFile {
    used_as: FileUse,
    path: PathBuf,
}

impl ProtectedFiles {
    /// Adds the file at `path`, which may not exist yet.
    pub fn add(&mut self, used_as: FileUse, path: &Path) {
        // The path stays valid if the working directory changes.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        self.0.push(ProtectedFile { used_as, path });
    }

    /// Returns whether there are none.
    #[cfg(feature = "server")]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the use that forbids attaching the file of `metadata`; `None` if it may be attached. `is_literal`
    /// is whether its path is a literal in the pipeline, without an expression.
    pub(crate) fn forbidden_use(&self, metadata: &Metadata, is_literal: bool) -> Option<FileUse> {
        let id = FileId::of(metadata);
        let is_same = |file: &&ProtectedFile| FileId::at(&file.path).is_ok_and(|at| at == id);
        let mut uses = self.0.iter().filter(is_same).map(|file| file.used_as);
        uses.find(|used_as| !(is_literal && used_as.allows_literal_path()))
    }

    /// Adds the files of `others`.
    pub(crate) fn extend(&mut self, others: &Self) {
        self.0.extend(others.0.iter().filter(|file| !self.0.contains(file)).cloned().collect::<Vec<_>>());
    }

    /// Returns each file with its use.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (FileUse, &Path)> {
        self.0.iter().map(|file| (file.used_as, file.path.as_path()))
    }

    /// Returns whether the absolute path `path` is the path of one of them, which may not exist yet.
    pub(crate) fn has_path(&self, path: &Path) -> bool {
        self.0.iter().any(|file| file.path == path)
    }

    /// Returns whether the program uses the file of `metadata` at `path`, by its path or its identity. Nothing is opened.
    pub(crate) fn has_file(&self, path: &Path, metadata: &Metadata) -> bool {
        let is_lock = |file: &ProtectedFile| file.used_as == FileUse::Store && is_lock_of(&file.path, path);
        self.has_path(path) || self.forbidden_use(metadata, false).is_some() || self.0.iter().any(is_lock)
    }
}

/// Returns whether the file at `path` is the lock of a run of the database at `database`, by its name.
fn is_lock_of(database: &Path, path: &Path) -> bool {
    let (Some(database_name), Some(name)) = (database.file_name(), path.file_name()) else { return false };
    let rest = name.as_encoded_bytes().strip_prefix(database_name.as_encoded_bytes());
    let is_lock = rest.is_some_and(|rest| rest.starts_with(b"-run") && rest.ends_with(b".lock"));
    let folder_of = |path: &Path| path.parent().and_then(|folder| FileId::at(folder).ok());
    is_lock && folder_of(database).is_some() && folder_of(database) == folder_of(path)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_protected_file_is_recognized_by_every_name_and_after_it_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let forbidden =
            |files: &ProtectedFiles, name: &str| files.forbidden_use(&fs::metadata(at(name)).unwrap(), false);
        fs::write(at("key.txt"), "old").unwrap();
        fs::hard_link(at("key.txt"), at("photo.png")).unwrap();
        let mut files = ProtectedFiles::default();
        files.add(FileUse::Secret, &at("key.txt"));
        files.add(FileUse::Output, &at("out.csv"));
        assert_eq!(forbidden(&files, "key.txt"), Some(FileUse::Secret));
        assert_eq!(forbidden(&files, "photo.png"), Some(FileUse::Secret));
        fs::write(at("new"), "new").unwrap();
        assert_eq!(forbidden(&files, "new"), None);
        fs::rename(at("new"), at("key.txt")).unwrap();
        assert_eq!(forbidden(&files, "key.txt"), Some(FileUse::Secret), "the key was replaced");
        fs::write(at("out.csv"), "created later").unwrap();
        assert_eq!(forbidden(&files, "out.csv"), Some(FileUse::Output));
    }

    #[test]
    fn a_file_is_recognized_by_its_path_and_a_lock_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut files = ProtectedFiles::default();
        files.add(FileUse::Store, &at("runs.data"));
        files.add(FileUse::Output, &at("out.csv"));
        for (name, is_used) in [
            ("runs.data", true),
            ("runs.data-run17.lock", true),
            ("runs.data-notes.txt", false),
            ("out.csv", true),
            ("out.csv-run1.lock", false),
        ] {
            fs::write(at(name), "").unwrap();
            let metadata = fs::metadata(at(name)).unwrap();
            assert_eq!(files.has_file(&at(name), &metadata), is_used, "{name}");
        }
        fs::hard_link(at("runs.data"), at("copy.txt")).unwrap();
        let metadata = fs::metadata(at("copy.txt")).unwrap();
        assert!(files.has_file(&at("copy.txt"), &metadata) && !files.has_path(&at("copy.txt")));
        assert!(files.has_path(&at("out.csv")));
        let mut more = ProtectedFiles::default();
        more.extend(&files);
        more.extend(&files);
        assert_eq!(more, files);
    }

    #[test]
    fn a_literal_path_attaches_all_files_except_secrets_and_the_store() {
        let folder = tempfile::tempdir().unwrap();
        let uses = [
            (FileUse::Secret, false),
            (FileUse::Store, false),
            (FileUse::Configuration, true),
            (FileUse::Pipeline, true),
            (FileUse::Input, true),
            (FileUse::Output, true),
        ];
        for (number, (used_as, is_allowed)) in uses.into_iter().enumerate() {
            let path = folder.path().join(number.to_string());
            fs::write(&path, "").unwrap();
            let mut files = ProtectedFiles::default();
            files.add(used_as, &path);
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!(files.forbidden_use(&metadata, false), Some(used_as));
            assert_eq!(files.forbidden_use(&metadata, true).is_none(), is_allowed, "{used_as:?}");
        }
    }
}
