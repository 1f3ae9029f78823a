//! Writes an output file again that was removed while it was written.

use std::fs::{self, File};
use std::io::{self, Seek};
use std::path::Path;

use super::owned::WrittenFile;
use crate::files;

/// Makes sure that `file` is the one at `path`: one that was removed is written there again, from what is still in it.
///
/// # Errors
/// When another file is at `path`, or it cannot be written again.
pub(super) fn keep_in_place(file: &File, path: &Path) -> io::Result<()> {
    let here = WrittenFile::of(path, &file.metadata()?);
    match fs::metadata(path) {
        Ok(there) if here.is_same_file(&WrittenFile::of(path, &there)) => Ok(()),
        Ok(_) => Err(io::Error::other("another file has taken its place while it was written")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => write_again(file, path),
        Err(error) => Err(error),
    }
}

fn write_again(mut file: &File, path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut again = tempfile::NamedTempFile::new_in(folder)?;
    file.rewind()?;
    io::copy(&mut file, again.as_file_mut())?;
    again.as_file().set_permissions(file.metadata()?.permissions())?;
    again.as_file().sync_data()?;
    again.persist_noclobber(path).map_err(|failed| failed.error)?;
    files::sync_folder_of(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_removed_file_is_written_again_and_another_one_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("o");
        let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        file.write_all(b"one\n").unwrap();
        keep_in_place(&file, &path).unwrap();
        fs::remove_file(&path).unwrap();
        file.write_all(b"two\n").unwrap();
        keep_in_place(&file, &path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        assert!(keep_in_place(&file, &path).unwrap_err().to_string().contains("another file"));
        fs::remove_dir_all(folder.path()).unwrap();
        assert_eq!(keep_in_place(&file, &path).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
