//! Saves lines that a daemon sends in a file.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use anyhow::Context;

use crate::sink::OutputOwner;

use super::error::RemoteError;
use super::requests::Lines;

/// Saves all lines in the file at `path`. An existing file is replaced only with `overwrites`, and only when all lines are
/// there.
pub(in crate::cli) fn save<'a>(
    open: impl FnOnce() -> Result<Lines<'a>, RemoteError>,
    path: &Path,
    overwrites: bool,
) -> anyhow::Result<()> {
    OutputOwner::default().overwriting(overwrites).check(path)?;
    let existing = fs::metadata(path).ok();
    let name = path.display();
    if existing.as_ref().is_some_and(|found| !found.is_file()) {
        // A pipe or a device: it is not replaced.
        let mut file =
            File::options().write(true).open(path).with_context(|| format!("cannot open {name}"))?;
        return copy(&mut open()?, &mut file).with_context(|| format!("cannot write {name}"));
    }
    // A link stays a link.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".pointsman-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut file =
        builder.tempfile_in(folder).with_context(|| format!("cannot write to {}", folder.display()))?;
    copy(&mut open()?, file.as_file_mut())?;
    if let Some(existing) = existing {
        file.as_file()
            .set_permissions(existing.permissions())
            .with_context(|| format!("cannot write {name}"))?;
    }
    file.as_file().sync_all().with_context(|| format!("cannot write {name}"))?;
    file.persist(&path).with_context(|| format!("cannot write {name}"))?;
    Ok(())
}

fn copy(lines: &mut Lines<'_>, file: &mut File) -> anyhow::Result<()> {
    while let Some(piece) = lines.next()? {
        file.write_all(&piece).context("cannot write the results")?;
    }
    Ok(())
}
