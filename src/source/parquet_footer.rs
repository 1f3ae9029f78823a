//! Checks the schema in the footer of a Parquet file before the crate that reads the file parses it.
//!
//! The crate builds the tree of the schema with recursion, so that a file of some kilobytes whose schema is nested deeply
//! enough ends the process. This scan of the footer does not build anything. It reads the footer, which is a struct of the
//! compact protocol of Thrift, up to the end of the schema. The crate trusts the types of fields that it knows, and the scan
//! trusts the types that are written in the file, so the scan refuses a known field with another type: both then read the
//! same bytes as the same fields.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// Longest footer, in bytes.
const MAX_FOOTER_BYTES: u64 = 16 << 20;

/// Most levels of a schema.
const MAX_LEVELS: usize = 64;

/// Most columns of a schema.
const MAX_COLUMNS: usize = 10_000;

/// Most columns and groups of a schema. A list is a column in two groups.
const MAX_ELEMENTS: usize = 4 * MAX_COLUMNS;

/// Most structs and lists in one another within an element of the schema.
const MAX_VALUE_LEVELS: usize = 16;

/// Length of what follows the footer: its length and the letters `PAR1`.
const END_BYTES: u64 = 8;

/// Why the scan refuses a footer.
const NOT_USUAL: &str = "its footer is damaged, or not written as usual";

/// Checks the footer of a Parquet file. Returns why the file is not read.
pub(super) fn check(file: &mut File) -> Result<(), String> {
    let footer = read(file).map_err(|error| error.to_string())??;
    check_schema(&footer)
}

/// Returns the footer, or why it is not read.
fn read(file: &mut File) -> io::Result<Result<Vec<u8>, String>> {
    let length = file.seek(SeekFrom::End(0))?;
    let Some(end) = length.checked_sub(END_BYTES) else {
        return Ok(Err("it is too short".to_owned()));
    };
    file.seek(SeekFrom::Start(end))?;
    let mut end_bytes = [0; END_BYTES as usize];
    file.read_exact(&mut end_bytes)?;
    let [a, b, c, d, magic @ ..] = end_bytes;
    if magic == *b"PARE" {
        return Ok(Err("it is encrypted".to_owned()));
    }
    if magic != *b"PAR1" {
        return Ok(Err("it does not end with PAR1, so it is incomplete".to_owned()));
    }
    let footer_bytes = u64::from(u32::from_le_bytes([a, b, c, d]));
    if footer_bytes > MAX_FOOTER_BYTES {
        return Ok(Err(format!(
            "its footer has {footer_bytes} bytes, and at most {MAX_FOOTER_BYTES} are read"
        )));
    }
    let Some(start) = end.checked_sub(footer_bytes) else {
        return Ok(Err("its footer is longer than the file".to_owned()));
    };
    file.seek(SeekFrom::Start(start))?;
    let mut footer = vec![0; footer_bytes as usize];
    file.read_exact(&mut footer)?;
    file.rewind()?;
    Ok(Ok(footer))
}

/// Checks the schema, which is the second field of a footer after the version.
fn check_schema(footer: &[u8]) -> Result<(), String> {
    let mut scan = Scan { rest: footer };
    let elements = scan.schema_length().ok_or(NOT_USUAL)?;
    if elements > MAX_ELEMENTS {
        return Err(format!(
            "its schema has {elements} columns and groups, and at most {MAX_ELEMENTS} are read"
        ));
    }
    // The children of each group above that were not read.
    let mut missing: Vec<usize> = Vec::new();
    let mut columns = 0;
    for index in 0..elements {
        let children = scan.element().ok_or(NOT_USUAL)?;
        while missing.last() == Some(&0) {
            missing.pop();
        }
        match missing.last_mut() {
            Some(missing) => *missing -= 1,
            None if index == 0 => {}
            None => return Err(NOT_USUAL.to_owned()),
        }
        // The crate reserves memory for so many.
        if children > elements - index - 1 {
            return Err(NOT_USUAL.to_owned());
        }
        if children > 0 {
            missing.push(children);
        } else {
            columns += 1;
        }
        if missing.len() > MAX_LEVELS {
            return Err(format!("its schema has more than {MAX_LEVELS} levels"));
        }
        if columns > MAX_COLUMNS {
            return Err(format!("its schema has more than {MAX_COLUMNS} columns"));
        }
    }
    Ok(())
}

