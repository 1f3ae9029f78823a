//! Creates and identifies files.
//!
//! The program creates files with mode 0600, for its user alone; an existing file keeps its mode. A file is
//! identified by its device and inode, because a path may lead to another file a moment later.

pub(crate) mod beneath;
pub(crate) mod protected;

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
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

/// Returns the content of a file of at most `max` bytes. A device that never ends is one with more.
///
/// # Errors
/// The system's error, or that there is more.
pub(crate) fn read_at_most(path: &Path, max: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(max + 1).read_to_end(&mut content)?;
    if content.len() as u64 > max {
        return Err(io::Error::other(format!("it has more than {} KiB", max >> 10)));
    }
    Ok(content)
}

/// Returns the text of a file of at most `max` bytes.
///
/// # Errors
/// As [`read_at_most`], and that it is not UTF-8.
pub(crate) fn read_text_at_most(path: &Path, max: u64) -> io::Result<String> {
    let content = read_at_most(path, max)?;
    String::from_utf8(content).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
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

/// Returns whether a file has more than one name in its file system. A file that does not exist has none.
#[cfg(feature = "server")]
pub(crate) fn has_hard_links(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && link_count(&metadata) > 1)
}

/// A file with a secret that must not be used.
#[cfg(any(test, feature = "server"))]
#[derive(Debug, thiserror::Error)]
pub(crate) enum PrivateFileError {
    /// It cannot be opened or read.
    #[error("it cannot be read")]
    Unreadable(#[source] io::Error),
    /// It is not a regular file.
    #[error("it is not a regular file")]
    NotAFile,
    /// Users other than its owner may access it.
    #[error("users other than its owner can access it (mode {mode:04o})")]
    AccessibleToOthers {
        /// Its permissions.
        mode: u32,
    },
    /// It is larger than it may be.
    #[error("it is larger than {max} bytes")]
    TooLarge {
        /// The limit.
        max: u64,
    },
}

#[cfg(any(test, feature = "server"))]
impl PrivateFileError {
    /// Returns what the user can do about it, for the file at `path`.
    pub(crate) fn advice(&self, path: &Path) -> String {
        match self {
            Self::Unreadable(_) | Self::NotAFile | Self::TooLarge { .. } => {
                format!("check the path {} and its permissions", path.display())
            }
            Self::AccessibleToOthers { .. } => {
                format!("run `chmod 600 {}`; replace the secret if others may have read it", path.display())
            }
        }
    }
}

/// Reads a file of at most `max` bytes that only its owner can access. The open file is checked, so the path may change
/// meanwhile. Links are followed, because mounted secrets use them.
///
/// # Errors
/// If it is not a regular file, its mode lets the group or others access it, it is too large, or it cannot be read.
#[cfg(any(test, feature = "server"))]
pub(crate) fn read_private(path: &Path, max: u64) -> Result<Vec<u8>, PrivateFileError> {
    use std::io::Read as _;
    let mut options = File::options();
    options.read(true);
    // Opening a named pipe blocks until its other end is open.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let file = options.open(path).map_err(PrivateFileError::Unreadable)?;
    check_private_metadata(&file.metadata().map_err(PrivateFileError::Unreadable)?)?;
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(PrivateFileError::Unreadable)?;
    if bytes.len() as u64 > max {
        return Err(PrivateFileError::TooLarge { max });
    }
    Ok(bytes)
}

#[cfg(any(test, feature = "server"))]
fn check_private_metadata(metadata: &Metadata) -> Result<(), PrivateFileError> {
    if !metadata.is_file() {
        return Err(PrivateFileError::NotAFile);
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        const ROOT: u32 = 0;
        let mode = metadata.mode() & 0o7777;
        // A secret that an orchestrator mounts belongs to root and is readable for the group of the process. PostgreSQL
        // accepts that too (<https://www.postgresql.org/docs/current/ssl-tcp.html>).
        let forbidden =
            if metadata.uid() == ROOT && !rustix::process::geteuid().is_root() { 0o037 } else { 0o077 };
        if mode & forbidden != 0 {
            return Err(PrivateFileError::AccessibleToOthers { mode });
        }
    }
    Ok(())
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
fn link_count(_: &Metadata) -> u64 {
    1
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_file_with_more_than_is_allowed_is_not_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, [b'x'; 1024]).unwrap();
        assert_eq!(read_text_at_most(&path, 1024).unwrap().len(), 1024);
        assert!(read_at_most(&path, 1023).unwrap_err().to_string().contains("more than"));
        #[cfg(unix)]
        assert!(read_at_most(Path::new("/dev/zero"), 1 << 20).unwrap_err().to_string().contains("1024 KiB"));
        std::fs::write(&path, b"\xff").unwrap();
        assert!(read_text_at_most(&path, 1024).unwrap_err().to_string().contains("UTF-8"));
    }

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
    fn a_private_file_is_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "12345").unwrap();
        for (mode, is_private) in
            [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o660, false), (0o620, false)]
        {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read_private(&path, 100).is_ok(), is_private, "{mode:o}");
            assert_eq!(read_private(&path, 5).is_ok(), is_private, "{mode:o}");
        }
        let error = read_private(&path, 100).unwrap_err();
        assert_eq!(error.to_string(), "users other than its owner can access it (mode 0620)");
        assert!(error.advice(&path).starts_with("run `chmod 600 "), "{}", error.advice(&path));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&path, folder.path().join("link")).unwrap();
        assert_eq!(read_private(&folder.path().join("link"), 5).unwrap(), b"12345");
        assert!(matches!(read_private(&path, 4), Err(PrivateFileError::TooLarge { max: 4 })));
        assert!(matches!(read_private(folder.path(), 100), Err(PrivateFileError::NotAFile)));
        assert!(matches!(
            read_private(&folder.path().join("missing"), 5),
            Err(PrivateFileError::Unreadable(_))
        ));
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
