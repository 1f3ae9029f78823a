//! Decides which files a run may replace: those that it has written, and others only if the user asked for it.
//!
//! A file is identified by its device, inode and creation time. They are recorded before the first byte is
//! written, so a resumed run recognizes the file of a killed one. A copy is a different file.

use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Error;

/// Bytes that are read at once.
const READ_BLOCK_BYTES: usize = 1 << 20;

/// Beginnings of the files that a run writes: a result, a reject, a report, the CSV header of earlier versions, or a
/// Parquet file. Another program may have written to the file since.
const KNOWN_PREFIXES: [&[u8]; 5] = [b"{\"key\":", b"{\"line\":", b"{\n  \"", CSV_PREFIX, PARQUET_MAGIC];

/// Beginnings of a line of a run in JSON: a result, or a reject.
const LINE_PREFIXES: [&[u8]; 2] = [b"{\"key\":", b"{\"line\":"];

/// Beginning of the CSV header of earlier versions.
const CSV_PREFIX: &[u8] = b"key,line,status,";

/// Beginning and end of a Parquet file.
const PARQUET_MAGIC: &[u8] = b"PAR1";

/// The key of the metadata of a Parquet file with results of which some may be simulated.
#[cfg(feature = "parquet")]
pub(super) const SIMULATED_PARQUET_KEY: &str = "pointsman.simulated_results";

/// The key of the metadata of a Parquet file with real results.
pub(super) const REAL_PARQUET_KEY: &str = "pointsman.real_results";

/// Most bytes of the metadata of a Parquet file that are searched. They grow with its groups of rows.
const MAX_PARQUET_METADATA_BYTES: u64 = 256 << 20;

/// Most bytes of a table without rows: of the names of its columns.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// Bytes at the beginning of a file by which it is recognized.
const BEGINNING_BYTES: usize = 64;

/// Identity of a file that a run has written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WrittenFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// Nanoseconds since 1970, if the file system has it. An inode is reused after its file is removed.
    created: Option<u64>,
    /// The first bytes of its header, which begins with the names of the input's fields; empty if it begins as the files of
    /// all runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    beginning: Vec<u8>,
    /// The length with which the run has left it; `None` while it is written, or if that is not known. What is longer has an
    /// addition of another program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

impl WrittenFile {
    /// Returns the identity of the file at `path` with `metadata`.
    pub(super) fn of(path: &Path, metadata: &Metadata) -> Self {
        let (device, inode) = device_and_inode(metadata);
        let created = metadata.created().ok().and_then(nanoseconds);
        Self { path: path.to_owned(), device, inode, created, beginning: Vec::new(), bytes: None }
    }

    /// Sets the header with which the run begins the file.
    pub(super) fn set_beginning(&mut self, header: &[u8]) {
        self.beginning = header[..header.len().min(BEGINNING_BYTES)].to_vec();
    }

    /// Returns whether the run begins both in the same way.
    pub(crate) fn begins_like(&self, other: &Self) -> bool {
        self.beginning == other.beginning
    }

    /// Returns the file with the beginning of another state of it.
    #[must_use]
    pub(crate) fn with_beginning_of(self, other: &Self) -> Self {
        Self { beginning: other.beginning.clone(), ..self }
    }

    /// Returns the length with which the run has left the file, if that is known.
    pub(crate) fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// Sets the length with which the run has left the file.
    #[must_use]
    pub(crate) fn with_bytes(self, bytes: Option<u64>) -> Self {
        Self { bytes, ..self }
    }

