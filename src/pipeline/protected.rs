//! The files that items may not attach, because the program itself uses them.
//!
//! They may lie in the pipeline's directory, from which items attach files. A file is recognised by its device and
//! inode, so another name or a link does not hide it. They are looked up each time: a key file is replaced, and a
//! journal is removed and made again, while a run is at work.

use std::fs::Metadata;
use std::path::{Path, PathBuf};

use crate::files::FileId;

/// What the program uses a file for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileUse {
    /// It holds a key or the value of a header.
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
    /// Returns what a message calls such a file.
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

    /// Returns whether a path that the pipeline itself writes out attaches it: the author chooses it then, not an item.
    fn may_be_written_out(self) -> bool {
        match self {
            Self::Secret | Self::Store => false,
            Self::Configuration | Self::Pipeline | Self::Input | Self::Output => true,
        }
    }
}

/// The files that items may not attach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProtectedFiles(Vec<ProtectedFile>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct ProtectedFile {
    used_as: FileUse,
    path: PathBuf,
}

impl ProtectedFiles {
    /// Adds the file that is at `path`, now or later.
    pub fn add(&mut self, used_as: FileUse, path: &Path) {
        // A later change of the working directory changes nothing.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        self.0.push(ProtectedFile { used_as, path });
    }

    /// Returns what the file that `metadata` describes is used for, where that forbids to attach it. `is_written_out`
    /// says that the pipeline itself writes its path, without an expression.
    pub(crate) fn refuse(&self, metadata: &Metadata, is_written_out: bool) -> Option<FileUse> {
        let id = FileId::of(metadata);
        let is_it = |file: &&ProtectedFile| FileId::at(&file.path).is_ok_and(|at| at == id);
        let mut uses = self.0.iter().filter(is_it).map(|file| file.used_as);
        uses.find(|used_as| !(is_written_out && used_as.may_be_written_out()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_protected_file_is_recognised_by_every_name_and_after_it_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let refused =
            |files: &ProtectedFiles, name: &str| files.refuse(&fs::metadata(at(name)).unwrap(), false);
        fs::write(at("key.txt"), "old").unwrap();
        fs::hard_link(at("key.txt"), at("photo.png")).unwrap();
        let mut files = ProtectedFiles::default();
        files.add(FileUse::Secret, &at("key.txt"));
        files.add(FileUse::Output, &at("out.csv"));
        assert_eq!(refused(&files, "key.txt"), Some(FileUse::Secret));
        assert_eq!(refused(&files, "photo.png"), Some(FileUse::Secret));
        fs::write(at("new"), "new").unwrap();
        assert_eq!(refused(&files, "new"), None);
        fs::rename(at("new"), at("key.txt")).unwrap();
        assert_eq!(refused(&files, "key.txt"), Some(FileUse::Secret), "the key was replaced");
        fs::write(at("out.csv"), "made later").unwrap();
        assert_eq!(refused(&files, "out.csv"), Some(FileUse::Output));
    }

    #[test]
    fn a_path_that_the_pipeline_writes_out_attaches_everything_but_secrets_and_the_store() {
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
            assert_eq!(files.refuse(&metadata, false), Some(used_as));
            assert_eq!(files.refuse(&metadata, true).is_none(), is_allowed, "{used_as:?}");
        }
    }
}
