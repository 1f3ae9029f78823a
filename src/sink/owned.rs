//! Which files a run has written: the content of any other file is replaced only where that was asked for.
//!
//! A file is known by its device, its inode and its creation time, from before the first byte is written on, so that a
//! killed run finds it again. A copy of it is another file.

use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Error;

/// Bytes that are read at once.
const BLOCK: usize = 1 << 20;

/// What a file begins with that a run has written: a result, a reject, a report, or the header of CSV. Another program
/// may have written over the file since.
const BEGINNINGS: [&[u8]; 4] = [b"{\"key\":", b"{\"line\":", b"{\n  \"", b"key,line,status,"];

/// A file that a run has written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// In nanoseconds since 1970, where the file system has it. An inode is used again once its file is gone.
    created: Option<u64>,
}

impl WrittenFile {
    /// Notes that a run writes the file at `path`, which `metadata` is of.
    pub(super) fn of(path: &Path, metadata: &Metadata) -> Self {
        let (device, inode) = number(metadata);
        let created = metadata.created().ok().and_then(nanoseconds);
        Self { path: path.to_owned(), device, inode, created }
    }

    /// Notes that a run has written the file at `path`; `None` where that is no regular file.
    ///
    /// # Errors
    /// When it is not there.
    pub fn at(path: &Path) -> io::Result<Option<Self>> {
        let path = path.canonicalize()?;
        let metadata = fs::metadata(&path)?;
        Ok(metadata.is_file().then(|| Self::of(&path, &metadata)))
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether both are the same file of the file system.
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode, self.created) == (other.device, other.inode, other.created)
    }
}

/// A file that a run did not write and was allowed to replace, as it was then. One that has changed since is refused
/// again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplaceableFile {
    file: WrittenFile,
    bytes: u64,
    /// In nanoseconds since 1970.
    modified: Option<u64>,
}

impl ReplaceableFile {
    fn of(file: WrittenFile, metadata: &Metadata) -> Self {
        let modified = metadata.modified().ok().and_then(nanoseconds);
        Self { file, bytes: metadata.len(), modified }
    }

    /// Returns where it is, links followed.
    pub fn path(&self) -> &Path {
        self.file.path()
    }
}

/// What an output replaces.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Replaced {
    /// Lines that have to be written before the content is replaced, unless all are written.
    pub lines: u64,
    /// The file, where the run did not write it: to be kept with the run, so that it may be replaced later, too.
    pub file: Option<ReplaceableFile>,
}

/// Whose output a file is to be.
#[derive(Debug, Clone, Default)]
pub struct Owner {
    files: Vec<WrittenFile>,
    replaceable: Vec<ReplaceableFile>,
    is_simulated: bool,
    overwrites: bool,
}

impl Owner {
    /// Makes the owner of the files that a run has written.
    pub fn of(files: Vec<WrittenFile>) -> Self {
        Self { files, ..Self::default() }
    }

    /// Names the files that an earlier session was allowed to replace.
    #[must_use]
    pub fn replacing(self, replaceable: Vec<ReplaceableFile>) -> Self {
        Self { replaceable, ..self }
    }

    /// Says whether the run is simulated: then it never replaces real answers.
    #[must_use]
    pub fn simulated(self, is_simulated: bool) -> Self {
        Self { is_simulated, ..self }
    }

    /// Says whether files may be replaced that the run did not write.
    #[must_use]
    pub fn overwriting(self, overwrites: bool) -> Self {
        Self { overwrites, ..self }
    }

    /// Checks that the content of the file at `path` may be replaced, and returns on which condition: a file which the
    /// run did not write is replaced by no fewer lines, unless all are written.
    ///
    /// # Errors
    /// [`Error::NotOwned`] and [`Error::RealAnswers`], and when the file cannot be read.
    pub fn check(&self, path: &Path) -> Result<Replaced, Error> {
        let name = || path.display().to_string();
        let failed = |source: io::Error| Error::Open { name: name(), source: Arc::new(source) };
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Replaced::default()),
            Err(error) => return Err(failed(error)),
        };
        if !metadata.is_file() || metadata.len() == 0 {
            return Ok(Replaced::default());
        }
        // Also where the run is known to have written it: a later run may have written real answers to it.
        if self.is_simulated && holds_real_answers(path).map_err(failed)? {
            return Err(Error::RealAnswers { name: name() });
        }
        let file = WrittenFile::of(&path.canonicalize().map_err(failed)?, &metadata);
        let is_known = self.files.iter().any(|known| known.is_same_file(&file));
        if is_known && begins_as_ours(path).map_err(failed)? {
            return Ok(Replaced::default());
        }
        let file = ReplaceableFile::of(file, &metadata);
        if !self.overwrites && !self.replaceable.contains(&file) {
            return Err(Error::NotOwned { name: name() });
        }
        Ok(Replaced { lines: lines(path).map_err(failed)?, file: Some(file) })
    }
}

fn begins_as_ours(path: &Path) -> io::Result<bool> {
    let mut beginning = Vec::new();
    File::open(path)?.take(64).read_to_end(&mut beginning)?;
    Ok(BEGINNINGS.iter().any(|ours| beginning.starts_with(ours) || ours.starts_with(&beginning)))
}

/// Returns whether a file is a run's output whose answers are real. All answers of a run are, or none: the first item
/// that has completed shows it.
fn holds_real_answers(path: &Path) -> io::Result<bool> {
    let mut file = BufReader::new(File::open(path)?);
    let mut line = Vec::new();
    file.read_until(b'\n', &mut line)?;
    if line.starts_with(BEGINNINGS[3]) {
        return rows_are_real(path);
    }
    while !line.is_empty() {
        let Ok(found) = serde_json::from_slice::<Value>(&line) else { return Ok(false) };
        if found.get("status") == Some(&"completed".into()) {
            return Ok(found.get("practice") == Some(&false.into()));
        }
        line.clear();
        file.read_until(b'\n', &mut line)?;
    }
    Ok(false)
}

