//! A table that is written at the end, from the lines in a spool.
//!
//! The spool has no name, so that nothing is left of it if the process is killed. It takes about as much space as JSON
//! lines, in the folder of the output.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use super::atomic_file::ReplacementFile;
use super::encoder_slot::EncoderSlot;

/// A file that a table replaces at the end.
pub(super) struct TableFile {
    pub(super) replacement: ReplacementFile,
    /// The file beside it, to which the table is written.
    pub(super) file: File,
    pub(super) slot: Arc<EncoderSlot>,
}

impl TableFile {
    /// Writes the table of the lines in `spool`, and puts it in place of the file. Returns its size in bytes.
    pub(super) fn commit(self, spool: &File) -> io::Result<u64> {
        let Self { replacement, file, slot } = self;
        if let Some(table) = slot.table() {
            file.set_len(0)?;
            table.write(spool, &file)?;
        }
        let bytes = file.metadata()?.len();
        replacement.commit(Some(&file))?;
        Ok(bytes)
    }
}

/// Creates a spool in the folder of `path`, and returns two handles to it.
pub(super) fn create_spool(path: &Path) -> io::Result<(File, File)> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let spool = tempfile::tempfile_in(folder)?;
    let second_handle = spool.try_clone()?;
    Ok((spool, second_handle))
}
