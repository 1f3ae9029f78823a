//! Decides which files a run may replace: those that it has written, and others only if the user asked for it.
//!
//! A file is identified by its device, inode and creation time. They are recorded before the first byte is
//! written, so a resumed run recognizes the file of a killed one. A copy is a different file.

use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Error;

/// Bytes that are read at once.
const READ_BLOCK_BYTES: usize = 1 << 20;

/// Beginnings of the files that a run writes: a result, a reject, a report, or the CSV header. Another program
/// may have written to the file since.
const KNOWN_PREFIXES: [&[u8]; 4] = [b"{\"key\":", b"{\"line\":", b"{\n  \"", CSV_PREFIX];

/// Beginning of the CSV header.
const CSV_PREFIX: &[u8] = b"key,line,status,";

/// Identity of a file that a run has written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// Nanoseconds since 1970, if the file system has it. An inode is reused after its file is removed.
    created: Option<u64>,
}

impl WrittenFile {
    /// Returns the identity of the file at `path` with `metadata`.
    pub(super) fn of(path: &Path, metadata: &Metadata) -> Self {
        let (device, inode) = device_and_inode(metadata);
        let created = metadata.created().ok().and_then(nanoseconds);
        Self { path: path.to_owned(), device, inode, created }
    }

    /// Returns the identity of the file at `path`; `None` if it is not a regular file.
    ///
    /// # Errors
    /// If the file does not exist.
    pub fn at(path: &Path) -> io::Result<Option<Self>> {
        let path = path.canonicalize()?;
        let metadata = fs::metadata(&path)?;
        Ok(metadata.is_file().then(|| Self::of(&path, &metadata)))
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether both are the same file of the file system.
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode, self.created) == (other.device, other.inode, other.created)
    }
}

/// A file that a run did not write and was allowed to replace, in its state at that time. If it has changed
/// since, it is refused again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplaceableFile {
    file: WrittenFile,
    bytes: u64,
    /// Nanoseconds since 1970.
    modified: Option<u64>,
}

impl ReplaceableFile {
    fn of(file: WrittenFile, metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok().and_then(nanoseconds);
        Self { file, bytes: metadata.len(), modified }
    }

    /// Returns the path, with links resolved.
    pub fn path(&self) -> &Path {
        self.file.path()
    }
}

/// Condition on which an output replaces a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Replacement {
    /// Lines that must be written before the content is replaced, unless all lines are written.
    pub lines: u64,
    /// The file, if the run did not write it. It is stored with the run, so that a later session may replace it
    /// too.
    pub file: Option<ReplaceableFile>,
}

/// The files that a run owns, and what else it may replace.
#[derive(Debug, Clone, Default)]
pub struct OutputOwner {
    files: Vec<WrittenFile>,
    replaceable: Vec<ReplaceableFile>,
    is_simulated: bool,
    overwrites: bool,
}

impl OutputOwner {
    /// Creates the owner of the files that a run has written.
    pub fn of(files: Vec<WrittenFile>) -> Self {
        Self { files, ..Self::default() }
    }

    /// Adds the files that an earlier session was allowed to replace.
    #[must_use]
    pub fn replacing(self, replaceable: Vec<ReplaceableFile>) -> Self {
        Self { replaceable, ..self }
    }

    /// Sets whether the run is simulated. A simulated run never replaces real answers.
    #[must_use]
    pub fn simulated(self, is_simulated: bool) -> Self {
        Self { is_simulated, ..self }
    }

    /// Sets whether files that the run did not write may be replaced.
    #[must_use]
    pub fn overwriting(self, overwrites: bool) -> Self {
        Self { overwrites, ..self }
    }

