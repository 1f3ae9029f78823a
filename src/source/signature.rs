//! Recognizes files that are no text, by their first bytes.

/// What a file with certain first bytes is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileType {
    /// A zip archive, which a workbook of Excel is, too.
    Zip,
    /// A Parquet file.
    Parquet,
    /// Something that has no items. Holds what it looks like, and what to do.
    Other(&'static str, &'static str),
}

/// The advice for documents and images.
const NAME_AS_FILES: &str = "to process such files, one item per file, name their folder or a pattern such as \"scans/*.pdf\" as the items";

/// The advice for archives.
const UNPACK: &str = "unpack it and use the file in it";

/// First bytes of files.
const SIGNATURES: [(&[u8], FileType); 18] = [
    (b"PK\x03\x04", FileType::Zip),
    // A header of CSV could begin with the letters alone; a page header follows them.
    (b"PAR1\x15", FileType::Parquet),
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        FileType::Other(
            "a workbook of Excel 97 to 2003 (.xls), or another old Office file",
            "save it as .xlsx, or save the sheet as CSV UTF-8 and use that file",
        ),
    ),
    (b"%PDF-", FileType::Other("a PDF document", NAME_AS_FILES)),
    (b"\x89PNG\r\n\x1a\n", FileType::Other("a PNG image", NAME_AS_FILES)),
    (b"\xff\xd8\xff", FileType::Other("a JPEG image", NAME_AS_FILES)),
    (b"GIF89a", FileType::Other("a GIF image", NAME_AS_FILES)),
    (b"SQLite format 3\0", FileType::Other("an SQLite database", "export a table as CSV and use that file")),
    (b"{\\rtf", FileType::Other("a rich text document", "save it as plain text")),
    (b"Obj\x01", FileType::Other("an Avro file", "convert it to JSON lines or Parquet")),
    (b"ARROW1\0\0", FileType::Other("an Arrow file", "convert it to Parquet or JSON lines")),
    (b"BZh91AY&SY", FileType::Other("a bzip2 archive", UNPACK)),
    (b"\xfd7zXZ\0", FileType::Other("an xz archive", UNPACK)),
    (b"7z\xbc\xaf\x27\x1c", FileType::Other("a 7-Zip archive", UNPACK)),
    (b"Rar!\x1a\x07", FileType::Other("a RAR archive", UNPACK)),
    (b"\x1f\x8b\x08", FileType::Other("compressed twice", UNPACK)),
    (b"\x28\xb5\x2f\xfd", FileType::Other("compressed twice", UNPACK)),
    (b"\x7fELF", FileType::Other("a program", "name a file of items")),
];

impl FileType {
    /// Returns the type of a file with these first bytes; `None` if it may be text.
    pub(super) fn of(first: &[u8]) -> Option<Self> {
        let known = SIGNATURES.iter().find(|(signature, _)| first.starts_with(signature));
        known.map(|(_, file_type)| *file_type).or_else(|| Self::of_markup(first))
    }

    /// Returns the type of a document with tags; `None` if the text is no such document.
    fn of_markup(first: &[u8]) -> Option<Self> {
        let first = first.trim_ascii_start();
        let starts_with = |word: &str| {
            first.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()))
        };
        if starts_with("<!doctype html") || starts_with("<html") {
            let advice = "if you downloaded it, the address needs a login or shows a page about the file; download the \
                          file itself, or process pages one item per file by naming their folder as the items";
            return Some(Self::Other("a web page (HTML)", advice));
        }
        starts_with("<?xml").then_some(Self::Other("XML", "convert it to CSV or JSON lines"))
    }
}

/// Returns what a zip archive with files of these names is, and what to do; `None` if it is a workbook of Excel.
#[cfg(any(feature = "xlsx", test))]
pub(super) fn zip_contents<'n>(names: impl Iterator<Item = &'n str>) -> Option<(&'static str, &'static str)> {
    let mut of_document = None;
    for name in names {
        match name {
            "xl/workbook.xml" => return None,
            "xl/workbook.bin" => {
                of_document =
                    Some(("a binary workbook of Excel (.xlsb)", "save it as .xlsx or as CSV UTF-8"));
            }
            "word/document.xml" => of_document = Some(("a Word document", "save it as PDF or plain text")),
            "ppt/presentation.xml" => of_document = Some(("a PowerPoint presentation", "save it as PDF")),
            "mimetype" => {
                of_document = Some((
                    "an OpenDocument file or e-book",
                    "save a sheet as .xlsx or CSV UTF-8, a text as PDF",
                ));
            }
            _ => {}
        }
    }
    Some(of_document.unwrap_or(("a zip archive", UNPACK)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_is_recognized_and_text_is_not() {
        for (first, look) in [
            (&b"%PDF-1.7\n"[..], "a PDF document"),
            (b"\x89PNG\r\n\x1a\n....", "a PNG image"),
            (b"SQLite format 3\0....", "an SQLite database"),
            (b"\n <!DOCTYPE HTML>", "a web page (HTML)"),
            (
                b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
                "a workbook of Excel 97 to 2003 (.xls), or another old Office file",
            ),
        ] {
            let Some(FileType::Other(found, _)) = FileType::of(first) else { panic!("{look}") };
            assert_eq!(found, look);
        }
        for text in [
            &b"id,text\n1,<html>"[..],
            b"{\"id\": 1}",
            b"PDF,PNG\n",
            b"PAR1,ORC,GIF8,BZh\n",
            b"<text>,b\n",
            b"",
        ] {
            assert_eq!(FileType::of(text), None, "{text:?}");
        }
    }

    #[test]
    fn an_archive_is_named_by_its_contents() {
        assert_eq!(zip_contents(["[Content_Types].xml", "xl/workbook.xml"].into_iter()), None);
        let word = zip_contents(["[Content_Types].xml", "word/document.xml"].into_iter()).unwrap();
        assert_eq!(word.0, "a Word document");
        assert_eq!(zip_contents(["a.csv"].into_iter()).unwrap().0, "a zip archive");
    }
}
