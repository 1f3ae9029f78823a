//! Restores an output file that was removed while it was written.

use std::fs::{self, File};
use std::io::{self, Seek};
use std::path::Path;

use super::output_owner::WrittenFile;
use crate::files;

/// Makes sure that `file` is the file at `path`. If it was removed, writes its content to `path` again.
///
/// # Errors
/// If another file is at `path`, or if the file cannot be written again.
pub(super) fn restore_if_removed(file: &File, path: &Path) -> io::Result<()> {
    let open_file = WrittenFile::of(path, &file.metadata()?);
    match fs::metadata(path) {
        Ok(file_at_path) if open_file.is_same_file(&WrittenFile::of(path, &file_at_path)) => Ok(()),
        Ok(_) => Err(io::Error::other("another file has taken its place while it was written")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => rewrite(file, path),
        Err(error) => Err(error),
    }
}

fn rewrite(mut file: &File, path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut restored = tempfile::NamedTempFile::new_in(folder)?;
    file.rewind()?;
    io::copy(&mut file, restored.as_file_mut())?;
    restored.as_file().set_permissions(file.metadata()?.permissions())?;
    restored.as_file().sync_data()?;
    restored.persist_noclobber(path).map_err(|failed| failed.error)?;
    files::sync_folder_of(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_removed_file_is_restored_and_a_different_file_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("o");
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.write_all(b"one\n").unwrap();
        restore_if_removed(&file, &path).unwrap();
        fs::remove_file(&path).unwrap();
        file.write_all(b"two\n").unwrap();
        restore_if_removed(&file, &path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        assert!(
            restore_if_removed(&file, &path)
                .unwrap_err()
                .to_string()
                .contains("another file has taken its place")
        );
        fs::remove_dir_all(folder.path()).unwrap();
        assert_eq!(restore_if_removed(&file, &path).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
