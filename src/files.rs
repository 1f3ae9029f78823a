//! Creates and identifies files.
//!
//! The program creates files with mode 0600, for its user alone; an existing file keeps its mode. A file is
//! identified by its device and inode, because a path may lead to another file a moment later.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::path::Path;

/// The identity of a file, independent of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// Returns the identity of the file that `metadata` is of.
    #[cfg(unix)]
    pub(crate) fn of(metadata: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self { device: metadata.dev(), inode: metadata.ino() }
    }

    /// On other systems an open file can be neither removed nor replaced, so its path identifies it.
    #[cfg(not(unix))]
    pub(crate) fn of(_: &Metadata) -> Self {
        Self { device: 0, inode: 0 }
    }

    /// Returns the identity of the file that `path` leads to.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::of(&std::fs::metadata(path)?))
    }
}

/// Returns options that create a file for its owner alone.
pub(crate) fn owner_only_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Opens the file at `path` for writing, and also for reading where `read` is set. A missing file is created for
/// its owner alone, at `path` itself. Writes append: if another program truncates the file, the next write leaves
/// no gap.
///
/// # Errors
/// The system's error, or that the path is a dangling link: the file would be created at the link's target.
pub(crate) fn open_or_create(path: &Path, read: bool) -> io::Result<File> {
    let options = || {
        let mut options = owner_only_options();
        options.read(read).write(true);
        // On other systems, a file that is opened for appending cannot be truncated.
        if cfg!(unix) {
            options.append(true);
        }
        options
    };
    match options().open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    match options().create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match options().open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(io::Error::other(DANGLING_LINK)),
            // Another process has created the file meanwhile.
            opened => opened,
        },
        opened => opened,
    }
}

/// Opens a regular file with `options`, where `path` is its only name: no symbolic link and no hard link.
///
/// # Errors
/// The system's error, or that the path is a link or not a regular file.
pub(crate) fn open_unlinked(path: &Path, mut options: OpenOptions) -> io::Result<File> {
    let is_link = || std::fs::symlink_metadata(path).is_ok_and(|file| file.is_symlink());
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOFOLLOW | libc::O_NONBLOCK);
    #[cfg(not(unix))]
    if is_link() {
        return Err(io::Error::other(IS_LINK));
    }
    let file =
        options.open(path).map_err(|error| if is_link() { io::Error::other(IS_LINK) } else { error })?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if link_count(&metadata) > 1 {
        return Err(io::Error::other("it is a hard link to another file"));
    }
    Ok(file)
}

/// Syncs the folder of `path` to the disk, so that the new name of a renamed file survives a power loss.
///
/// # Errors
/// If the disk fails. A folder that cannot be read, or a file system that cannot sync folders, is no error.
pub(crate) fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(folder) = File::open(folder) else { return Ok(()) };
    #[cfg(test)]
    SYNCED.with(|synced| synced.set(synced.get() + 1));
    match folder.sync_all() {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        synced => synced,
    }
}

#[cfg(test)]
std::thread_local! {
    static SYNCED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// Returns how many folders this thread has synced.
#[cfg(test)]
pub(crate) fn synced_here() -> usize {
    SYNCED.with(std::cell::Cell::get)
}

const DANGLING_LINK: &str =
    "it is a link to a file that does not exist; create that file, remove the link, or name another file";

const IS_LINK: &str = "it is a link to another file";

/// Returns the number of hard links to a file.
#[cfg(unix)]
fn link_count(metadata: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::nlink(metadata)
}

#[cfg(not(unix))]
fn names(_: &Metadata) -> u64 {
    1
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_link_can_open_an_existing_file_and_never_creates_one() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        symlink(at("nothing"), at("dangling")).unwrap();
        let refused = open_or_create(&at("dangling"), true).unwrap_err().to_string();
        assert!(refused.contains("a link to a file that does not exist"), "{refused}");
        assert!(!at("nothing").exists());
        drop(open_or_create(&at("nothing"), true).unwrap());
        open_or_create(&at("dangling"), false).unwrap();
        let missing = open_or_create(&at("no/file"), false).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_new_file_is_for_its_owner_and_an_existing_file_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        owner_only_options().write(true).create(true).truncate(false).open(&path).unwrap();
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        owner_only_options().write(true).create(true).truncate(false).open(&path).unwrap();
        assert_eq!(mode(), 0o644);
    }

    #[test]
    fn links_and_folders_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("target"), "kept").unwrap();
        symlink(at("target"), at("soft")).unwrap();
        symlink(at("nothing"), at("dangling")).unwrap();
        std::fs::hard_link(at("target"), at("hard")).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        let refused = |name: &str| {
            let mut options = owner_only_options();
            options.read(true).write(true).create(true);
            open_unlinked(&at(name), options).unwrap_err().to_string()
        };
        for name in ["soft", "dangling", "hard"] {
            assert!(refused(name).contains("link to another file"), "{name}: {}", refused(name));
        }
        refused("folder");
        assert!(!at("nothing").exists());
        assert_eq!(std::fs::read_to_string(at("target")).unwrap(), "kept");
    }
}
