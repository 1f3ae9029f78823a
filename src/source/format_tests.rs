//! Tests of inputs as people have them: compressed, with other delimiters, as objects, workbooks, Parquet files and folders.

use std::io::{Cursor, Read, Write};

use serde_json::{Value, json};

use super::tests::{describe, drain, items, read_as, read_file, rejects};
use super::*;

pub(super) fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn zstd(text: &[u8]) -> Vec<u8> {
    ::zstd::stream::encode_all(text, 1).unwrap()
}

fn text_of(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(describe).collect()
}

/// Reads bytes without a format and without an error.
async fn entries_of(source: Source) -> Vec<String> {
    let (entries, error) = drain(source).await;
    assert!(error.is_none(), "{error:?}");
    text_of(&entries)
}

/// Returns the message of the error that ended reading.
async fn error_of(source: Source) -> String {
    let (_, error) = drain(source).await;
    error.unwrap().to_string()
}

fn reader(bytes: impl AsRef<[u8]> + Send + 'static) -> Source {
    Source::reader("input", Cursor::new(bytes), None)
}

#[tokio::test]
async fn compressed_items_are_read_in_every_text_format() {
    for encode in [gzip, zstd] {
        for (suffix, text) in [
            (".jsonl.gz", "{\"id\": 1}\n{\"id\": 2}\n"),
            (".csv.zst", "id;text\n1;a\n2;b\n"),
            (".tsv", "id\ttext\n1\ta\n2\tb\n"),
            (".json", "[{\"id\": 1}, {\"id\": 2}]"),
            (".json.gz", "{\"n\": 2, \"data\": [{\"id\": 1}, {\"id\": 2}]}"),
        ] {
            let (entries, error) = read_file(suffix, &encode(text.as_bytes())).await;
            assert!(error.is_none(), "{suffix}: {error:?}");
            let keys: Vec<_> = items(&entries).iter().map(|item| item.key.as_str().to_owned()).collect();
            assert_eq!(keys, ["1", "2"], "{suffix}");
        }
        let members = [encode(b"{\"id\": 1}\n{\"i"), encode(b"d\": 2}\n")].concat();
        assert_eq!(entries_of(reader(members)).await, ["1 1", "2 2"]);
    }
}