    /// Returns the file with the beginning and the length that it has now.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn with_present_content(self) -> io::Result<Self> {
        let bytes = fs::metadata(&self.path)?.len();
        let mut beginning = beginning_of(&self.path)?;
        if KNOWN_PREFIXES.iter().any(|prefix| beginning.starts_with(prefix)) {
            beginning.clear();
        }
        Ok(Self { beginning, bytes: Some(bytes), ..self })
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
    /// [`Error::NotOwned`], [`Error::Extended`] and [`Error::RealAnswers`], and if the file cannot be read.
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
        let mut is_extended = false;
        let mut own = self.files.iter().filter(|known| known.is_same_file(&file)).peekable();
        if own.peek().is_some() {
            let beginning = beginning_of(path).map_err(failed)?;
            for known in own.filter(|known| begins_as_written(known, &beginning)) {
                let left = known.bytes.filter(|bytes| metadata.len() > *bytes);
                match left {
                    Some(left) if !is_partial_line(path, left).map_err(failed)? => is_extended = true,
                    Some(_) | None => return Ok(Replacement::default()),
                }
            }
        }
        let file = ReplaceableFile::of(file, &metadata);
        if !self.overwrites && !self.replaceable.contains(&file) {
            if is_extended {
                return Err(Error::Extended { name: name() });
            }
            if !is_table_without_rows(path, &metadata).map_err(failed)? {
                return Err(Error::NotOwned { name: name() });
            }
        }
        // A file beside it takes its place, so that the run that wrote it does not own the new one.
        Ok(Replacement { lines: count_lines(path).map_err(failed)?.max(1), file: Some(file) })
    }
}

/// Returns whether what follows the first `start` bytes of a file is the beginning of one line of a run, as a write that was
/// cut off leaves it.
fn is_partial_line(path: &Path, start: u64) -> io::Result<bool> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(start))?;
    let mut rest = Vec::new();
    file.take(READ_BLOCK_BYTES as u64).read_to_end(&mut rest)?;
    let is_begun = LINE_PREFIXES.iter().any(|prefix| rest.starts_with(prefix) || prefix.starts_with(&rest));
    Ok(is_begun && !rest.contains(&b'\n'))
}

fn beginning_of(path: &Path) -> io::Result<Vec<u8>> {
    let mut beginning = Vec::new();
    File::open(path)?.take(BEGINNING_BYTES as u64).read_to_end(&mut beginning)?;
    Ok(beginning)
}

/// Returns whether the beginning of a file is one that the run has written to it.
fn begins_as_written(known: &WrittenFile, beginning: &[u8]) -> bool {
    // Where writes do not append, they leave zeros at the beginning of a file that was truncated before.
    let is_gap = beginning.iter().all(|byte| *byte == 0);
    let fits = |prefix: &[u8]| beginning.starts_with(prefix) || prefix.starts_with(beginning);
    match known.beginning.as_slice() {
        [] => is_gap || KNOWN_PREFIXES.iter().any(|prefix| fits(prefix)),
        written => is_gap || fits(written),
    }
}

/// The field that marks simulated answers, and the name that earlier builds used.
const SIMULATED_FIELDS: [&str; 2] = ["simulated", "practice"];

/// The columns that, with `status`, show that a table is that of a run.
const ERROR_COLUMNS: [&str; 2] = ["error", "error_class"];

