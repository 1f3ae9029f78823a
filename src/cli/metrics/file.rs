//! A file with metrics. It is replaced as a whole, so that its reader never sees a part.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use tempfile::{Builder, NamedTempFile};

use crate::files::FileId;

/// The beginning of every file with metrics of this program.
const BEGINNING: &str = "# HELP pointsman_";

/// A file that can be replaced.
#[derive(Debug)]
pub(in crate::cli) struct MetricsFile {
    name: String,
    /// Its absolute path, with links resolved.
    path: PathBuf,
    folder: PathBuf,
}

impl MetricsFile {
    /// Checks that the file at `path` can be written, and changes nothing. The file may be none of `used_paths`. An
    /// existing file must be one with metrics, unless `overwrite` is set.
    pub(super) fn open(path: &Path, used_paths: &[&Path], overwrite: bool) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let cannot_write = || format!("cannot write {name}");
        let resolved = match path.canonicalize() {
            Ok(resolved) => resolved,
            Err(_) if path.is_symlink() => bail!("{name} is a link to a file that does not exist"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::path::absolute(path).with_context(cannot_write)?
            }
            Err(error) => return Err(error).with_context(cannot_write),
        };
        if let Some(used) = used_paths.iter().find(|used| is_same_file(&resolved, used)) {
            bail!("{name} is also {}; name another file", used.display());
        }
        match fs::metadata(&resolved) {
            Ok(found) if found.is_dir() => bail!("{name} is a folder; name a file in it"),
            Ok(found) => {
                ensure!(found.is_file(), "{name} is not a regular file");
                ensure!(
                    overwrite || found.len() == 0 || has_metrics(&resolved).with_context(cannot_write)?,
                    "{name} exists and has no metrics of this program; move that file away, or overwrite it \
                     (--overwrite)"
                );
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(cannot_write),
        }
        let folder = resolved.parent().map(Path::to_path_buf).unwrap_or_else(|| PathBuf::from("."));
        let file = Self { name: name.clone(), path: resolved, folder };
        drop(file.create_beside().with_context(cannot_write)?);
        Ok(file)
    }

    /// Returns its name for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Replaces the file. It keeps its mode; a new file is for its owner alone.
    pub(super) fn replace(&self, text: &str) -> io::Result<()> {
        let mut beside = self.create_beside()?;
        if let Ok(existing) = fs::metadata(&self.path) {
            beside.as_file().set_permissions(existing.permissions())?;
        }
        beside.write_all(text.as_bytes())?;
        beside.persist(&self.path).map_err(|failed| failed.error)?;
        Ok(())
    }

    /// Creates a file in the same folder, which is removed when it is dropped.
    fn create_beside(&self) -> io::Result<NamedTempFile> {
        Builder::new().prefix(".metrics.").suffix(".new").rand_bytes(16).tempfile_in(&self.folder)
    }
}

/// Returns whether a file has metrics of this program.
fn has_metrics(path: &Path) -> io::Result<bool> {
    let mut beginning = Vec::with_capacity(BEGINNING.len());
    fs::File::open(path)?.take(BEGINNING.len() as u64).read_to_end(&mut beginning)?;
    Ok(beginning == BEGINNING.as_bytes())
}

/// Returns whether both paths lead to the same file, also if it does not exist yet.
fn is_same_file(resolved: &Path, other: &Path) -> bool {
    let is_same_id =
        cfg!(unix) && FileId::at(resolved).is_ok_and(|id| FileId::at(other).is_ok_and(|other| other == id));
    let other = other.canonicalize().or_else(|_| std::path::absolute(other));
    is_same_id || other.is_ok_and(|other| other == resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "# HELP pointsman_items Items.\n";

    fn refusal(path: &Path, used_paths: &[&Path]) -> String {
        format!("{:#}", MetricsFile::open(path, used_paths, false).unwrap_err())
    }

    #[test]
    fn a_file_is_replaced_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.prom");
        let file = MetricsFile::open(&path, &[], false).unwrap();
        assert!(!path.exists());
        for text in ["# HELP pointsman_first\n", METRICS] {
            file.replace(text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        MetricsFile::open(&path, &[], false).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    #[cfg(unix)]
    fn an_existing_file_keeps_its_mode_and_a_link_stays_a_link() {
        use std::os::unix::fs::{PermissionsExt, symlink};

        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("metrics.prom"), "").unwrap();
        fs::set_permissions(at("metrics.prom"), fs::Permissions::from_mode(0o644)).unwrap();
        symlink(at("metrics.prom"), at("link")).unwrap();
        MetricsFile::open(&at("link"), &[], false).unwrap().replace(METRICS).unwrap();
        let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("metrics.prom"), at("link").is_symlink()), (0o644, true));
        assert_eq!(fs::read_to_string(at("metrics.prom")).unwrap(), METRICS);
        MetricsFile::open(&at("new"), &[], false).unwrap().replace(METRICS).unwrap();
        assert_eq!(mode("new"), 0o600);
        symlink(at("nothing"), at("dangling")).unwrap();
        assert!(refusal(&at("dangling"), &[]).contains("a link to a file that does not exist"));
    }

    #[test]
    fn a_file_that_is_not_of_metrics_or_that_the_run_uses_is_refused_and_unchanged() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("items.jsonl"), "{\"id\":1}\n").unwrap();
        fs::write(at("metrics.prom"), METRICS).unwrap();
        assert!(refusal(&at("items.jsonl"), &[]).contains("has no metrics of this program"));
        let is_used = |name: &str| refusal(&at(name), &[&at(name)]);
        // Neither exists yet, or both do.
        for name in ["out.jsonl", "metrics.prom"] {
            assert!(is_used(name).contains("name another file"), "{}", is_used(name));
        }
        assert!(refusal(folder.path(), &[]).contains("is a folder"));
        assert!(refusal(&at("no/metrics.prom"), &[]).contains("cannot write"));
        assert_eq!(fs::read_to_string(at("items.jsonl")).unwrap(), "{\"id\":1}\n");
        MetricsFile::open(&at("items.jsonl"), &[], true).unwrap().replace(METRICS).unwrap();
        assert_eq!(fs::read_to_string(at("items.jsonl")).unwrap(), METRICS);
    }
}
