//! Makes one item of each file of a selection.
//!
//! An item has the fields `id` (the path in the folder, which is its key), `path` (the whole path, which `attach` takes) and
//! `name`; and `text`, unless it is a PDF, an image or an audio file by its name. A file that is too large or no text is a
//! reject that names it, and so is a link to another place. One file is in memory at a time.

use std::io::Read;
use std::path::Path;

use serde_json::{Map, Value};

use super::file_selection::{FileSelection, FoundFile};
use super::ingest::{Ingest, RawRecord, ReadStop};
use super::utf16::{ByteOrder, Utf16Reader};
use crate::files::beneath::open_beneath;

/// Extensions of files that are attached and are no text.
const ATTACHED: [&str; 11] = ["pdf", "png", "jpg", "jpeg", "gif", "webp", "mp3", "wav", "ogg", "flac", "m4a"];

/// How an SQLite database begins.
const DATABASE_START: &[u8] = b"SQLite format 3\0";

/// Reads the files of a selection. A text has at most `limit` bytes.
pub(super) fn read(selection: &FileSelection, limit: usize, ingest: &mut Ingest) -> Result<(), ReadStop> {
    for (number, file) in (1..).zip(selection.walk()) {
        let file = file.map_err(|error| ingest.unreadable(error.to_string()))?;
        let record = RawRecord { line: number, bytes: None, length: 0, end: number };
        match item(selection, &file, limit) {
            Ok(item) => ingest.value(record, Value::Object(item))?,
            Err(reason) => {
                let shown = file.inside.to_string_lossy();
                let record =
                    RawRecord { bytes: Some(shown.as_bytes()), length: shown.len() as u64, ..record };
                ingest.reject(record, format!("is the file {shown:?}, which {reason}"), None)?;
            }
        }
    }
    Ok(())
}

/// Returns the item of a file, or why it is none.
fn item(selection: &FileSelection, file: &FoundFile, limit: usize) -> Result<Map<String, Value>, String> {
    let inside = &file.inside;
    let target = file.target.as_deref().map_err(|reason| (*reason).to_owned())?;
    let path = selection.folder().join(inside);
    let (Some(id), Some(path_text)) = (inside.to_str(), path.to_str()) else {
        return Err("has a name that is not UTF-8; rename it".to_owned());
    };
    let name = inside.file_name().and_then(|name| name.to_str()).unwrap_or(id);
    let mut item = Map::new();
    item.insert("id".to_owned(), id.into());
    item.insert("path".to_owned(), path_text.into());
    item.insert("name".to_owned(), name.into());
    let extension = inside.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    if !ATTACHED.iter().any(|attached| attached.eq_ignore_ascii_case(extension)) {
        item.insert("text".to_owned(), text(selection, target, limit)?.into());
    }
    Ok(item)
}

/// Returns the text of the file at a path in the folder without links.
fn text(selection: &FileSelection, target: &Path, limit: usize) -> Result<String, String> {
    let failed = |error| format!("cannot be read: {error}");
    let file = open_beneath(selection.folder(), target).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    // Another file may have got its name meanwhile.
    if !metadata.is_file() || selection.is_used(&selection.folder().join(target), &metadata) {
        return Err("was replaced while the folder was read".to_owned());
    }
    let length = metadata.len();
    let too_long = |length: u64| format!("has {length} bytes, and a text may have {limit}; divide it");
    if length > limit as u64 {
        return Err(too_long(length));
    }
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > limit {
        return Err(too_long(bytes.len() as u64));
    }
    if bytes.starts_with(DATABASE_START) {
        return Err("is an SQLite database".to_owned());
    }
    let bytes = match ByteOrder::of_mark(&bytes) {
        Some(order) => {
            let mut decoded = Vec::new();
            Utf16Reader::new(&bytes[..], order).read_to_end(&mut decoded).map_err(failed)?;
            decoded
        }
        None => bytes,
    };
    let text = String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    let text =
        text.ok_or("is neither text in UTF-8 nor a PDF, an image or an audio file by its extension")?;
    Ok(text.strip_prefix('\u{feff}').map_or_else(|| text.clone(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use serde_json::json;

    use super::*;

    #[test]
    fn a_text_is_in_the_item_and_a_document_only_by_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a.md"), "\u{feff}# Größe").unwrap();
        fs::write(at("b.PDF"), b"%PDF-\xff").unwrap();
        fs::write(at("c.docx"), b"PK\x03\x04\xff").unwrap();
        fs::write(at("d.txt"), "x".repeat(101)).unwrap();
        let utf16: Vec<u8> = "\u{feff}Größe".encode_utf16().flat_map(u16::to_le_bytes).collect();
        fs::write(at("e.txt"), utf16).unwrap();
        fs::write(at("f.bak"), b"SQLite format 3\0").unwrap();
        let selection = FileSelection::of(folder.path()).unwrap().unwrap();
        let item = |name: &str| {
            let file = FoundFile { inside: name.into(), target: Ok(name.into()) };
            item(&selection, &file, 100).map(Value::Object)
        };
        let path = |name: &str| at(name).display().to_string();
        assert_eq!(
            item("a.md"),
            Ok(json!({ "id": "a.md", "path": path("a.md"), "name": "a.md", "text": "# Größe" }))
        );
        assert_eq!(item("b.PDF"), Ok(json!({ "id": "b.PDF", "path": path("b.PDF"), "name": "b.PDF" })));
        assert!(item("c.docx").unwrap_err().contains("neither text"));
        assert_eq!(item("d.txt").unwrap_err(), "has 101 bytes, and a text may have 100; divide it");
        assert_eq!(item("e.txt").unwrap()["text"], "Größe");
        assert_eq!(item("f.bak").unwrap_err(), "is an SQLite database");
    }

    #[test]
    #[cfg(unix)]
    fn a_file_that_is_replaced_before_it_is_opened_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("secret"), "secret").unwrap();
        let selection = FileSelection::of(folder.path()).unwrap().unwrap().without([at("secret").as_path()]);
        std::os::unix::fs::symlink(at("secret"), at("link.txt")).unwrap();
        fs::hard_link(at("secret"), at("same.txt")).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(at("pipe.txt")).status().unwrap().success());
        assert!(text(&selection, Path::new("link.txt"), 100).unwrap_err().starts_with("cannot be read"));
        for name in ["same.txt", "pipe.txt"] {
            let error = text(&selection, Path::new(name), 100).unwrap_err();
            assert_eq!(error, "was replaced while the folder was read", "{name}");
        }
    }
}