/// Returns whether a file is a run's output with real answers. All answers of a run are real or none is, so the
/// first completed item decides.
fn holds_real_answers(path: &Path) -> io::Result<bool> {
    let mut file = BufReader::new(File::open(path)?);
    if file.fill_buf()?.starts_with(PARQUET_MAGIC) {
        return is_real_parquet(file.into_inner());
    }
    let mut line = Vec::new();
    file.read_until(b'\n', &mut line)?;
    if !line.starts_with(b"{") {
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

/// Returns whether a Parquet file has real results. It searches the metadata, so it needs no reader of the format.
fn is_real_parquet(mut file: File) -> io::Result<bool> {
    let size = file.metadata()?.len();
    let Some(end) = size.checked_sub(8) else { return Ok(false) };
    file.seek(SeekFrom::Start(end))?;
    let mut footer = [0; 8];
    file.read_exact(&mut footer)?;
    let [a, b, c, d, ..] = footer;
    let length = u64::from(u32::from_le_bytes([a, b, c, d]));
    let Some(start) = end.checked_sub(length).filter(|_| length <= MAX_PARQUET_METADATA_BYTES) else {
        return Ok(false);
    };
    file.seek(SeekFrom::Start(start))?;
    let mut metadata = Vec::new();
    file.take(length).read_to_end(&mut metadata)?;
    let key = REAL_PARQUET_KEY.as_bytes();
    Ok(metadata.windows(key.len()).any(|window| window == key))
}

/// Returns whether a header is that of a table of results.
fn is_header_of_run(header: &csv::StringRecord) -> bool {
    let has = |name: &str| header.iter().any(|found| found == name);
    let has_error = ERROR_COLUMNS.iter().any(|name| has(name));
    // That of an earlier version begins with the key, too.
    let is_minimal = header.get(0) == Some("key") && header.len() > 1;
    has("status") && (has_error || has(SIMULATED_FIELDS[0])) || is_minimal
}

/// Returns whether a file is a table of results that has no row: what a run leaves that ended before its first line.
fn is_table_without_rows(path: &Path, metadata: &Metadata) -> io::Result<bool> {
    if metadata.len() > MAX_HEADER_BYTES {
        return Ok(false);
    }
    let mut rows = csv::ReaderBuilder::new().flexible(true).from_path(path)?;
    let Ok(header) = rows.headers().cloned() else { return Ok(false) };
    Ok(is_header_of_run(&header) && rows.byte_records().next().is_none())
}

/// Returns whether a file is a table of results with real answers. Only a table of a simulated run, or one with all
/// columns, has the column that says so. A table of another program may look like one of a run: then it is not
/// replaced.
fn has_real_rows(path: &Path) -> io::Result<bool> {
    let mut rows = csv::ReaderBuilder::new().flexible(true).from_path(path)?;
    let Ok(header) = rows.headers().cloned() else { return Ok(false) };
    let column = |name: &str| header.iter().position(|found| found == name);
    let is_of_earlier_version = header.iter().take(3).eq(["key", "line", "status"]);
    let simulated_fields = if is_of_earlier_version { &SIMULATED_FIELDS[..] } else { &SIMULATED_FIELDS[..1] };
    let simulated = simulated_fields.iter().find_map(|field| column(field));
    let status = column("status");
    if !is_header_of_run(&header) {
        return Ok(false);
    }
    let is_simulated =
        |row: &csv::StringRecord| simulated.is_some_and(|column| row.get(column) == Some("true"));
    for row in rows.records() {
        let Ok(row) = row else { return Ok(false) };
        let is_completed = match status {
            Some(column) => row.get(column) == Some("completed"),
            None => row.iter().skip(1).any(|cell| !cell.is_empty()),
        };
        if is_completed {
            return Ok(!is_simulated(&row));
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
    fn a_table_is_recognized_by_the_header_with_which_the_run_began_it() {
        let (_folder, path) = folder();
        let header = "text,note,answer,status,error,key\n";
        fs::write(&path, format!("{header}a,b,c,completed,,k\n")).unwrap();
        let mut file = WrittenFile::at(&path).unwrap().unwrap();
        assert!(is_refused(&OutputOwner::of(vec![file.clone()]), &path), "the header is not known");
        file.set_beginning(header.as_bytes());
        let owner = OutputOwner::of(vec![file.clone()]);
        assert_eq!(min_lines(&owner, &path), 0);
        fs::write(&path, format!("{header}a,b,c,completed,,k\n")).unwrap();
        assert_eq!(min_lines(&owner, &path), 0, "the run has written more");
        fs::write(&path, &header[..7]).unwrap();
        assert_eq!(min_lines(&owner, &path), 0, "its header is partial");
        fs::write(&path, "text,other\n").unwrap();
        assert!(is_refused(&owner, &path), "another program has written to it");
        let stored = serde_json::to_string(&file).unwrap();
        assert_eq!(serde_json::from_str::<WrittenFile>(&stored).unwrap(), file);
        // As an earlier version has stored it: without a header, and with the header of all runs.
        let mut earlier: Value = serde_json::from_str(&stored).unwrap();
        earlier.as_object_mut().unwrap().remove("beginning");
        let owner = OutputOwner::of(vec![serde_json::from_value(earlier).unwrap()]);
        fs::write(&path, "key,line,status,simulated,answer\n").unwrap();
        assert_eq!(min_lines(&owner, &path), 0);
    }

    #[test]
    fn a_file_to_which_another_program_has_added_is_refused_unless_the_user_asked_for_it() {
        let (_folder, path) = folder();
        let header = "text,answer,status,error,key\n";
        fs::write(&path, format!("{header}a,b,completed,,k\n")).unwrap();
        let bytes = fs::metadata(&path).unwrap().len();
        let mut file = WrittenFile::at(&path).unwrap().unwrap();
        file.set_beginning(header.as_bytes());
        let closed = file.clone().with_bytes(Some(bytes));
        let owner = OutputOwner::of(vec![closed.clone()]);
        assert_eq!(min_lines(&owner, &path), 0);
        let stored = serde_json::to_string(&closed).unwrap();
        assert_eq!(serde_json::from_str::<WrittenFile>(&stored).unwrap(), closed);
        let write = |rows: &str| fs::write(&path, format!("{header}a,b,completed,,k\n{rows}")).unwrap();
        write("mine,x,,,\n");
        assert!(matches!(owner.check(&path), Err(Error::Extended { .. })));
        assert_eq!(min_lines(&owner.clone().overwriting(true), &path), 3);
        write("{\"key\":\"i1");
        assert_eq!(min_lines(&owner, &path), 0, "a line of the run that was cut off");
        let opened_again = OutputOwner::of(vec![closed, file]);
        assert_eq!(
            min_lines(&opened_again, &path),
            0,
            "a session of the run that was killed has written to it"
        );
        fs::write(&path, header).unwrap();
        assert_eq!(min_lines(&owner, &path), 0, "it was truncated, so that nothing is lost");
    }

    #[test]
    fn a_table_without_rows_may_be_replaced_by_another_run_and_another_header_not() {
        let (_folder, path) = folder();
        let owner = OutputOwner::default();
        for header in ["text,answer,status,error,key\n", "key,answer\n", "\"a\nb\",answer,status,error\r\n"] {
            fs::write(&path, header).unwrap();
            let allowed = owner.check(&path).unwrap();
            assert!(
                allowed.lines > 0 && allowed.file.is_some(),
                "the new file is not that of the earlier run"
            );
            fs::write(&path, format!("{header}a,,failed,x,k\n")).unwrap();
            assert!(is_refused(&owner, &path), "{header}");
        }
        for header in ["text,name\n", "status\n", "key\n"] {
            fs::write(&path, header).unwrap();
            assert!(is_refused(&owner, &path), "{header}");
        }
    }

    #[test]
    fn real_answers_in_a_table_are_recognized_whatever_its_columns() {
        let (_folder, path) = folder();
        let simulated = OutputOwner::default().simulated(true).overwriting(true);
        for real in [
            "text,answer,status,error\na,,failed,x\na,b,completed,\n",
            "text,input.simulated,answer,status,error\na,true,b,completed,\n",
            &format!("text,{},answer,status,error\na,true,b,completed,\n", SIMULATED_FIELDS[1]),
            "text,answer,status,error,error_class,simulated\na,b,completed,,,false\n",
            "key,answer\n1,\n2,b\n",
        ] {
            fs::write(&path, real).unwrap();
            assert!(matches!(simulated.check(&path), Err(Error::RealAnswers { .. })), "{real}");
        }
        for free in [
            "text,answer,status,error,simulated\na,b,completed,,true\n",
            "key,answer,simulated\n1,b,true\n",
            "text,answer,status,error\na,,failed,x\n",
            "text,status\na,completed\n",
            "key\n1\n",
            "PAR1 no file of this format",
        ] {
            fs::write(&path, free).unwrap();
            assert!(simulated.check(&path).is_ok(), "{free}");
        }
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