    /// Checks that the content of the file at `path` may be replaced, and returns the condition: a file that
    /// the run did not write is replaced only by at least as many lines, or when all lines are written.
    ///
    /// # Errors
    /// [`Error::NotOwned`] and [`Error::RealAnswers`], and if the file cannot be read.
    pub fn check(&self, path: &Path) -> Result<Replacement, Error> {
        let name = || path.display().to_string();
        let failed = |source: io::Error| Error::Open { name: name(), source: Arc::new(source) };
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Replacement::default()),
            Err(error) => return Err(failed(error)),
        };
        if !metadata.is_file() || metadata.len() == 0 {
            return Ok(Replacement::default());
        }
        // Checked even if the run is known to have written the file: a later run may have written real answers
        // to it.
        if self.is_simulated && holds_real_answers(path).map_err(failed)? {
            return Err(Error::RealAnswers { name: name() });
        }
        let file = WrittenFile::of(&path.canonicalize().map_err(failed)?, &metadata);
        let is_own = self.files.iter().any(|known| known.is_same_file(&file));
        if is_own && has_known_prefix(path).map_err(failed)? {
            return Ok(Replacement::default());
        }
        let file = ReplaceableFile::of(file, &metadata);
        if !self.overwrites && !self.replaceable.contains(&file) {
            return Err(Error::NotOwned { name: name() });
        }
        Ok(Replacement { lines: count_lines(path).map_err(failed)?, file: Some(file) })
    }
}

fn has_known_prefix(path: &Path) -> io::Result<bool> {
    let mut beginning = Vec::new();
    File::open(path)?.take(64).read_to_end(&mut beginning)?;
    // Where writes do not append, they leave zeros at the beginning of a file that was truncated before.
    let is_gap = beginning.iter().all(|byte| *byte == 0);
    Ok(is_gap
        || KNOWN_PREFIXES
            .iter()
            .any(|prefix| beginning.starts_with(prefix) || prefix.starts_with(&beginning)))
}

/// The field that marks simulated answers, and the name that earlier builds used.
const SIMULATED_FIELDS: [&str; 2] = ["simulated", "practice"];

/// Returns whether a file is a run's output with real answers. All answers of a run are real or none is, so the
/// first completed item decides.
fn holds_real_answers(path: &Path) -> io::Result<bool> {
    let mut file = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    file.read_until(b'\n', &mut line)?;
    if line.starts_with(CSV_PREFIX) {
        return has_real_rows(path);
    }
    while !line.is_empty() {
        let Ok(found) = serde_json::from_slice::<Value>(&line) else { return Ok(false) };
        if found.get("status") == Some(&"completed".into()) {
            return Ok(SIMULATED_FIELDS.iter().any(|field| found.get(field) == Some(&false.into())));
        }
        line.clear();
        file.read_until(b'\n', &mut line)?;
    }
    Ok(false)
}

fn has_real_rows(path: &Path) -> io::Result<bool> {
    let mut rows = csv::Reader::from_path(path)?;
    let header = rows.headers()?.clone();
    let column = |name: &str| header.iter().position(|found| found == name);
    let simulated = SIMULATED_FIELDS.iter().find_map(|field| column(field));
    let (Some(status), Some(simulated)) = (column("status"), simulated) else { return Ok(false) };
    for row in rows.records() {
        let Ok(row) = row else { return Ok(false) };
        if row.get(status) == Some("completed") {
            return Ok(row.get(simulated) == Some("false"));
        }
    }
    Ok(false)
}

fn count_lines(path: &Path) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut block = vec![0; READ_BLOCK_BYTES];
    let mut lines = 0;
    loop {
        match file.read(&mut block)? {
            0 => return Ok(lines),
            read => lines += block[..read].iter().filter(|byte| **byte == b'\n').count() as u64,
        }
    }
}