fn rows_are_real(path: &Path) -> io::Result<bool> {
    let mut rows = csv::Reader::from_path(path)?;
    let header = rows.headers()?.clone();
    let column = |name| header.iter().position(|found| found == name);
    let (Some(status), Some(practice)) = (column("status"), column("practice")) else { return Ok(false) };
    for row in rows.records() {
        let Ok(row) = row else { return Ok(false) };
        if row.get(status) == Some("completed") {
            return Ok(row.get(practice) == Some("false"));
        }
    }
    Ok(false)
}

fn lines(path: &Path) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let mut block = vec![0; BLOCK];
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
fn number(metadata: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.dev(), metadata.ino())
}

/// Elsewhere a file is known by its times and its content.
#[cfg(not(unix))]
fn number(_: &Metadata) -> (u64, u64) {
    (0, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "{\"key\":\"1\",\"line\":1,\"status\":\"completed\",\"practice\":false}\n";

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("o.jsonl");
        (folder, path)
    }

    fn is_refused(owner: &Owner, path: &Path) -> bool {
        matches!(owner.check(path), Err(Error::NotOwned { .. }))
    }

    fn lines_of(owner: &Owner, path: &Path) -> u64 {
        owner.check(path).unwrap().lines
    }

    #[test]
    fn a_file_that_is_not_there_or_empty_or_no_file_is_free() {
        let (folder, path) = folder();
        let nobody = Owner::default();
        assert_eq!(lines_of(&nobody, &path), 0);
        fs::write(&path, "").unwrap();
        assert_eq!(lines_of(&nobody, &path), 0);
        assert_eq!(lines_of(&nobody, Path::new("/dev/null")), 0);
        assert_eq!(lines_of(&nobody, folder.path()), 0);
        fs::write(&path, LINE).unwrap();
        assert!(is_refused(&nobody, &path));
        assert_eq!(lines_of(&nobody.overwriting(true), &path), 1);
    }

    #[test]
    fn a_file_is_known_by_its_identity_and_its_beginning() {
        let (_folder, path) = folder();
        fs::write(&path, LINE).unwrap();
        let owner = Owner::of(vec![WrittenFile::at(&path).unwrap().unwrap()]);
        assert_eq!(lines_of(&owner, &path), 0);
        fs::write(&path, LINE.repeat(3)).unwrap();
        assert_eq!(lines_of(&owner, &path), 0, "the run has written on");
        fs::write(&path, &LINE[..4]).unwrap();
        assert_eq!(lines_of(&owner, &path), 0, "it is torn");
        fs::write(&path, "something of my own\n").unwrap();
        assert!(is_refused(&owner, &path));
        fs::write(&path, LINE).unwrap();
        let copy = path.with_extension("copy");
        fs::copy(&path, &copy).unwrap();
        assert!(is_refused(&owner, &copy));
        fs::rename(&copy, &path).unwrap();
        assert!(is_refused(&owner, &path), "another file with such a line");
    }

    #[test]
    fn a_simulated_run_replaces_no_real_answers_even_when_it_overwrites() {
        let (_folder, path) = folder();
        let simulated = Owner::default().simulated(true).overwriting(true);
        let csv = "key,line,status,practice,answer\n1,1,completed,false,\"two\nlines\"\n";
        for real in [LINE, csv] {
            fs::write(&path, real).unwrap();
            assert!(matches!(simulated.check(&path), Err(Error::RealAnswers { .. })), "{real}");
            fs::write(&path, real.replace("false", "true")).unwrap();
            assert!(lines_of(&simulated, &path) > 0, "{real}");
        }
        for free in ["notes\n", "{\"key\":\"1\",\"status\":\"skipped\",\"practice\":false}\n"] {
            fs::write(&path, free).unwrap();
            assert_eq!(lines_of(&simulated, &path), 1, "{free}");
        }
        fs::write(&path, LINE).unwrap();
        let known = vec![WrittenFile::at(&path).unwrap().unwrap()];
        let refused = Owner::of(known).simulated(true).check(&path);
        assert!(matches!(refused, Err(Error::RealAnswers { .. })), "another run has written to it since");
    }

    #[test]
    fn a_file_that_may_be_replaced_is_known_by_its_path_and_while_it_does_not_change() {
        let (_folder, path) = folder();
        let theirs = "something of my own\n";
        fs::write(&path, theirs.repeat(2)).unwrap();
        let allowed = Owner::default().overwriting(true).check(&path).unwrap();
        assert_eq!((allowed.lines, allowed.file.as_ref().unwrap().path()), (2, path.as_path()));
        let owner = Owner::default().replacing(allowed.file.iter().cloned().collect());
        assert_eq!(owner.check(&path).unwrap(), allowed);
        let link = path.with_extension("link");
        fs::hard_link(&path, &link).unwrap();
        assert!(is_refused(&owner, &link), "the same file by another path");
        fs::write(&path, theirs.repeat(3)).unwrap();
        assert!(is_refused(&owner, &path), "another program has written to it");
        fs::remove_file(&path).unwrap();
        fs::write(&path, theirs.repeat(2)).unwrap();
        assert!(is_refused(&owner, &path), "another file of the same size");

        fs::write(&path, LINE).unwrap();
        let simulated = Owner::default().simulated(true);
        let allowed = Owner::default().overwriting(true).check(&path).unwrap();
        let refused = simulated.replacing(allowed.file.into_iter().collect()).check(&path);
        assert!(
            matches!(refused, Err(Error::RealAnswers { .. })),
            "simulated answers never replace real ones"
        );
    }
}
