//! Opens a file of a folder without following a link.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};

/// Opens `inside`, which has no links, from `folder`. A component that has become a link meanwhile is not
/// followed, and a pipe does not block.
pub(crate) fn open_beneath(folder: &Path, inside: &Path) -> io::Result<File> {
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = openat(CWD, folder, directory, Mode::empty())?;
    let mut names = inside.components().peekable();
    while let Some(name) = names.next() {
        let flags = match names.peek() {
            Some(_) => directory | OFlags::NOFOLLOW,
            None => OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        };
        at = openat(&at, name.as_os_str(), flags, Mode::empty())?;
    }
    Ok(File::from(at))
}