#[tokio::test]
async fn a_truncated_archive_is_an_error_after_its_items_and_never_the_end() {
    let text: String =
        (0..50_000).map(|id| format!("{{\"id\": {id}, \"text\": \"{}\"}}\n", id * 7919)).collect();
    for encode in [gzip, zstd] {
        let whole = encode(text.as_bytes());
        let (entries, error) = drain(reader(whole[..whole.len() / 2].to_vec())).await;
        assert!(!entries.is_empty());
        let error = error.unwrap();
        assert!(matches!(error, Error::Compressed { items, .. } if items == entries.len() as u64), "{error}");
        let message = error.to_string();
        assert!(
            message.starts_with("input, after line ")
                && message.contains("data are incomplete; copy, download or compress the file again"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn progress_of_a_compressed_file_is_by_its_compressed_bytes() {
    let text: String = (0..2000).map(|id| format!("{{\"id\": {id}}}\n")).collect();
    let mut file = tempfile::Builder::new().suffix(".jsonl.gz").tempfile().unwrap();
    file.write_all(&gzip(text.as_bytes())).unwrap();
    let source = Source::file(file.path(), None).unwrap();
    let digest = source.digest().unwrap();
    let mut reader = source.read().unwrap();
    let mut last = 0.0;
    while let Some(entry) = reader.next().await {
        entry.unwrap();
        let progress = reader.progress().unwrap();
        assert!((last..=1.0).contains(&progress), "{last} {progress}");
        last = progress;
    }
    assert_eq!(digest.get().unwrap().bytes, file.path().metadata().unwrap().len());
}

#[tokio::test]
async fn a_delimiter_of_the_user_separates_and_makes_a_stream_csv() {
    let source =
        |text: &'static str, delimiter: &str| reader(text).with_delimiter(delimiter.parse().unwrap());
    let (entries, error) = drain(source("id^a,b\n1^\"x\n^\"\n", "^")).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(items(&entries)[0].value, json!({ "id": "1", "a,b": "x\n^" }));
    assert_eq!(entries_of(source("   \nid|text\n1|x\n", "|")).await, ["3 1"]);
    let (entries, _) = drain(source("id,b;c\n1,2;3\n", ";")).await;
    assert_eq!(items(&entries)[0].value, json!({ "id,b": "1,2", "c": "3" }));
    let jsonl = Source::reader("items.jsonl", Cursor::new("{}"), Some(Format::Jsonl));
    let message = error_of(jsonl.with_delimiter(";".parse().unwrap())).await;
    assert_eq!(
        message,
        "items.jsonl: it is read as jsonl, which has no delimiter; leave the delimiter out, or set the input format to csv"
    );
}

#[tokio::test]
async fn a_column_that_is_the_key_must_exist_and_have_a_value() {
    let csv = |text: &'static str| Source::reader("input", Cursor::new(text), Some(Format::Csv));
    let source = csv("sku,text\na-1,x\n,y\na-1,z\n").with_key("sku");
    assert_eq!(
        entries_of(source).await,
        [
            "2 a-1",
            "3: has an empty \"sku\", which is to be the key",
            "4: has the key \"a-1\" of the item on line 2"
        ]
    );
    assert_eq!(
        error_of(csv("sku,text\na,x\n").with_key("skuu")).await,
        "input, line 1: there is no column \"skuu\", which is to be the key; did you mean \"sku\"? The columns are \
         \"sku\", \"text\""
    );
    assert_eq!(
        entries_of(reader("{\"sku\": 7}\n{\"id\": 1}\n").with_key("sku")).await,
        ["1 7", "2: has no field \"sku\", which is to be the key"]
    );
}

#[tokio::test]
async fn the_array_in_an_object_is_read_from_files_and_streams() {
    let text = "{\"meta\": {\"n\": 2},\n \"rows\": [{\"id\": 1},\n 7, {\"id\": 2}], \"tags\": [\"a\"]}\n";
    let expected = ["2 1", "3: is a number, not a JSON object", "3 2"];
    let stream = Source::reader("input", Cursor::new(text), Some(Format::Json));
    assert_eq!(entries_of(stream).await, expected);
    let (entries, error) = read_file(".json", text.as_bytes()).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(text_of(&entries), expected);
    let (entries, _) = read_file(".json", format!("\u{feff}{text}").as_bytes()).await;
    assert_eq!(text_of(&entries), expected);
    let two = "{\"users\": [{\"id\": 1}], \"orders\": [{\"id\": 2}]}";
    let source = || Source::reader("input", Cursor::new(two), Some(Format::Json));
    assert_eq!(
        error_of(source()).await,
        "input, line 1: the object has several arrays: \"users\", \"orders\"; choose one: name the key of the items"
    );
    assert_eq!(entries_of(source().with_items_key("orders")).await, ["1 2"]);
    // Without a format, the key shows that it is such an object.
    assert_eq!(entries_of(reader(two).with_items_key("users")).await, ["1 1"]);
    let (entries, error) = read_as(Format::Json, "{\"rows\": [{\"id\": 1}, {\"id\" 2}], \"x\": 1}").await;
    assert_eq!(entries.len(), 1);
    assert!(error.unwrap().to_string().contains("line 1, column 28: expected `:`"));
}

#[tokio::test]
async fn what_has_no_items_is_refused_with_what_it_looks_like() {
    for (bytes, look) in [
        (
            &b"%PDF-1.7\n"[..],
            "it looks like a PDF document, not like items; to process such files, one item per file",
        ),
        (b"\x89PNG\r\n\x1a\n\0\0", "a PNG image"),
        (b"<!doctype html><html>", "a web page (HTML)"),
        (b"SQLite format 3\0\x10", "an SQLite database"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "a workbook of Excel 97 to 2003 (.xls)"),
    ] {
        for format in [None, Some(Format::Csv), Some(Format::Jsonl), Some(Format::Json)] {
            let message = error_of(Source::reader("input", Cursor::new(bytes), format)).await;
            assert!(message.starts_with("input: it looks like ") && message.contains(look), "{message}");
        }
    }
    let (_, error) = read_file(".xlsx", b"id,text\n1,x\n").await;
    assert!(
        error.unwrap().to_string().contains("it is no Excel workbook, and seems to be text; name it .csv")
    );
    let (_, error) = read_file(".parquet", b"id,text\n1,x\n").await;
    assert!(error.unwrap().to_string().contains("it is no Parquet file"));
}

#[tokio::test]
async fn a_source_of_plain_text_refuses_what_is_packed_whatever_its_format_is_said_to_be() {
    let text = b"{\"id\": 1}\n";
    let with_mark = b"\xef\xbb\xbfPK\x03\x04\x14\0".to_vec();
    for bytes in
        [gzip(text), zstd(text), b"PK\x03\x04\x14\0".to_vec(), b"PAR1\x15\x04\x15".to_vec(), with_mark]
    {
        for format in [None, Some(Format::Jsonl), Some(Format::Csv), Some(Format::Parquet)] {
            let source = Source::reader("input", Cursor::new(bytes.clone()), format);
            assert_eq!(
                error_of(source.with_plain_text_only()).await,
                "input: compressed, Parquet and Excel items are not read here; send them as JSON lines, JSON, CSV or TSV"
            );
        }
    }
    assert_eq!(entries_of(reader(text).with_plain_text_only()).await, ["1 1"]);
    let mut file = tempfile::Builder::new().suffix(".jsonl.gz").tempfile().unwrap();
    file.write_all(&gzip(text)).unwrap();
    let source = Source::file(file.path(), None).unwrap().with_plain_text_only().with_count();
    let mut reader = source.read().unwrap();
    assert!(reader.next().await.unwrap().is_err());
    assert_eq!(reader.count().get(), None);
}

#[tokio::test]
async fn a_file_of_one_endless_line_has_one_error_in_bounded_memory() {
    const LENGTH: u64 = 40_000_000;
    let limits = Limits::new().with_item_bytes(1 << 20);
    for format in [None, Some(Format::Jsonl)] {
        let line = (&b"{\"a\": \""[..]).chain(std::io::repeat(b'x').take(LENGTH));
        let (entries, error) = drain(Source::reader("input", line, format).with_limits(limits)).await;
        assert!(entries.is_empty(), "{entries:?}");
        assert_eq!(
            error.unwrap().to_string(),
            "input, line 1: the file is one line of 40000007 bytes without a line end; it needs a line for each item, of at \
             most 1048576 bytes"
        );
    }
    // Nothing beyond the part that is scanned is read.
    let endless = std::io::repeat(b'x').take(1 << 50);
    let message = error_of(Source::reader("input", endless, Some(Format::Csv))).await;
    assert!(
        message.contains("line 1: the first line has more than 1048576 bytes without a line end"),
        "{message}"
    );
}

#[tokio::test]
async fn a_folder_has_one_item_per_file_and_a_file_that_cannot_be_one_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("sub")).unwrap();
    for (name, content) in [
        ("b.txt", &b"two"[..]),
        ("a.md", b"one"),
        ("sub/c.pdf", b"%PDF-1.7"),
        ("d.bin", b"\xff\0"),
        (".h.txt", b"x"),
    ] {
        std::fs::write(at(name), content).unwrap();
    }
    let selection = FileSelection::of(folder.path()).unwrap().unwrap();
    let (entries, error) = drain(Source::files(selection).unwrap()).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(
        text_of(&entries),
        [
            "1 a.md",
            "2 b.txt",
            "3: is the file \"d.bin\", which is neither text in UTF-8 nor a PDF, an image or an audio file by its \
             extension",
            "4 sub/c.pdf"
        ]
    );
    let read = items(&entries);
    assert_eq!((&read[0].value["text"], &read[2].value["name"]), (&json!("one"), &json!("c.pdf")));
    assert_eq!(rejects(&entries)[0].text, "d.bin");
    let selection = FileSelection::of(at("*.png")).unwrap().unwrap();
    let message = Source::files(selection).err().unwrap().to_string();
    assert!(message.starts_with("no files for ") && message.contains("*.png: none is found"), "{message}");
}

#[cfg(feature = "xlsx")]
mod workbooks {
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    const FORMATS: &str = r#"<styleSheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><cellXfs count="3"><xf numFmtId="0"/><xf numFmtId="14"/><xf numFmtId="22"/></cellXfs></styleSheet>"#;

    /// Returns a workbook with these sheets, each with the XML of its rows.
    pub(super) fn workbook(sheets: &[(&str, &str)], texts: &[&str]) -> Vec<u8> {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        let mut add = |name: &str, text: &str| {
            zip.start_file(name, SimpleFileOptions::default()).unwrap();
            zip.write_all(text.as_bytes()).unwrap();
        };
        let office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships";
        let main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main";
        add("[Content_Types].xml", "<Types/>");
        let mut listed = String::new();
        let mut relations = String::new();
        for (number, (name, rows)) in (1..).zip(sheets) {
            listed.push_str(&format!(r#"<sheet name="{name}" sheetId="{number}" r:id="rId{number}"/>"#));
            relations.push_str(&format!(
                r#"<Relationship Id="rId{number}" Type="{office}/worksheet" Target="worksheets/sheet{number}.xml"/>"#
            ));
            let sheet = format!(r#"<worksheet xmlns="{main}"><sheetData>{rows}</sheetData></worksheet>"#);
            add(&format!("xl/worksheets/sheet{number}.xml"), &sheet);
        }
        relations.push_str(&format!(
            r#"<Relationship Id="rId90" Type="{office}/sharedStrings" Target="sharedStrings.xml"/><Relationship Id="rId91" Type="{office}/styles" Target="styles.xml"/>"#
        ));
        add(
            "xl/workbook.xml",
            &format!(r#"<workbook xmlns="{main}" xmlns:r="{office}"><sheets>{listed}</sheets></workbook>"#),
        );
        let package = "http://schemas.openxmlformats.org/package/2006/relationships";
        let root =
            format!(r#"<Relationship Id="rId1" Type="{office}/officeDocument" Target="xl/workbook.xml"/>"#);
        add("_rels/.rels", &format!(r#"<Relationships xmlns="{package}">{root}</Relationships>"#));
        add(
            "xl/_rels/workbook.xml.rels",
            &format!(r#"<Relationships xmlns="{package}">{relations}</Relationships>"#),
        );
        let texts: String = texts.iter().map(|text| format!("<si><t>{text}</t></si>")).collect();
        add("xl/sharedStrings.xml", &format!(r#"<sst xmlns="{main}">{texts}</sst>"#));
        add("xl/styles.xml", FORMATS);
        zip.finish().unwrap().into_inner()
    }

    const ROWS: &str = r#"
        <row r="2"><c r="B2" t="s"><v>0</v></c><c r="C2" t="s"><v>1</v></c><c r="D2" t="inlineStr"><is><t>when</t></is></c><c r="E2" t="inlineStr"><is><t>ok</t></is></c></row>
        <row r="3"><c r="B3"><v>7</v></c><c r="C3"><f>1.5*2</f><v>3</v></c><c r="D3" s="1"><v>45943</v></c><c r="E3" t="b"><v>1</v></c></row>
        <row r="4"></row>
        <row r="5"><c r="B5"><v>8</v></c><c r="C5"><v>2.5</v></c><c r="D5" s="2"><v>45943.5</v></c><c r="E5" t="e"><v>#N/A</v></c></row>
        <row r="6"><c r="B6" t="s"><v>2</v></c><c r="F6"><v>9</v></c></row>
        <row r="7"><c r="B7" t="s"><v>2</v></c></row>"#;

    #[tokio::test]
    async fn values_of_formulas_dates_and_numbers_are_read_from_the_first_sheet() {
        let bytes = workbook(&[("Data", ROWS), ("Other", "")], &["id", "sum", "x"]);
        for (entries, error) in [
            read_file(".xlsx", &bytes).await,
            read_file(".bin", &bytes).await,
            drain(reader(bytes.clone())).await,
        ] {
            assert!(error.is_none(), "{error:?}");
            assert_eq!(
                text_of(&entries),
                ["3 7", "5 8", "6: has a value in column 6, which has no name in the header row", "7 x"]
            );
            let values: Vec<&Value> = items(&entries).iter().map(|item| &item.value).collect();
            assert_eq!(*values[0], json!({ "id": 7, "sum": 3, "when": "2025-10-13", "ok": true }));
            assert_eq!(
                *values[1],
                json!({ "id": 8, "sum": 2.5, "when": "2025-10-13T12:00:00", "ok": "#N/A" })
            );
            assert_eq!(*values[2], json!({ "id": "x", "sum": "", "when": "", "ok": "" }));
        }
    }

    #[tokio::test]
    async fn a_sheet_is_chosen_by_name_or_number_and_an_unknown_one_is_an_error() {
        let other = r#"<row r="1"><c r="A1" t="s"><v>0</v></c></row><row r="2"><c r="A2"><v>1</v></c></row>"#;
        let bytes = workbook(&[("Data", ROWS), ("Other", other)], &["id", "sum", "x"]);
        for sheet in ["Other", "2"] {
            assert_eq!(entries_of(reader(bytes.clone()).with_sheet(sheet)).await, ["2 1"]);
        }
        assert_eq!(
            error_of(reader(bytes.clone()).with_sheet("Othr")).await,
            "input: there is no sheet \"Othr\", which is to have the items; did you mean \"Other\"? The sheets are \
             \"Data\", \"Other\""
        );
        assert!(error_of(reader(bytes.clone()).with_key("ID")).await.contains("did you mean \"id\"?"));
        assert!(
            error_of(reader("{}").with_sheet("2")).await.contains("it is read as jsonl, which has no sheets")
        );
        let cut = error_of(reader(bytes[..bytes.len() / 2].to_vec())).await;
        assert!(
            cut.contains("it looks like a workbook of Excel or another packed file, and cannot be read"),
            "{cut}"
        );
    }

    #[tokio::test]
    async fn a_workbook_that_announces_more_texts_than_it_can_have_is_refused() {
        let bytes = workbook(&[("Data", ROWS)], &["id", "sum", "x"]);
        let mut parts = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for index in 0..parts.len() {
            let mut part = parts.by_index(index).unwrap();
            let mut text = String::new();
            part.read_to_string(&mut text).unwrap();
            let text = text.replace("<sst ", "<sst uniqueCount=\"1000000000000\" ");
            let name = String::from_utf8_lossy(part.name_raw()).into_owned();
            zip.start_file(name, SimpleFileOptions::default()).unwrap();
            zip.write_all(text.as_bytes()).unwrap();
        }
        let message = error_of(reader(zip.finish().unwrap().into_inner())).await;
        assert!(message.contains("announces 1000000000000 texts, and cannot have so many"), "{message}");
    }

    #[tokio::test]
    async fn another_archive_is_named_by_its_contents_and_a_workbook_has_a_digest() {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file("word/document.xml", SimpleFileOptions::default()).unwrap();
        let bytes = zip.finish().unwrap().into_inner();
        assert!(error_of(reader(bytes)).await.contains("it looks like a Word document, not like items"));
        let bytes = workbook(&[("Data", ROWS)], &["id", "sum", "x"]);
        let mut file = tempfile::Builder::new().suffix(".xlsx").tempfile().unwrap();
        file.write_all(&bytes).unwrap();
        let source = Source::file(file.path(), None).unwrap();
        let digest = source.digest().unwrap();
        entries_of(source).await;
        assert_eq!(digest.get().unwrap().bytes, bytes.len() as u64);
    }
}

#[cfg(feature = "parquet")]
mod parquet_files {
    use std::sync::Arc;

    use ::parquet::basic::Compression;
    use ::parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
    use ::parquet::file::properties::WriterProperties;
    use ::parquet::file::writer::SerializedFileWriter;
    use ::parquet::schema::parser::parse_message_type;

    use super::*;

    const SCHEMA: &str = "message rows {
        required int64 id;
        optional byte_array text (UTF8);
        required int64 at (TIMESTAMP(NANOS,false));
        required int64 on (TIMESTAMP(MICROS,true));
        required double price;
        optional group tags (LIST) { repeated group list { optional byte_array element (UTF8); } }
    }";

    /// Returns a file of two row groups with three rows together.
    fn file(compression: Compression) -> Vec<u8> {
        let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
        let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
        for ids in [&[1, 2][..], &[3]] {
            let mut group = writer.next_row_group().unwrap();
            let rows = ids.len();
            let integers = |number: i64| vec![number; rows];
            let mut column = 0;
            while let Some(mut next) = group.next_column().unwrap() {
                match column {
                    0 => next.typed::<Int64Type>().write_batch(ids, None, None),
                    1 => {
                        let text = [ByteArray::from("Größe")];
                        let levels: Vec<i16> = (0..rows).map(|row| i16::from(row == 0)).collect();
                        next.typed::<ByteArrayType>().write_batch(&text, Some(&levels), None)
                    }
                    2 => next.typed::<Int64Type>().write_batch(&integers(1_500_000_000), None, None),
                    3 => next.typed::<Int64Type>().write_batch(&integers(1_000_000), None, None),
                    4 => next.typed::<DoubleType>().write_batch(&vec![2.5; rows], None, None),
                    _ => {
                        let tags = [ByteArray::from("a"), ByteArray::from("b")];
                        // The first row has two tags, the second none.
                        let definition: &[i16] = if rows == 2 { &[3, 3, 0] } else { &[3, 3] };
                        let repetition: &[i16] = if rows == 2 { &[0, 1, 0] } else { &[0, 1] };
                        next.typed::<ByteArrayType>().write_batch(&tags, Some(definition), Some(repetition))
                    }
                }
                .unwrap();
                next.close().unwrap();
                column += 1;
            }
            group.close().unwrap();
        }
        writer.into_inner().unwrap()
    }

    #[tokio::test]
    async fn rows_of_all_groups_are_items_with_nested_values() {
        for compression in
            [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::ZSTD(Default::default())]
        {
            let bytes = file(compression);
            for (entries, error) in [read_file(".parquet", &bytes).await, drain(reader(bytes.clone())).await]
            {
                assert!(error.is_none(), "{error:?}");
                assert_eq!(text_of(&entries), ["1 1", "2 2", "3 3"]);
                let values: Vec<&Value> = items(&entries).iter().map(|item| &item.value).collect();
                let at = "1970-01-01T00:00:01.5";
                let on = "1970-01-01T00:00:01Z";
                assert_eq!(
                    *values[0],
                    json!({ "id": 1, "text": "Größe", "at": at, "on": on, "price": 2.5, "tags": ["a", "b"] })
                );
                assert_eq!(
                    *values[1],
                    json!({ "id": 2, "text": null, "at": at, "on": on, "price": 2.5, "tags": null })
                );
            }
        }
    }

    #[tokio::test]
    async fn a_schema_that_is_nested_too_deeply_is_an_error_and_does_not_end_the_process() {
        // Each element: field 3 is its repetition, field 4 its name, field 5 the number of its children.
        let group = [0x35, 0, 0x18, 1, b'a', 0x15, 2, 0];
        for levels in [1_000, 20_000_u32] {
            let mut footer = vec![0x15, 4, 0x19, 0xfc];
            let elements = levels + 1;
            footer.extend([elements as u8 | 0x80, (elements >> 7) as u8 | 0x80, (elements >> 14) as u8]);
            footer.extend(group.repeat(levels as usize));
            footer.extend([0x15, 2, 0x25, 0, 0x18, 1, b'a', 0]);
            let length = (footer.len() as u32).to_le_bytes();
            let bytes = [&b"PAR1\x15\x04\x15"[..], &footer, &length, b"PAR1"].concat();
            let expected = "it is a Parquet file that cannot be read: its schema has more than 64 levels";
            for (entries, error) in [read_file(".parquet", &bytes).await, drain(reader(bytes.clone())).await]
            {
                assert!(entries.is_empty());
                assert!(error.as_ref().unwrap().to_string().contains(expected), "{error:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_row_that_is_longer_than_an_item_may_be_is_rejected() {
        let bytes = file(Compression::SNAPPY);
        let limited = |limit| reader(bytes.clone()).with_limits(Limits::new().with_item_bytes(limit));
        // The names have 19 bytes, the numbers 32, the texts 9; a value that is missing counts 8.
        assert_eq!(entries_of(limited(60)).await, ["1 1", "2: is longer than the limit of 60 bytes", "3 3"]);
        assert_eq!(entries_of(limited(67)).await, ["1 1", "2 2", "3 3"]);
    }

    #[tokio::test]
    async fn a_damaged_file_and_an_unknown_key_are_errors() {
        let bytes = file(Compression::SNAPPY);
        let message = error_of(reader(bytes.clone()).with_key("txt")).await;
        assert!(message.contains("there is no column \"txt\"") && message.contains("\"text\""), "{message}");
        let message = error_of(reader(bytes[..bytes.len() - 9].to_vec())).await;
        assert!(message.contains("it is a Parquet file that cannot be read: "), "{message}");
    }
}