/// A type of the compact protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WireType {
    /// In a struct, the type of a field is its value.
    Bool,
    Byte,
    /// Integers of 16, 32 and 64 bits are written alike.
    Integer,
    Double,
    Binary,
    /// A list or a set.
    List,
    Map,
    Struct,
    Uuid,
}

impl WireType {
    fn of(code: u8) -> Option<Self> {
        match code {
            1 | 2 => Some(Self::Bool),
            3 => Some(Self::Byte),
            4..=6 => Some(Self::Integer),
            7 => Some(Self::Double),
            8 => Some(Self::Binary),
            9 | 10 => Some(Self::List),
            11 => Some(Self::Map),
            12 => Some(Self::Struct),
            13 => Some(Self::Uuid),
            _ => None,
        }
    }
}

/// What a struct is.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// An element of the schema.
    Element,
    /// The logical type of an element: a union with one field.
    LogicalType,
    /// The parameters of the logical type with this number.
    Parameters(i16),
    /// The unit of a time.
    TimeUnit,
    /// Something that the crate skips.
    Other,
}

impl Place {
    /// Returns the type of a field that the crate reads without a look at its type.
    fn expected(self, field: i16) -> Option<WireType> {
        match (self, field) {
            (Self::Element, 1..=3 | 5..=9) => Some(WireType::Integer),
            (Self::Element, 4) => Some(WireType::Binary),
            (Self::Element, 10) => Some(WireType::Struct),
            (Self::LogicalType, 1..=19) | (Self::TimeUnit, 1..=3) => Some(WireType::Struct),
            (Self::Parameters(5), 1 | 2) | (Self::Parameters(18), 2) => Some(WireType::Integer),
            (Self::Parameters(7 | 8), 1) | (Self::Parameters(10), 2) => Some(WireType::Bool),
            (Self::Parameters(7 | 8), 2) => Some(WireType::Struct),
            (Self::Parameters(10 | 16), 1) => Some(WireType::Byte),
            (Self::Parameters(17 | 18), 1) => Some(WireType::Binary),
            (Self::Element | Self::LogicalType | Self::Parameters(_) | Self::TimeUnit | Self::Other, _) => {
                None
            }
        }
    }

    /// Returns what the struct in a field is.
    fn inner(self, field: i16) -> Self {
        match (self, field) {
            (Self::Element, 10) => Self::LogicalType,
            (Self::LogicalType, number @ 1..=19) => Self::Parameters(number),
            (Self::Parameters(7 | 8), 2) => Self::TimeUnit,
            (Self::Element | Self::LogicalType | Self::Parameters(_) | Self::TimeUnit | Self::Other, _) => {
                Self::Other
            }
        }
    }
}

/// The part of a footer that was not read. `None` as a result stands for a footer that is damaged or not written as usual.
struct Scan<'a> {
    rest: &'a [u8],
}

