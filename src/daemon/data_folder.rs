//! The folder with the files of the daemon: items of its runs, and uploads that are under way.
//!
//! ```text
//! DATA/lock            the process that uses the folder
//! DATA/id              tells the folder from others; the store knows it
//! DATA/uploads/ID      uploads that have not ended; removed at the start
//! DATA/items/ID        items of a run
//! DATA/rejects/ID      input of that run that was not an item
//! ```

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use crate::files;

use super::error::Error;
use super::process_lock::{ProcessLock, Protected};

/// Bytes of a random file name.
const ID_BYTES: usize = 16;

/// The folder with the files of a daemon. Only one process uses it.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    id: String,
    is_new: bool,
    _lock: ProcessLock,
}

/// A file that is being written, and is removed unless it is kept.
#[derive(Debug)]
pub struct SpooledFile {
    file: File,
    path: PathBuf,
    id: String,
    is_kept: bool,
    bytes: u64,
    digest: Sha256,
}

impl DataFolder {
    /// Opens or creates the folder, and locks it. `address` is in the error of another process that finds it locked.
    ///
    /// # Errors
    /// If another process uses it, or it cannot be written.
    pub fn open(path: &Path, address: &str) -> Result<Self, Error> {
        let doing = || format!("open the folder {}", path.display());
        create_private_folder(path).map_err(Error::io(doing()))?;
        let path = path.canonicalize().map_err(Error::io(doing()))?;
        let lock = ProcessLock::take(&path.join("lock"), Protected::DataFolder, address)?;
        for folder in ["uploads", "items", "rejects"] {
            create_private_folder(&path.join(folder)).map_err(Error::io(doing()))?;
        }
        let (id, is_new) = folder_id(&path.join("id")).map_err(Error::io(doing()))?;
        let folder = Self { path, id, is_new, _lock: lock };
        folder.remove_uploads().map_err(Error::io(doing()))?;
        Ok(folder)
    }

    /// Returns what tells this folder from others.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Returns whether it was created by this process.
    pub(super) fn is_new(&self) -> bool {
        self.is_new
    }

    /// Returns the path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Begins a file for items that are being uploaded.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn spool(&self) -> Result<SpooledFile, Error> {
        let id = random_id();
        let path = self.path.join("uploads").join(&id);
        let mut options = files::owner_only_options();
        let file = options.read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(Error::io("create a file for the items"))?;
        Ok(SpooledFile { file, path, id, is_kept: false, bytes: 0, digest: Sha256::new() })
    }

    /// Makes an uploaded file the items of a run. They are on the disk when this returns.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn keep_items(&self, mut spooled: SpooledFile) -> Result<PathBuf, Error> {
        let path = self.items_file(&spooled.id);
        let kept = spooled.file.sync_all().and_then(|()| fs::rename(&spooled.path, &path));
        let kept = kept.and_then(|()| files::sync_folder_of(&path));
        kept.map_err(Error::io("write the items"))?;
        spooled.is_kept = true;
        Ok(path)
    }

    /// Returns the items file with this ID.
    pub(super) fn items_file(&self, id: &str) -> PathBuf {
        self.path.join("items").join(id)
    }

    /// Returns the file of rejects that belongs to the items with this ID.
    pub(super) fn rejects_file(&self, id: &str) -> PathBuf {
        self.path.join("rejects").join(id)
    }

    /// Removes the files of a run. One that does not exist is no error.
    pub(super) fn remove_run_files(&self, id: &str) -> Result<(), Error> {
        for path in [self.items_file(id), self.rejects_file(id)] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::Io { doing: format!("remove {}", path.display()), source: error });
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Removes the files whose run is not known. Files that were written since `before` may belong to a run that is being
    /// created.
    pub(super) fn remove_unknown(
        &self,
        is_known: impl Fn(&str) -> bool,
        before: SystemTime,
    ) -> io::Result<()> {
        let remove = |entry: &fs::DirEntry| {
            let is_old = entry.metadata()?.modified()? < before;
            if is_old { fs::remove_file(entry.path()) } else { Ok(()) }
        };
        for folder in ["items", "rejects"] {
            for entry in fs::read_dir(self.path.join(folder))? {
                let entry = entry?;
                let is_unknown = entry.file_name().to_str().is_some_and(|id| is_id(id) && !is_known(id));
                if !is_unknown {
                    continue;
                }
                match remove(&entry) {
                    // The run was deleted meanwhile.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    ended => ended?,
                }
            }
        }
        Ok(())
    }

    fn remove_uploads(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.path.join("uploads"))? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(is_id) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

