//! How the program makes and recognises its files.
//!
//! What the program creates is for its user alone: mode 0600, and a file that exists keeps its mode. A file is
//! recognised by its device and inode, since a path may lead to another file a moment later.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::path::Path;

/// Which file it is, whatever its name.
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

    /// Elsewhere an open file can be neither removed nor replaced, so its path names it.
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
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Opens the file at `path` to write to it, and to read it where `read` says so. Where there is none it is created for
/// its owner alone, at `path` itself.
///
/// # Errors
/// What the system says, or that the path is a link to nothing: the file would be created where the link says.
pub(crate) fn open_or_create(path: &Path, read: bool) -> io::Result<File> {
    let options = || {
        let mut options = private();
        options.read(read).write(true);
        options
    };
    match options().open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    match options().create_new(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match options().open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(io::Error::other(DANGLING)),
            // Another process has created it meanwhile.
            opened => opened,
        },
        opened => opened,
    }
}

/// Opens a regular file with `options` where `path` itself is that file: no link to it, and not one of several names
/// of it.
///
/// # Errors
/// What the system says, or that the path is a link or no regular file.
pub(crate) fn open_no_link(path: &Path, mut options: OpenOptions) -> io::Result<File> {
    let is_link = || std::fs::symlink_metadata(path).is_ok_and(|file| file.is_symlink());
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOFOLLOW | libc::O_NONBLOCK);
    #[cfg(not(unix))]
    if is_link() {
        return Err(io::Error::other(LINK));
    }
    let file = options.open(path).map_err(|error| if is_link() { io::Error::other(LINK) } else { error })?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    if names(&metadata) > 1 {
        return Err(io::Error::other("it is a hard link to another file"));
    }
    Ok(file)
}

/// Writes the names of the folder that `path` is in to the disk, so that a file which has just been renamed has its name
/// also after a loss of power.
///
/// # Errors
/// When the disk fails. A folder that cannot be read, or a file system that knows no such thing, is none.
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

const DANGLING: &str =
    "it is a link to a file that does not exist; create that file, remove the link, or name another file";

const LINK: &str = "it is a link to another file";

/// Returns how many names a file has.
#[cfg(unix)]
fn names(metadata: &Metadata) -> u64 {
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
    fn a_file_is_created_through_no_link_and_one_that_exists_is_opened_through_it() {
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
    fn a_new_file_is_for_its_owner_and_one_that_exists_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        private().write(true).create(true).truncate(false).open(&path).unwrap();
        assert_eq!(mode(), 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        private().write(true).create(true).truncate(false).open(&path).unwrap();
        assert_eq!(mode(), 0o644);
    }

    #[test]
    fn links_and_what_is_no_regular_file_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("target"), "kept").unwrap();
        symlink(at("target"), at("soft")).unwrap();
        symlink(at("nothing"), at("dangling")).unwrap();
        std::fs::hard_link(at("target"), at("hard")).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        let refused = |name: &str| {
            let mut options = private();
            options.read(true).write(true).create(true);
            open_no_link(&at(name), options).unwrap_err().to_string()
        };
        for name in ["soft", "dangling", "hard"] {
            assert!(refused(name).contains("link to another file"), "{name}: {}", refused(name));
        }
        refused("folder");
        assert!(!at("nothing").exists());
        assert_eq!(std::fs::read_to_string(at("target")).unwrap(), "kept");
    }
}
