//! A file that takes the place of another once it is no poorer.
//!
//! A run that goes on writes all of its lines anew. Should it be killed meanwhile, what was there before is
//! there still.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::{Builder, TempPath};

use crate::files;

/// What the names of these files end with.
const SUFFIX: &str = ".new";

/// Random characters in the name of one: enough that no other user can guess it, and make a link of that name.
const RANDOM: usize = 16;

/// A file beside the one whose place it takes. When it is dropped before, it is removed.
pub(super) struct Successor {
    path: TempPath,
    takes: PathBuf,
    /// Lines from which on it is no poorer.
    after: u64,
    /// With fewer lines it takes the place only where the input was dealt with to its end.
    pub(super) at_least: u64,
    /// The file that is there, locked so that nobody else writes to it either.
    pub(super) before: Option<File>,
}

impl Successor {
    /// Makes one for the file at `path`, which the caller has locked, and opens it twice.
    pub(super) fn of(path: &Path, after: u64) -> io::Result<(Self, File, File)> {
        // Where the path is a link, the file that it leads to is replaced, and not the link.
        let takes = path.canonicalize()?;
        let folder = takes.parent().unwrap_or(Path::new("."));
        let mut prefix = OsString::from(".");
        prefix.push(takes.file_name().unwrap_or_default());
        prefix.push(".");
        remove_leftovers(folder, &prefix);
        // Its file is made for this and never opened by its name, and so through no link.
        let made = Builder::new().prefix(&prefix).suffix(SUFFIX).rand_bytes(RANDOM).tempfile_in(folder)?;
        let (file, path) = made.into_parts();
        file.set_permissions(fs::metadata(&takes)?.permissions())?;
        // From when it takes the place on it is the one that others find. Where there are no locks, there are none.
        let _ = file.try_lock();
        let again = file.try_clone()?;
        Ok((Self { path, takes, after, at_least: 0, before: None }, file, again))
    }

    /// Returns whether so many lines are enough.
    pub(super) fn is_due(&self, lines: u64) -> bool {
        lines >= self.after
    }

    /// Takes the place. What is in the file must have been written.
    pub(super) fn take(self, file: Option<&File>) -> io::Result<()> {
        // Else a machine that loses its power could have the new name and not what belongs under it.
        file.map_or(Ok(()), File::sync_data)?;
        self.path.persist(&self.takes).map_err(|failed| failed.error)?;
        files::sync_folder_of(&self.takes)
    }
}

/// Removes what runs that were killed have left. The file whose place they were to take is locked, so none of them
/// is in use where there are locks.
fn remove_leftovers(folder: &Path, prefix: &OsString) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        let middle = name
            .strip_prefix(prefix.as_encoded_bytes())
            .and_then(|rest| rest.strip_suffix(SUFFIX.as_bytes()));
        let is_ours = middle
            .is_some_and(|middle| middle.len() == RANDOM && middle.iter().all(u8::is_ascii_alphanumeric));
        let mut options = File::options();
        options.write(true);
        if is_ours && files::open_no_link(&entry.path(), options).is_ok_and(|file| file.try_lock().is_ok()) {
            // One that stays costs room and nothing else.
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
    fn the_name_of_a_successor_is_another_each_time_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("out.jsonl"), "before").unwrap();
        fs::write(at("precious"), "kept").unwrap();
        std::os::unix::fs::symlink(at("precious"), at(".out.jsonl.new")).unwrap();
        let made = |_| {
            let (successor, mut file, _) = Successor::of(&at("out.jsonl"), 1).unwrap();
            file.write_all(b"after").unwrap();
            let name = successor.path.file_name().unwrap().to_owned();
            drop(successor);
            name
        };
        let made: Vec<_> = (0..3).map(made).collect();
        assert!(made[0] != made[1] && made[1] != made[2] && made[0] != made[2], "{made:?}");
        assert_eq!(fs::read_to_string(at("precious")).unwrap(), "kept");
        assert_eq!(names(folder.path()), [".out.jsonl.new", "out.jsonl", "precious"]);
    }

    #[test]
    fn the_folder_is_synced_after_the_new_file_has_taken_the_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        fs::write(&path, "before").unwrap();
        let (successor, mut file, again) = Successor::of(&path, 1).unwrap();
        file.write_all(b"after").unwrap();
        assert_eq!(files::synced_here(), 0);
        successor.take(Some(&again)).unwrap();
        assert_eq!(files::synced_here(), 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), "after");
    }

    #[test]
    fn what_a_killed_run_has_left_is_removed_by_the_next_and_nothing_else_is() {
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
        drop(Successor::of(&at("out.jsonl"), 1).unwrap());
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
