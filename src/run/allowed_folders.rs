//! Finds and opens an attached file in the folders that attachments may come from.
//!
//! Links are resolved component by component, and nothing outside the allowed folders is accessed: an item cannot
//! find out whether a file outside exists. The file is then opened from its folder, directory by directory,
//! without following a link.

use std::fs::{File, Metadata};
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::files::beneath::open_beneath;
use crate::pipeline::attach::{AttachmentSources, FileAttachment};

/// Longest path that is looked up, in bytes; no system opens a longer one.
const MAX_PATH_BYTES: usize = 4096;

/// Why a file is not found in an allowed folder.
#[derive(Debug, thiserror::Error)]
pub(super) enum PathError {
    #[error(
        "it is outside the pipeline's directory; to send it, add its folder to `allow` of the configuration's [files]"
    )]
    Outside,
    #[error("its path is longer than {MAX_PATH_BYTES} bytes")]
    TooLong,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A file in an allowed folder.
#[derive(Debug)]
pub(super) struct FoundFile {
    folder: PathBuf,
    /// Its path relative to the folder, without links.
    inside: PathBuf,
}

/// Finds a file in an allowed folder.
pub(super) fn find(file: &FileAttachment) -> Result<FoundFile, PathError> {
    if file.path.as_os_str().len() > MAX_PATH_BYTES {
        return Err(PathError::TooLong);
    }
    if let Some(found) = find_item_file(file) {
        return found;
    }
    AllowedFolders::of(&file.sources).resolve(&file.path, &file.sources.directory)
}

/// Finds a file that is an item of the run; `None` if `file` is another one. A link in it must lead to such a file, too.
fn find_item_file(file: &FileAttachment) -> Option<Result<FoundFile, PathError>> {
    let items = file.sources.item_files.as_ref()?;
    let inside = file.path.strip_prefix(items.folder()).ok()?;
    if !items.contains(inside) {
        return None;
    }
    let folders = AllowedFolders::of_folder(items.folder());
    let found = folders.resolve(&file.path, items.folder());
    Some(found.and_then(
        |found| {
            if items.contains(&found.inside) { Ok(found) } else { Err(PathError::Outside) }
        },
    ))
}

impl FoundFile {
    /// Returns its metadata without opening it.
    pub(super) fn metadata(&self) -> io::Result<Metadata> {
        std::fs::metadata(self.folder.join(&self.inside))
    }

    /// Opens it. A component that has become a link meanwhile is not followed, and a pipe does not block.
    pub(super) fn open(&self) -> io::Result<File> {
        open_beneath(&self.folder, &self.inside)
    }
}

/// The folders that attachments may come from.
struct AllowedFolders {
    /// Paths without links.
    real: Vec<PathBuf>,
    /// Paths by which attachments may name them.
    named: Vec<PathBuf>,
}

impl AllowedFolders {
    fn of(folders: &AttachmentSources) -> Self {
        Self::of_folders(folders.folders())
    }

    fn of_folder(folder: &Path) -> Self {
        Self::of_folders(std::iter::once(folder))
    }

    fn of_folders<'f>(folders: impl Iterator<Item = &'f Path>) -> Self {
        let folders: Vec<&Path> = folders.collect();
        let real: Vec<PathBuf> = folders.iter().filter_map(|folder| folder.canonicalize().ok()).collect();
        let absolute = folders.iter().filter_map(|folder| std::path::absolute(folder).ok());
        let named = absolute.map(|folder| without_parents(&folder)).chain(real.iter().cloned()).collect();
        Self { real, named }
    }

    /// Returns the file at `path`. Accesses only the allowed folders, the folders above them, and the targets of
    /// links in them.
    fn resolve(&self, path: &Path, own: &Path) -> Result<FoundFile, PathError> {
        let (mut at, rest) = match path.strip_prefix(own) {
            Ok(rest) => (own.canonicalize()?, rest),
            Err(_) => (PathBuf::new(), path),
        };
        for component in rest.components() {
            match component {
                Component::Prefix(_) | Component::RootDir => at.push(component),
                Component::CurDir => {}
                // `at` has no links, so this is the parent folder.
                Component::ParentDir => drop(at.pop()),
                Component::Normal(name) => {
                    let next = at.join(name);
                    if !self.named.iter().any(|folder| is_within_or_above(&next, folder)) {
                        return Err(PathError::Outside);
                    }
                    at = next.canonicalize()?;
                }
            }
        }
        let within = |folder: &PathBuf| {
            let inside = at.strip_prefix(folder).ok()?.to_owned();
            Some(FoundFile { folder: folder.clone(), inside })
        };
        self.real.iter().find_map(within).ok_or(PathError::Outside)
    }
}

/// Returns whether `path` is in `folder`, is equal to it, or is above it.
fn is_within_or_above(path: &Path, folder: &Path) -> bool {
    path.starts_with(folder) || folder.starts_with(path)
}

/// Returns an absolute path with its `..` removed lexically: no link is resolved.
fn without_parents(path: &Path) -> PathBuf {
    let mut written = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(written.pop()),
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => written.push(component),
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_component_that_became_a_link_after_resolution_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let photos = folder.path().join("photos");
        fs::create_dir_all(photos.join("cats")).unwrap();
        fs::write(photos.join("cats/one.png"), "cat").unwrap();
        fs::write(folder.path().join("secret.json"), "key").unwrap();
        symlink(folder.path(), photos.join("swapped")).unwrap();
        symlink(folder.path().join("secret.json"), photos.join("cats/two.png")).unwrap();
        assert!(open_beneath(&photos, Path::new("cats/one.png")).is_ok());
        assert!(open_beneath(&photos, Path::new("swapped/secret.json")).is_err());
        assert!(open_beneath(&photos, Path::new("cats/two.png")).is_err());
    }
}
