//! Which files a run has written: the content of any other file is replaced only where that was asked for.
//!
//! A file is known by its identity while the run writes it, so that a killed run finds it again, and by its content
//! once the run has closed it.

use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Error;

/// Bytes that are read at once.
const BLOCK: usize = 1 << 20;

/// Bytes of the first line of a file that are looked at.
const FIRST_LINE: u64 = 1 << 20;

/// What a file begins with that a run has written: a result, a reject, a report, or the header of CSV.
const BEGINNINGS: [&[u8]; 4] = [b"{\"key\":", b"{\"line\":", b"{\n  \"", b"key,line,status,"];

/// A file that a run has written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// In nanoseconds since 1970, where the file system has it. An inode is used again once its file is gone.
    created: Option<u64>,
    /// What it held when the run closed it; `None` while the run writes it.
    closed: Option<Content>,
}

/// What a file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    bytes: u64,
    /// In nanoseconds since 1970.
    modified: Option<u64>,
    sha256: String,
}

impl WrittenFile {
    /// Notes that a run writes the file at `path`, which `metadata` is of.
    pub(super) fn opened(path: &Path, metadata: &Metadata) -> Self {
        let (device, inode) = number(metadata);
        let created = metadata.created().ok().and_then(nanoseconds);
        Self { path: path.to_owned(), device, inode, created, closed: None }
    }

    /// Notes what the file at `path` holds now; `None` where that is no regular file.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn closed(path: &Path) -> io::Result<Option<Self>> {
        let path = path.canonicalize()?;
        let mut file = File::open(&path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Ok(None);
        }
        let (bytes, sha256) = digest(&mut file)?;
        let modified = metadata.modified().ok().and_then(nanoseconds);
        let closed = Some(Content { bytes, modified, sha256 });
        Ok(Some(Self { closed, ..Self::opened(&path, &metadata) }))
    }

    /// Notes that a run closed the file at `path` with this content, where nothing else is known of it.
    pub fn with_content(path: PathBuf, bytes: u64, sha256: String) -> Self {
        let closed = Some(Content { bytes, modified: None, sha256 });
        Self { path, device: 0, inode: 0, created: None, closed }
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether both are the same file of the file system.
    pub fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode, self.created) == (other.device, other.inode, other.created)
    }

    /// Returns whether the file at `path` is this one, as the run left it.
    fn holds(&self, path: &Path, metadata: &Metadata) -> io::Result<bool> {
        let is_same = self.is_same_file(&Self::opened(path, metadata));
        let Some(closed) = &self.closed else {
            return Ok(is_same && begins_as_ours(path)?);
        };
        if metadata.len() != closed.bytes {
            return Ok(false);
        }
        let modified = metadata.modified().ok().and_then(nanoseconds);
        if is_same && modified.is_some() && modified == closed.modified {
            return Ok(true);
        }
        // A copy in its place, or one that was touched.
        if self.path != path && !is_same {
            return Ok(false);
        }
        let (_, sha256) = digest(&mut File::open(path)?)?;
        Ok(sha256 == closed.sha256)
    }
}

/// Whose output a file is to be.
#[derive(Debug, Clone, Default)]
pub struct Owner {
    files: Vec<WrittenFile>,
    is_simulated: bool,
    overwrites: bool,
}

impl Owner {
    /// Makes the owner of the files that a run has written.
    pub fn of(files: Vec<WrittenFile>) -> Self {
        Self { files, ..Self::default() }
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

    /// Checks that the content of the file at `path` may be replaced. Returns how many lines have to be written before
    /// that: a file which the run did not write is replaced by no fewer, unless all are written.
    ///
    /// # Errors
    /// [`Error::NotOwned`] and [`Error::RealAnswers`], and when the file cannot be read.
    pub fn check(&self, path: &Path) -> Result<u64, Error> {
        let name = || path.display().to_string();
        let failed = |source: io::Error| Error::Open { name: name(), source: Arc::new(source) };
        let metadata = match fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(failed(error)),
        };
        if !metadata.is_file() || metadata.len() == 0 {
            return Ok(0);
        }
        let real_path = path.canonicalize().map_err(failed)?;
        for file in &self.files {
            if file.holds(&real_path, &metadata).map_err(failed)? {
                return Ok(0);
            }
        }
        if !self.overwrites {
            return Err(Error::NotOwned { name: name() });
        }
        if self.is_simulated && holds_real_answers(path).map_err(failed)? {
            return Err(Error::RealAnswers { name: name() });
        }
        lines(path).map_err(failed)
    }
}