impl Scan<'_> {
    /// Reads up to the elements of the schema. Returns their number.
    fn schema_length(&mut self) -> Option<usize> {
        let (version, wire_type) = self.field(0)??;
        if version != 1 || wire_type != WireType::Integer {
            return None;
        }
        self.integer()?;
        let (schema, wire_type) = self.field(version)??;
        if schema != 2 || wire_type != WireType::List {
            return None;
        }
        let (element_type, elements) = self.list()?;
        (element_type == WireType::Struct).then_some(elements)
    }

    /// Reads an element of the schema. Returns the number of its children.
    fn element(&mut self) -> Option<usize> {
        let mut children = None;
        let mut last = 0;
        while let Some((field, wire_type)) = self.field(last)? {
            if Place::Element.expected(field).is_some_and(|expected| expected != wire_type) {
                return None;
            }
            if field == 5 {
                if children.is_some() {
                    return None;
                }
                children = Some(usize::try_from(i32::try_from(self.integer()?).ok()?).ok()?);
            } else {
                self.skip(wire_type, Place::Element.inner(field), MAX_VALUE_LEVELS)?;
            }
            last = field;
        }
        Some(children.unwrap_or(0))
    }

    /// Skips a value.
    fn skip(&mut self, wire_type: WireType, place: Place, levels: usize) -> Option<()> {
        let levels = levels.checked_sub(1)?;
        match wire_type {
            WireType::Bool => {}
            WireType::Byte => self.bytes(1)?,
            WireType::Integer => {
                self.integer()?;
            }
            WireType::Double => self.bytes(8)?,
            WireType::Uuid => self.bytes(16)?,
            WireType::Binary => {
                let length = usize::try_from(self.unsigned()?).ok()?;
                self.bytes(length)?;
            }
            WireType::List => {
                let (element_type, elements) = self.list()?;
                for _ in 0..elements {
                    self.skip(element_type, Place::Other, levels)?;
                }
            }
            WireType::Map => {
                let entries = usize::try_from(self.unsigned()?).ok()?;
                let types = if entries == 0 { 0x33 } else { self.byte()? };
                let key_type = element_type(types >> 4)?;
                let value_type = element_type(types & 0xf)?;
                for _ in 0..entries {
                    self.skip(key_type, Place::Other, levels)?;
                    self.skip(value_type, Place::Other, levels)?;
                }
            }
            WireType::Struct => {
                let mut last = 0;
                while let Some((field, wire_type)) = self.field(last)? {
                    if place.expected(field).is_some_and(|expected| expected != wire_type) {
                        return None;
                    }
                    self.skip(wire_type, place.inner(field), levels)?;
                    last = field;
                }
            }
        }
        Some(())
    }

    /// Reads the number and the type of a field, where the field before it has the number `last`. Returns `Some(None)` at
    /// the end of a struct.
    fn field(&mut self, last: i16) -> Option<Option<(i16, WireType)>> {
        let header = self.byte()?;
        if header & 0xf == 0 {
            return Some(None);
        }
        let wire_type = WireType::of(header & 0xf)?;
        let step = i16::from(header >> 4);
        let field = if step == 0 { i16::try_from(self.integer()?).ok()? } else { last.checked_add(step)? };
        Some(Some((field, wire_type)))
    }

    /// Reads the type and the number of the elements of a list, each of which has a byte or more.
    fn list(&mut self) -> Option<(WireType, usize)> {
        let header = self.byte()?;
        if header == 0 {
            return Some((WireType::Byte, 0));
        }
        let elements = match header >> 4 {
            15 => usize::try_from(self.unsigned()?).ok()?,
            elements => usize::from(elements),
        };
        (elements <= self.rest.len()).then_some((element_type(header & 0xf)?, elements))
    }

    /// Reads a signed integer.
    fn integer(&mut self) -> Option<i64> {
        let number = self.unsigned()?;
        Some((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// Reads an unsigned integer, of at most 63 bits.
    fn unsigned(&mut self) -> Option<u64> {
        let mut number = 0;
        for index in 0..9 {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << (7 * index);
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    /// Skips bytes.
    fn bytes(&mut self, length: usize) -> Option<()> {
        self.rest = self.rest.get(length..)?;
        Some(())
    }
}

/// Returns the type of the elements of a list or a map. Truth values are refused: programs differ in whether they take a
/// byte, and a footer has no list of them.
fn element_type(code: u8) -> Option<WireType> {
    WireType::of(code).filter(|element_type| *element_type != WireType::Bool)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns an element of a schema with so many children.
    fn element(children: u32) -> Vec<u8> {
        // Field 3 is `repetition_type`, field 4 `name`.
        let mut bytes = vec![0x35, 0, 0x18, 1, b'a'];
        if children > 0 {
            bytes.push(0x15);
            bytes.extend(varint(children * 2));
        }
        bytes.push(0);
        bytes
    }

    fn varint(mut number: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        while number >= 0x80 {
            bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        bytes.push(number as u8);
        bytes
    }

    /// Returns the beginning of a footer whose schema has these elements.
    fn footer(elements: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = vec![0x15, 4, 0x19, 0xfc];
        bytes.extend(varint(elements.len() as u32));
        bytes.extend(elements.concat());
        bytes
    }

    /// Returns a schema of one column in so many levels, the root included.
    fn nested(levels: usize) -> Vec<Vec<u8>> {
        let mut elements = vec![element(1); levels];
        elements.push(element(0));
        elements
    }

    #[test]
    fn a_schema_that_is_too_deep_or_too_wide_is_refused() {
        assert_eq!(check_schema(&footer(&nested(MAX_LEVELS))), Ok(()));
        assert_eq!(
            check_schema(&footer(&nested(MAX_LEVELS + 1))),
            Err("its schema has more than 64 levels".to_owned())
        );
        let wide = |columns: u32| {
            let mut elements = vec![element(columns)];
            elements.resize(columns as usize + 1, element(0));
            check_schema(&footer(&elements))
        };
        assert_eq!(wide(10_000), Ok(()));
        assert_eq!(wide(10_001), Err("its schema has more than 10000 columns".to_owned()));
        assert!(wide(40_000).unwrap_err().contains("40001 columns and groups"));
    }

    #[test]
    fn the_levels_are_those_of_the_tree_and_not_the_number_of_groups() {
        let mut elements = vec![element(200)];
        for _ in 0..200 {
            elements.extend([element(1), element(0)]);
        }
        assert_eq!(check_schema(&footer(&elements)), Ok(()));
    }

    #[test]
    fn children_that_do_not_exist_or_are_no_part_of_the_tree_are_refused() {
        for elements in [
            vec![element(2), element(0)],
            vec![element(1 << 30), element(0)],
            vec![element(1), element(0), element(0)],
        ] {
            assert_eq!(check_schema(&footer(&elements)), Err(NOT_USUAL.to_owned()));
        }
    }

    #[test]
    fn a_known_field_with_another_type_cannot_hide_a_schema() {
        // The name is said to be a truth value, which has no bytes.
        let name = vec![0x41, 1, b'a', 0];
        // The children are said to be a text.
        let children = vec![0x48, 1, b'a', 0x18, 2, 2, 2, 0];
        // The scale of a decimal number is said to be a text: LogicalType 5, field 1.
        let scale = vec![0x48, 1, b'a', 0x6c, 0x5c, 0x18, 1, 2, 0, 0, 0];
        for hidden in [name, children, scale] {
            let elements = vec![element(1), hidden];
            assert_eq!(check_schema(&footer(&elements)), Err(NOT_USUAL.to_owned()));
        }
        let decimal = vec![0x48, 1, b'a', 0x6c, 0x5c, 0x15, 2, 0x15, 2, 0, 0, 0];
        assert_eq!(check_schema(&footer(&[element(1), decimal])), Ok(()));
        // Another field comes before the schema.
        assert_eq!(check_schema(&[0x36, 2, 0]), Err(NOT_USUAL.to_owned()));
    }

    #[test]
    fn an_unknown_field_is_skipped_up_to_a_depth_and_each_cut_is_an_error() {
        let unknown = |levels: usize| {
            let mut bytes = vec![0x48, 1, b'a'];
            // Field 20 of the element, with structs in one another.
            bytes.extend([0x0c, 40]);
            bytes.extend(vec![0x1c; levels]);
            bytes.extend(vec![0; levels + 2]);
            footer(&[element(1), bytes])
        };
        assert_eq!(check_schema(&unknown(10)), Ok(()));
        assert_eq!(check_schema(&unknown(10_000)), Err(NOT_USUAL.to_owned()));
        let whole = unknown(3);
        for length in 0..whole.len() {
            assert_eq!(check_schema(&whole[..length]), Err(NOT_USUAL.to_owned()), "{length}");
        }
    }
}
