//! Checks that the parts of a workbook fit into memory, before the crate that reads workbooks opens it.
//!
//! The directory of the archive has the size of each part. It may be wrong, so a part that the crate keeps in memory is
//! decompressed once to count its bytes; so is a sheet that may have more than its limit by its compressed size.

use std::io::{self, Read, Seek};

use zip::ZipArchive;
use zip::result::ZipError;

/// Most bytes of a part that is read into memory as a whole, such as the shared texts.
const MAX_WHOLE_BYTES: u64 = 512 << 20;

/// Most bytes of any other part, such as a sheet, which is read cell by cell.
const MAX_PART_BYTES: u64 = 4 << 30;

/// Up to this size, a part may be compressed to any degree.
const MAX_BYTES_OF_ANY_RATIO: u64 = 100 << 20;

/// How many times larger than its compressed data such a part may be. Excel reaches about 50.
const MAX_RATIO: u64 = 200;

/// How many times larger than its compressed data a part can be with the method of zip.
const MAX_RATIO_OF_DEFLATE: u64 = 1_032;

/// Fewest bytes that a shared text takes: `<si/>`.
const MIN_TEXT_BYTES: u64 = 5;

/// So many texts may be announced by any part. A text of the user may look like the attribute, too.
const MAX_TEXTS_OF_ANY_PART: u64 = 1_000_000;

/// Why a workbook is not read.
pub(super) enum PartError {
    /// The archive cannot be read.
    Zip(ZipError),
    /// A part is too large, or its size is not credible.
    Refused(String),
}

impl From<ZipError> for PartError {
    fn from(error: ZipError) -> Self {
        Self::Zip(error)
    }
}

/// Checks all parts of a workbook.
pub(super) fn check(archive: &mut ZipArchive<impl Read + Seek>) -> Result<(), PartError> {
    for index in 0..archive.len() {
        let part = archive.by_index_raw(index)?;
        let name = String::from_utf8_lossy(part.name_raw()).into_owned();
        let size = part.size();
        let compressed_size = part.compressed_size();
        drop(part);
        let is_whole = is_whole(&name);
        check_size(&name, is_whole, size, compressed_size)?;
        let max = if is_whole { MAX_WHOLE_BYTES } else { MAX_PART_BYTES };
        let may_exceed = compressed_size.saturating_mul(MAX_RATIO_OF_DEFLATE) > max;
        if is_whole || may_exceed {
            let counted = count(archive.by_index(index)?, max).map_err(ZipError::from)?;
            check_size(&name, is_whole, counted.bytes, compressed_size)?;
            // The crate reserves memory for so many texts.
            if counted.announced_texts > MAX_TEXTS_OF_ANY_PART.max(counted.bytes / MIN_TEXT_BYTES) {
                return Err(PartError::Refused(format!(
                    "the part {name:?} of the workbook announces {} texts, and cannot have so many; open it in Excel and \
                     save it again, or save the sheet as CSV UTF-8 and use that file",
                    counted.announced_texts
                )));
            }
        }
    }
    Ok(())
}

/// Returns whether a part is read into memory as a whole.
fn is_whole(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["sharedstrings.xml", "styles.xml", "workbook.xml", ".rels"].iter().any(|end| name.ends_with(end))
}

/// Checks the size of a part.
fn check_size(name: &str, is_whole: bool, size: u64, compressed_size: u64) -> Result<(), PartError> {
    let advice = "save the sheet as CSV UTF-8 and use that file";
    let max = if is_whole { MAX_WHOLE_BYTES } else { MAX_PART_BYTES };
    if size > max {
        return Err(PartError::Refused(format!(
            "the part {name:?} of the workbook has more than {max} bytes, the most that are read; {advice}"
        )));
    }
    if size > MAX_BYTES_OF_ANY_RATIO && size / MAX_RATIO > compressed_size {
        return Err(PartError::Refused(format!(
            "the part {name:?} of the workbook is more than {MAX_RATIO} times larger than its {compressed_size} compressed \
             bytes, as in files that are made to fill the memory; {advice}"
        )));
    }
    Ok(())
}

/// What decompressing a part shows.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counted {
    bytes: u64,
    /// The largest number of texts in an attribute `uniqueCount`.
    announced_texts: u64,
}

