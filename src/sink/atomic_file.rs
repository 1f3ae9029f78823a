//! Replaces a file atomically: the new content is written to a file beside it, which is renamed over it.
//!
//! A resumed run writes all of its lines again. If the run is killed meanwhile, the original file is still
//! there. The rename happens once the new file has at least as many lines as the original, or at the end of the
//! run.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::{Builder, TempPath};

use crate::files;

/// Suffix of the names of these files.
const SUFFIX: &str = ".new";

/// Random characters in the file name. They are enough that no other user can guess the name and create a link
/// with it.
const RANDOM_CHARACTERS: usize = 16;

/// A file beside the one that it will replace. If it is dropped before [`commit`](Self::commit), it is removed.
pub(super) struct ReplacementFile {
    path: TempPath,
    target: PathBuf,
    /// Number of lines from which on it replaces the original.
    replace_at_lines: u64,
    /// With fewer lines it replaces the original only if the input was processed to its end.
    pub(super) min_lines_if_partial: u64,
    /// The original file, locked so that no other run writes to it.
    pub(super) original: Option<File>,
}

impl ReplacementFile {
    /// Creates a replacement for the file at `path`, which the caller has locked, and returns two handles to
    /// it.
    pub(super) fn create(path: &Path, replace_at_lines: u64) -> io::Result<(Self, File, File)> {
        // If the path is a link, the file that it points to is replaced, not the link.
        let target = path.canonicalize()?;
        let folder = target.parent().unwrap_or(Path::new("."));
        let mut prefix = OsString::from(".");
        prefix.push(target.file_name().unwrap_or_default());
        prefix.push(".");
        remove_leftovers(folder, &prefix);
        // The file is created exclusively and never opened by name, so no link is followed.
        let created = Builder::new()
            .prefix(&prefix)
            .suffix(SUFFIX)
            .rand_bytes(RANDOM_CHARACTERS)
            // As an output that is opened: see `files::open_or_create`.
            .append(cfg!(unix))
            .tempfile_in(folder)?;
        let (file, path) = created.into_parts();
        file.set_permissions(fs::metadata(&target)?.permissions())?;
        // After the rename, other runs find this file. On a file system without locks, the lock fails and is
        // skipped.
        let _ = file.try_lock();
        let second_handle = file.try_clone()?;
        Ok((
            Self { path, target, replace_at_lines, min_lines_if_partial: 0, original: None },
            file,
            second_handle,
        ))
    }

    /// Returns whether the file that it will replace has a content.
    pub(super) fn has_original(&self) -> bool {
        self.original.as_ref().is_some_and(|file| file.metadata().is_ok_and(|file| file.len() > 0))
    }

    /// Returns whether this number of lines is enough to replace the original.
    pub(super) fn has_enough_lines(&self, lines: u64) -> bool {
        lines >= self.replace_at_lines
    }

    /// Replaces the original. The content must have been written before.
    pub(super) fn commit(self, file: Option<&File>) -> io::Result<()> {
        // Without this, a power failure could leave the new name without the new content.
        file.map_or(Ok(()), File::sync_data)?;
        self.path.persist(&self.target).map_err(|failed| failed.error)?;
        files::sync_folder_of(&self.target)
    }
}

/// Removes the files that killed runs have left. The original file is locked, so none of them is in use on a
/// file system with locks.
fn remove_leftovers(folder: &Path, prefix: &OsString) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        let middle = name
            .strip_prefix(prefix.as_encoded_bytes())
            .and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()));
        let is_ours = middle.is_some_and(|middle| {
            middle.len() == RANDOM_CHARACTERS && middle.iter().all(u8::is_ascii_alphanumeric)
        });
        let mut options = File::options();
        options.write(true);
        if is_ours && files::open_unlinked(&entry.path(), options).is_ok_and(|file| file.try_lock().is_ok()) {
            // A leftover that cannot be removed only takes disk space.
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    #[cfg(unix)]
    fn the_name_of_a_replacement_differs_each_time_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("out.jsonl"), "before").unwrap();
        fs::write(at("precious"), "kept").unwrap();
        std::os::unix::fs::symlink(at("precious"), at(".out.jsonl.new")).unwrap();
        let create = |_| {
            let (replacement, mut file, _) = ReplacementFile::create(&at("out.jsonl"), 1).unwrap();
            file.write_all(b"after").unwrap();
            let name = replacement.path.file_name().unwrap().to_owned();
            drop(replacement);
            name
        };
        let created: Vec<_> = (0..3).map(create).collect();
        assert!(
            created[0] != created[1] && created[1] != created[2] && created[0] != created[2],
            "{created:?}"
        );
        assert_eq!(fs::read_to_string(at("precious")).unwrap(), "kept");
        assert_eq!(names(folder.path()), [".out.jsonl.new", "out.jsonl", "precious"]);
    }

    #[test]
    fn the_folder_is_synced_after_the_rename() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        fs::write(&path, "before").unwrap();
        let (replacement, mut file, second_handle) = ReplacementFile::create(&path, 1).unwrap();
        file.write_all(b"after").unwrap();
        assert_eq!(files::synced_here(), 0);
        replacement.commit(Some(&second_handle)).unwrap();
        assert_eq!(files::synced_here(), 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), "after");
    }

    #[test]
    fn the_leftover_of_a_killed_run_is_removed_by_the_next_run_and_no_other_file_is() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("out.jsonl"), "before").unwrap();
        for name in [".out.jsonl.0123456789abcdef.new", ".out.jsonl.notes.new", ".other.0123456789abcdef.new"]
        {
            fs::write(at(name), "left").unwrap();
        }
        let in_use = at(".out.jsonl.fedcba9876543210.new");
        let in_use = File::create(in_use).unwrap();
        in_use.try_lock().unwrap();
        drop(ReplacementFile::create(&at("out.jsonl"), 1).unwrap());
        assert_eq!(
            names(folder.path()),
            [
                ".other.0123456789abcdef.new",
                ".out.jsonl.fedcba9876543210.new",
                ".out.jsonl.notes.new",
                "out.jsonl",
            ]
        );
    }
}