fn nanoseconds(time: SystemTime) -> Option<u64> {
    let since = time.duration_since(UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

#[cfg(unix)]
fn device_and_inode(metadata: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

/// On other systems a file is identified by its times and content.
#[cfg(not(unix))]
fn device_and_inode(_: &Metadata) -> (u64, u64) {
    (0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "{\"key\":\"1\",\"line\":1,\"status\":\"completed\",\"simulated\":false}\n";

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("o.jsonl");
        (folder, path)
    }

    fn is_refused(owner: &OutputOwner, path: &Path) -> bool {
        matches!(owner.check(path), Err(Error::NotOwned { .. }))
    }

    fn min_lines(owner: &OutputOwner, path: &Path) -> u64 {
        owner.check(path).unwrap().lines
    }

    #[test]
    fn a_missing_or_empty_file_and_a_non_file_may_be_written() {
        let (folder, path) = folder();
        let default_owner = OutputOwner::default();
        assert_eq!(min_lines(&default_owner, &path), 0);
        fs::write(&path, "").unwrap();
        assert_eq!(min_lines(&default_owner, &path), 0);
        assert_eq!(min_lines(&default_owner, Path::new("/dev/null")), 0);
        assert_eq!(min_lines(&default_owner, folder.path()), 0);
        fs::write(&path, LINE).unwrap();
        assert!(is_refused(&default_owner, &path));
        assert_eq!(min_lines(&default_owner.overwriting(true), &path), 1);
    }

    #[test]
    fn a_file_is_recognized_by_its_identity_and_its_prefix() {
        let (_folder, path) = folder();
        fs::write(&path, LINE).unwrap();
        let owner = OutputOwner::of(vec![WrittenFile::at(&path).unwrap().unwrap()]);
        assert_eq!(min_lines(&owner, &path), 0);
        fs::write(&path, LINE.repeat(3)).unwrap();
        assert_eq!(min_lines(&owner, &path), 0, "the run has written more");
        fs::write(&path, &LINE[..4]).unwrap();
        assert_eq!(min_lines(&owner, &path), 0, "its first line is partial");
        fs::write(&path, "something of my own\n").unwrap();
        assert!(is_refused(&owner, &path));
        fs::write(&path, LINE).unwrap();
        let copy = path.with_extension("copy");
        fs::copy(&path, &copy).unwrap();
        assert!(is_refused(&owner, &copy));
        fs::rename(&copy, &path).unwrap();
        assert!(is_refused(&owner, &path), "a different file with a similar line");
    }

    #[test]
    fn a_simulated_run_never_replaces_real_answers_even_with_overwrite() {
        let (_folder, path) = folder();
        let simulated = OutputOwner::default().simulated(true).overwriting(true);
        let csv = "key,line,status,simulated,answer\n1,1,completed,false,\"two\nlines\"\n";
        let earlier_version = LINE.replace("simulated", "practice");
        for real in [LINE, csv, earlier_version.as_str()] {
            fs::write(&path, real).unwrap();
            assert!(matches!(simulated.check(&path), Err(Error::RealAnswers { .. })), "{real}");
            fs::write(&path, real.replace("false", "true")).unwrap();
            assert!(min_lines(&simulated, &path) > 0, "{real}");
        }
        for free in ["notes\n", "{\"key\":\"1\",\"status\":\"skipped\",\"simulated\":false}\n"] {
            fs::write(&path, free).unwrap();
            assert_eq!(min_lines(&simulated, &path), 1, "{free}");
        }
        fs::write(&path, LINE).unwrap();
        let known = vec![WrittenFile::at(&path).unwrap().unwrap()];
        let refused = OutputOwner::of(known).simulated(true).check(&path);
        assert!(
            matches!(refused, Err(Error::RealAnswers { .. })),
            "another run has written to the file since"
        );
    }

    #[test]
    fn a_replaceable_file_is_recognized_by_its_path_until_it_changes() {
        let (_folder, path) = folder();
        let foreign = "something of my own\n";
        fs::write(&path, foreign.repeat(2)).unwrap();
        let allowed = OutputOwner::default().overwriting(true).check(&path).unwrap();
        assert_eq!((allowed.lines, allowed.file.as_ref().unwrap().path()), (2, path.as_path()));
        let owner = OutputOwner::default().replacing(allowed.file.iter().cloned().collect());
        assert_eq!(owner.check(&path).unwrap(), allowed);
        let link = path.with_extension("link");
        fs::hard_link(&path, &link).unwrap();
        assert!(is_refused(&owner, &link), "the same file by another path");
        fs::write(&path, foreign.repeat(3)).unwrap();
        assert!(is_refused(&owner, &path), "another program has written to it");
        fs::remove_file(&path).unwrap();
        fs::write(&path, foreign.repeat(2)).unwrap();
        assert!(is_refused(&owner, &path), "another file of the same size");

        fs::write(&path, LINE).unwrap();
        let simulated = OutputOwner::default().simulated(true);
        let allowed = OutputOwner::default().overwriting(true).check(&path).unwrap();
        let refused = simulated.replacing(allowed.file.into_iter().collect()).check(&path);
        assert!(
            matches!(refused, Err(Error::RealAnswers { .. })),
            "simulated answers never replace real ones"
        );
    }
}