impl SpooledFile {
    /// Appends bytes. It blocks while the disk is slow.
    ///
    /// # Errors
    /// If the disk fails or is full.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.file.write_all(bytes).map_err(Error::io("write the items"))?;
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Returns how many bytes were written.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the SHA-256 digest of what was written.
    pub fn sha256(&self) -> [u8; 32] {
        self.digest.clone().finalize().into()
    }

    /// Returns the ID, which is the name of the file.
    pub fn id(&self) -> &str {
        &self.id
    }
}

impl Drop for SpooledFile {
    fn drop(&mut self) {
        if !self.is_kept {
            // The next start removes it otherwise.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Returns the ID in the file at `path`, and whether it is new.
fn folder_id(path: &Path) -> io::Result<(String, bool)> {
    match fs::read_to_string(path) {
        Ok(id) if is_id(id.trim()) => return Ok((id.trim().to_owned(), false)),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let id = random_id();
    let mut options = files::owner_only_options();
    let mut file = options.write(true).create(true).truncate(true).open(path)?;
    file.write_all(id.as_bytes())?;
    file.sync_all()?;
    files::sync_folder_of(path)?;
    Ok((id, true))
}

/// Returns a new random ID.
pub(super) fn random_id() -> String {
    use std::fmt::Write;
    let mut bytes = [0; ID_BYTES];
    fastrand::Rng::new().fill(&mut bytes);
    bytes.iter().fold(String::with_capacity(ID_BYTES * 2), |mut id, byte| {
        // Writing to a string cannot fail.
        let _ = write!(id, "{byte:02x}");
        id
    })
}

/// Returns whether a name is one of ours, so that no other file is ever removed.
fn is_id(name: &str) -> bool {
    name.len() == ID_BYTES * 2 && name.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn create_private_folder(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_that_is_not_kept_leaves_nothing_and_one_that_is_kept_stays() {
        let root = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(&root.path().join("data"), "127.0.0.1:1").unwrap();
        let count = |name: &str| fs::read_dir(folder.path().join(name)).unwrap().count();
        let mut dropped = folder.spool().unwrap();
        dropped.write(b"{}").unwrap();
        assert_eq!(count("uploads"), 1);
        drop(dropped);
        let mut kept = folder.spool().unwrap();
        kept.write(b"{\"id\": 1}\n").unwrap();
        let id = kept.id().to_owned();
        let path = folder.keep_items(kept).unwrap();
        assert_eq!((count("uploads"), count("items")), (0, 1));
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"id\": 1}\n");
        let later = SystemTime::now() + std::time::Duration::from_secs(60);
        folder.remove_unknown(|known| known == id, later).unwrap();
        folder.remove_unknown(|_| false, SystemTime::UNIX_EPOCH).unwrap();
        assert!(path.exists());
        folder.remove_unknown(|_| false, later).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn files_of_others_stay() {
        let root = tempfile::tempdir().unwrap();
        let folder = DataFolder::open(root.path(), "127.0.0.1:1").unwrap();
        let precious = folder.path().join("items/precious.csv");
        fs::write(&precious, "kept").unwrap();
        let later = SystemTime::now() + std::time::Duration::from_secs(60);
        folder.remove_unknown(|_| false, later).unwrap();
        drop(folder);
        drop(DataFolder::open(root.path(), "127.0.0.1:1").unwrap());
        assert!(precious.exists());
    }

    #[test]
    fn a_second_daemon_is_refused_by_the_name_of_the_first_and_uploads_of_a_crash_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let first = DataFolder::open(root.path(), "127.0.0.1:7700").unwrap();
        let refused = DataFolder::open(root.path(), "127.0.0.1:7701").unwrap_err().to_string();
        let expected =
            format!("another daemon uses this data folder: process {} on 127.0.0.1:7700", std::process::id());
        assert!(refused.starts_with(&expected), "{refused}");
        assert!(
            refused.ends_with(". Stop it first, or set another folder in `data` of [serve]"),
            "{refused}"
        );
        fs::write(first.path().join("uploads").join("0".repeat(32)), "cut").unwrap();
        drop(first);
        let next = DataFolder::open(root.path(), "127.0.0.1:7701").unwrap();
        assert_eq!(fs::read_dir(next.path().join("uploads")).unwrap().count(), 0);
    }
}
