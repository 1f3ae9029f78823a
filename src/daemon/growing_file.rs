//! A file of items that grows while a run reads it.
//!
//! An item is on the disk before its sender is answered. Items that come at the same time share one write and one sync. The
//! reader never sees a line that is not on the disk, and waits at the end until the file is closed.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use serde_json::Value;
use tokio::sync::oneshot;

use crate::files;
use crate::source::ValueError;

use super::error::Error;

/// The most lines that are written at once.
const MAX_BATCH: usize = 1_024;

/// Appends items to the file. When it is dropped, the file is closed.
#[derive(Debug)]
pub(super) struct GrowingFile {
    appends: mpsc::Sender<Append>,
}

/// A line to append, and who waits until it is on the disk.
struct Append {
    line: Vec<u8>,
    done: oneshot::Sender<Result<u64, Arc<io::Error>>>,
}

/// What of the file is on the disk.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<Written>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Written {
    bytes: u64,
    is_closed: bool,
}

/// Reads the items of the file in their order, and waits for more until the file is closed.
pub(super) struct GrowingItems {
    file: BufReader<File>,
    shared: Arc<Shared>,
    bytes: u64,
    line: u64,
}

impl GrowingFile {
    /// Creates the file at `path`, and what reads it.
    pub(super) fn create(path: &Path) -> Result<(Self, GrowingItems), Error> {
        let doing = || "create a file for the items".to_owned();
        let mut options = files::owner_only_options();
        let file = options.append(true).create_new(true).open(path).map_err(Error::io(doing()))?;
        files::sync_folder_of(path).map_err(Error::io(doing()))?;
        let reader = File::open(path).map_err(Error::io(doing()))?;
        let shared = Arc::<Shared>::default();
        let (appends, received) = mpsc::channel();
        let of_writer = shared.clone();
        let thread =
            thread::Builder::new().name("items".into()).spawn(move || write_all(file, &received, &of_writer));
        thread.map_err(Error::io("start a thread for the items"))?;
        let items = GrowingItems { file: BufReader::new(reader), shared, bytes: 0, line: 0 };
        Ok((Self { appends }, items))
    }

    /// Appends an item, and returns the number of its line when it is on the disk.
    ///
    /// # Errors
    /// If the disk fails or is full. The file then has no part of the item.
    pub(super) async fn append(&self, item: &Value) -> Result<u64, Error> {
        let mut line = serde_json::to_vec(item).map_err(|error| Error::invalid(error.to_string()))?;
        line.push(b'\n');
        let (done, written) = oneshot::channel();
        let failed = |source: io::Error| Error::Io { doing: "write the item".to_owned(), source };
        let ended = || failed(io::Error::other("the thread that writes it has ended"));
        self.appends.send(Append { line, done }).map_err(|_| ended())?;
        let written = written.await.map_err(|_| ended())?;
        written.map_err(|error| failed(io::Error::new(error.kind(), error.to_string())))
    }
}

/// Writes what arrives until the file is closed.
fn write_all(mut file: File, appends: &mpsc::Receiver<Append>, shared: &Shared) {
    let mut bytes = 0;
    let mut lines = 0;
    while let Ok(first) = appends.recv() {
        let mut batch = vec![first];
        while batch.len() < MAX_BATCH
            && let Ok(next) = appends.try_recv()
        {
            batch.push(next);
        }
        let block: Vec<u8> = batch.iter().flat_map(|append| append.line.iter().copied()).collect();
        let written = file.write_all(&block).and_then(|()| file.sync_data());
        match written {
            Ok(()) => {
                bytes += block.len() as u64;
                {
                    let mut state = shared.lock();
                    state.bytes = bytes;
                }
                shared.changed.notify_all();
                for append in batch {
                    lines += 1;
                    // The sender may have gone; its item is processed all the same.
                    drop(append.done.send(Ok(lines)));
                }
            }
            Err(error) => {
                // What was written in part must not be read. If this fails too, the reader still stops before it.
                let _ = file.set_len(bytes);
                let error = Arc::new(error);
                batch.into_iter().for_each(|append| drop(append.done.send(Err(error.clone()))));
            }
        }
    }
    shared.lock().is_closed = true;
    shared.changed.notify_all();
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Written> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until more than `bytes` are on the disk, or the file is closed. Returns whether there are more.
    fn wait_for_more(&self, bytes: u64) -> bool {
        let waiting = self.changed.wait_while(self.lock(), |state| state.bytes <= bytes && !state.is_closed);
        waiting.unwrap_or_else(PoisonError::into_inner).bytes > bytes
    }
}

impl Iterator for GrowingItems {
    type Item = Result<(u64, Value), ValueError>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.shared.wait_for_more(self.bytes) {
            return None;
        }
        Some(self.read_line())
    }
}

impl GrowingItems {
    fn read_line(&mut self) -> Result<(u64, Value), ValueError> {
        let mut line = Vec::new();
        self.file.read_until(b'\n', &mut line)?;
        self.bytes += line.len() as u64;
        self.line += 1;
        Ok((self.line, serde_json::from_slice(&line)?))
    }
}

/// Removes a line that a crash has left without its end. It was never acknowledged.
///
/// # Errors
/// If the file cannot be read or shortened.
pub(super) fn remove_partial_line(path: &Path) -> io::Result<()> {
    let mut file = File::options().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let mut end = length;
    let mut block = vec![0; 64 << 10];
    while end > 0 {
        let start = end.saturating_sub(block.len() as u64);
        let size = usize::try_from(end - start).unwrap_or(block.len());
        file.seek(SeekFrom::Start(start))?;
        io::Read::read_exact(&mut file, &mut block[..size])?;
        if let Some(at) = block[..size].iter().rposition(|byte| *byte == b'\n') {
            end = start + at as u64 + 1;
            break;
        }
        end = start;
    }
    if end < length {
        file.set_len(end)?;
        file.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn items_are_read_in_order_while_the_file_grows_and_the_end_comes_when_it_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let (file, items) = GrowingFile::create(&folder.path().join("items")).unwrap();
        let reader = thread::spawn(move || items.map(Result::unwrap).collect::<Vec<_>>());
        let appended = (0..50).map(|id| {
            let file = &file;
            async move { file.append(&json!({ "id": id })).await.unwrap() }
        });
        let lines = futures_util::future::join_all(appended).await;
        assert_eq!(lines, (1..=50).collect::<Vec<u64>>());
        drop(file);
        let read = reader.join().unwrap();
        assert_eq!(read, (0..50).map(|id| (id + 1, json!({ "id": id }))).collect::<Vec<_>>());
    }

    #[test]
    fn a_line_without_its_end_is_removed_and_complete_lines_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("items");
        let long = "x".repeat(200_000);
        for (before, after) in [
            ("", ""),
            ("{\"a\"", ""),
            ("{}\n", "{}\n"),
            ("{}\n{\"a\"", "{}\n"),
            (&*format!("{{}}\n{long}"), "{}\n"),
            (&*format!("{long}\n{long}"), &*format!("{long}\n")),
        ] {
            std::fs::write(&path, before).unwrap();
            remove_partial_line(&path).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), after);
        }
    }
}