/// Returns the size of a file, and the SHA-256 of its content in hexadecimal.
pub fn digest(file: &mut File) -> io::Result<(u64, String)> {
    let mut all = Sha256::new();
    let mut bytes = 0;
    let mut block = vec![0; BLOCK];
    loop {
        match file.read(&mut block)? {
            0 => break,
            read => {
                all.update(&block[..read]);
                bytes += read as u64;
            }
        }
    }
    let sha256 = all.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((bytes, sha256))
}

fn begins_as_ours(path: &Path) -> io::Result<bool> {
    let mut beginning = Vec::new();
    File::open(path)?.take(64).read_to_end(&mut beginning)?;
    Ok(BEGINNINGS.iter().any(|ours| beginning.starts_with(ours) || ours.starts_with(&beginning)))
}

/// Returns whether the first line of a file is a result with real answers.
fn holds_real_answers(path: &Path) -> io::Result<bool> {
    let mut file = BufReader::new(File::open(path)?).take(2 * FIRST_LINE);
    let mut first = Vec::new();
    file.read_until(b'\n', &mut first)?;
    if let Ok(line) = serde_json::from_slice::<serde_json::Value>(&first) {
        return Ok(line.get("status").is_some() && line.get("practice") == Some(&false.into()));
    }
    let mut rows = csv::Reader::from_path(path)?;
    let column = rows.headers().ok().and_then(|header| header.iter().position(|name| name == "practice"));
    let row = rows.records().next().and_then(Result::ok);
    Ok(column.zip(row).is_some_and(|(column, row)| row.get(column) == Some("false")))
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

    #[test]
    fn a_file_that_is_not_there_or_empty_or_no_file_is_free() {
        let (folder, path) = folder();
        let nobody = Owner::default();
        assert_eq!(nobody.check(&path).unwrap(), 0);
        fs::write(&path, "").unwrap();
        assert_eq!(nobody.check(&path).unwrap(), 0);
        assert_eq!(nobody.check(Path::new("/dev/null")).unwrap(), 0);
        assert_eq!(nobody.check(folder.path()).unwrap(), 0);
        fs::write(&path, LINE).unwrap();
        assert!(is_refused(&nobody, &path));
        assert_eq!(nobody.overwriting(true).check(&path).unwrap(), 1);
    }

    #[test]
    fn a_file_under_way_is_known_by_its_identity_and_its_beginning() {
        let (_folder, path) = folder();
        fs::write(&path, LINE).unwrap();
        let owner = Owner::of(vec![WrittenFile::opened(&path, &fs::metadata(&path).unwrap())]);
        assert_eq!(owner.check(&path).unwrap(), 0);
        fs::write(&path, LINE.repeat(3)).unwrap();
        assert_eq!(owner.check(&path).unwrap(), 0, "the run has written on");
        fs::write(&path, "something of my own\n").unwrap();
        assert!(is_refused(&owner, &path));
        fs::rename(&path, path.with_extension("kept")).unwrap();
        fs::write(&path, LINE).unwrap();
        assert!(is_refused(&owner, &path), "another file with such a line");
    }

    #[test]
    fn a_closed_file_is_known_by_its_content_also_as_a_copy() {
        let (_folder, path) = folder();
        fs::write(&path, LINE).unwrap();
        let owner = Owner::of(vec![WrittenFile::closed(&path).unwrap().unwrap()]);
        assert_eq!(owner.check(&path).unwrap(), 0);
        let copy = path.with_extension("copy");
        fs::copy(&path, &copy).unwrap();
        assert!(is_refused(&owner, &copy), "a copy elsewhere is its owner's");
        fs::rename(&copy, &path).unwrap();
        assert_eq!(owner.check(&path).unwrap(), 0);
        fs::write(&path, LINE.replace('1', "2")).unwrap();
        assert!(is_refused(&owner, &path), "it was edited");
        let known = WrittenFile::with_content(path.clone(), 5, "no such digest".into());
        fs::write(&path, "12345").unwrap();
        assert!(is_refused(&Owner::of(vec![known]), &path));
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
            assert!(simulated.check(&path).unwrap() > 0, "{real}");
        }
        fs::write(&path, "notes\n").unwrap();
        assert_eq!(simulated.check(&path).unwrap(), 1);
    }
}