/// Decompresses a part, up to the first byte above `max`.
fn count(part: impl Read, max: u64) -> io::Result<Counted> {
    let mut part = part.take(max.saturating_add(1));
    let mut buffer = vec![0; 1 << 16];
    let mut scan = AttributeScan::default();
    let mut bytes = 0;
    loop {
        let length = part.read(&mut buffer)?;
        if length == 0 {
            break;
        }
        bytes += length as u64;
        for byte in &buffer[..length] {
            scan.next(*byte);
        }
    }
    // A number at the very end is in no attribute: it has no quote after it.
    Ok(Counted { bytes, announced_texts: scan.max })
}

/// Finds the values of an attribute, wherever it is.
#[derive(Default)]
struct AttributeScan {
    /// How many letters of the name and what follows it were read.
    matched: usize,
    value: u64,
    max: u64,
}

impl AttributeScan {
    const NAME: &[u8] = b"uniqueCount";
    const AFTER_NAME: usize = Self::NAME.len();
    const AFTER_EQUALS: usize = Self::AFTER_NAME + 1;
    const IN_VALUE: usize = Self::AFTER_NAME + 2;

    fn next(&mut self, byte: u8) {
        match (self.matched, byte) {
            (Self::AFTER_NAME | Self::AFTER_EQUALS, b' ' | b'\t' | b'\r' | b'\n') => return,
            (Self::AFTER_NAME, b'=') | (Self::AFTER_EQUALS, b'"' | b'\'') => {
                self.matched += 1;
                return;
            }
            (Self::IN_VALUE, b'0'..=b'9') => {
                self.value = self.value.saturating_mul(10).saturating_add(u64::from(byte - b'0'));
                return;
            }
            (Self::IN_VALUE, _) => {
                self.max = self.max.max(self.value);
                self.value = 0;
                self.matched = 0;
            }
            (_, _) => {}
        }
        // White space precedes a name, so that no name begins within a part of it.
        self.matched = match Self::NAME.get(self.matched) {
            Some(expected) if *expected == byte => self.matched + 1,
            Some(_) | None => usize::from(Some(&byte) == Self::NAME.first()),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str, size: u64, compressed_size: u64) -> String {
        match check_size(name, is_whole(name), size, compressed_size) {
            Ok(()) => String::new(),
            Err(PartError::Refused(reason)) => reason,
            Err(PartError::Zip(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn a_part_has_a_limit_by_how_it_is_read_and_by_its_ratio() {
        let texts = "xl/sharedStrings.xml";
        let sheet = "xl/worksheets/sheet1.xml";
        assert_eq!(refusal(texts, 512 << 20, 50 << 20), "");
        assert!(refusal(texts, (512 << 20) + 1, 50 << 20).contains("more than 536870912 bytes"));
        assert_eq!(refusal(sheet, 4 << 30, 100 << 20), "");
        assert!(refusal(sheet, (4 << 30) + 1, 100 << 20).contains("more than 4294967296 bytes"));
        assert_eq!(refusal(sheet, 100 << 20, 1000), "");
        assert_eq!(refusal(sheet, 200 << 20, 1 << 20), "");
        assert!(refusal(sheet, 201 << 20, 1 << 20).contains("more than 200 times larger"));
    }

    #[test]
    fn the_bytes_and_the_announced_texts_are_counted_whatever_the_directory_says() {
        let count = |text: &str, max| count(text.as_bytes(), max).unwrap();
        assert_eq!(count("12345", 3), Counted { bytes: 4, announced_texts: 0 });
        for (text, announced_texts) in [
            ("<sst uniqueCount=\"70\"><si/>", 70),
            (
                "<!-- uniqueCount=\"1\" --><sst count='5' uniqueCount\n =\n '99999999999999999999999'>",
                u64::MAX,
            ),
            ("<si><t>uniqueCount 7, uniqueCount=8</t></si>", 0),
            ("<si><t>uniqueCounuu</t></si><sst uniqueCount='012'>", 12),
            ("<si><t>uniqueCount</t></si><sst uniqueCount=\"9\">", 9),
            ("<sst count=\"5\"/>", 0),
        ] {
            assert_eq!(count(text, 1 << 20).announced_texts, announced_texts, "{text}");
        }
    }
}
