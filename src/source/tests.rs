//! Tests that read complete inputs, valid and invalid, and check the entries.

use std::fs;
use std::io::{self, Cursor, Read, Write};
use std::path::Path;
use std::time::SystemTime;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::types::ItemKey;

/// Reads everything: the entries, and the error that ended reading early.
pub(super) async fn drain(source: Source) -> (Vec<Entry>, Option<Error>) {
    let mut reader = source.read().unwrap();
    let mut entries = Vec::new();
    while let Some(next) = reader.next().await {
        match next {
            Ok(entry) => entries.push(entry),
            Err(error) => {
                assert!(reader.next().await.is_none(), "an error is the last");
                return (entries, Some(error));
            }
        }
    }
    (entries, None)
}

pub(super) async fn read_as(
    format: Format,
    bytes: impl AsRef<[u8]> + Send + 'static,
) -> (Vec<Entry>, Option<Error>) {
    drain(Source::reader("input", Cursor::new(bytes), Some(format))).await
}

/// Reads an input without a fatal error; items as `line key`, rejects as `line: reason`.
async fn entries_as_text(format: Format, bytes: impl AsRef<[u8]> + Send + 'static) -> Vec<String> {
    let (entries, error) = read_as(format, bytes).await;
    assert!(error.is_none(), "{error:?}");
    entries.iter().map(describe).collect()
}

pub(super) fn describe(entry: &Entry) -> String {
    match entry {
        Entry::Item(item) => format!("{} {}", item.line, item.key),
        Entry::Rejected(reject) => format!("{}: {}", reject.line, reject.reason),
    }
}

pub(super) fn items(entries: &[Entry]) -> Vec<&Item> {
    entries.iter().filter_map(|entry| if let Entry::Item(item) = entry { Some(item) } else { None }).collect()
}

pub(super) fn rejects(entries: &[Entry]) -> Vec<&Reject> {
    entries
        .iter()
        .filter_map(|entry| if let Entry::Rejected(reject) = entry { Some(reject) } else { None })
        .collect()
}

#[tokio::test]
async fn a_rejected_item_leaves_its_key_to_a_later_one() {
    let input = "{\"id\": 1}\n{\"id\": 1, \"text\": \"x\"}\n{\"id\": 1, \"text\": \"y\"}\n";
    let source = Source::reader("input", Cursor::new(input), Some(Format::Jsonl));
    let fit = |item: &Value| item.get("text").map(drop).ok_or_else(|| "has no text".to_owned());
    let (entries, error) = drain(source.with_check(fit)).await;
    assert!(error.is_none());
    let entries_text: Vec<String> = entries.iter().map(describe).collect();
    assert_eq!(entries_text, ["1: has no text", "2 1", "3: has the key \"1\" of the item on line 2"]);
    assert_eq!(rejects(&entries)[0].key, Some(ItemKey::from("1")));
}

#[tokio::test]
async fn blank_lines_a_byte_order_mark_and_a_missing_final_line_end_are_not_items() {
    let input = "\u{feff}{\"id\": 1}\r\n\r\n   \n{\"id\": 2}\n\t{\"id\": 3}";
    assert_eq!(entries_as_text(Format::Jsonl, input).await, ["1 1", "4 2", "5 3"]);
}

#[tokio::test]
async fn an_empty_input_has_no_items_in_any_format() {
    for format in [Format::Jsonl, Format::Csv, Format::Json] {
        for input in ["", "\n\n", "\u{feff}"] {
            assert_eq!(entries_as_text(format, input).await, [""; 0], "{format} {input:?}");
        }
    }
}

#[tokio::test]
async fn a_bad_line_is_rejected_with_its_number_and_the_reason_and_the_next_is_read() {
    let input = b"{\"id\": 1}\n{\"id\": \n[1]\n7\n{\"a\": \"\xff\"}\n{\"id\": {}}\n{\"id\": 2}\n";
    assert_eq!(
        entries_as_text(Format::Jsonl, input).await,
        [
            "1 1",
            "2: is not JSON: EOF while parsing a value at column 6",
            "3: is an array, not a JSON object",
            "4: is a number, not a JSON object",
            "5: is not UTF-8: its byte 8 is 0xff; save the file as UTF-8",
            "6: has an object as `id`; use text or a number",
            "7 2",
        ]
    );
}

#[tokio::test]
async fn items_are_numbered_without_gaps() {
    let (entries, _) = read_as(Format::Jsonl, "{\"a\": 1}\nx\n{\"a\": 2}\n").await;
    let numbers: Vec<_> = items(&entries).iter().map(|item| (item.number, item.line)).collect();
    assert_eq!(numbers, [(0, 1), (1, 3)]);
}

#[tokio::test]
async fn the_later_of_two_items_with_one_key_is_rejected_with_the_key() {
    let (entries, _) =
        read_as(Format::Jsonl, "{\"id\": 42}\n{\"id\": 7}\n{\"id\": \"42\", \"b\": 1}\n").await;
    assert_eq!(describe(&entries[2]), "3: has the key \"42\" of the item on line 1");
    assert_eq!(rejects(&entries)[0].key, Some(ItemKey::from("42")));
    assert_eq!(rejects(&entries)[0].text, "{\"id\": \"42\", \"b\": 1}");
}

#[tokio::test]
async fn equal_records_without_an_id_are_items_with_keys_of_their_own() {
    let input = "{\"a\": 1, \"b\": 2}\n{\"a\": 7}\n{\"b\": 2, \"a\": 1}\n{\"id\": null, \"a\": 7}\n{\"a\": 1, \"b\": 2}\n";
    let entries_text = entries_as_text(Format::Jsonl, input).await;
    let key = |line: usize| entries_text[line - 1].split_once(' ').unwrap().1;
    assert_eq!([key(3), key(5)], [format!("{}-2", key(1)), format!("{}-3", key(1))], "{entries_text:?}");
    // A null `id` is a part of the content.
    assert!(key(4) != key(2) && !key(4).ends_with("-2"), "{entries_text:?}");
}

#[tokio::test]
async fn a_rejected_record_does_not_count_among_equal_ones() {
    let source = Source::reader("input", Cursor::new("text\nx\nx,\nx\n"), Some(Format::Csv));
    let (entries, _) = drain(source).await;
    let keys: Vec<&str> = items(&entries).iter().map(|item| item.key.as_str()).collect();
    assert_eq!(keys[1], format!("{}-2", keys[0]));
}

#[tokio::test]
async fn an_item_that_was_read_before_keeps_its_key() {
    let value = json!({"text": "x"});
    let items_read = [(7, "sha-0-3", value.clone()), (9, "b", value.clone()), (11, "b", value)];
    let stored = items_read.map(|(line, key, value)| Ok((line, ItemKey::from(key), value)));
    let (entries, _) = drain(Source::fallible("stored", 3, stored)).await;
    let entries_text: Vec<String> = entries.iter().map(describe).collect();
    assert_eq!(entries_text, ["7 sha-0-3", "9 b", "11: has the key \"b\" of the item on line 9"]);
}

#[tokio::test]
async fn a_table_and_a_text_without_a_known_format_are_told_apart() {
    let read = |text: &'static str| drain(Source::reader("stdin", Cursor::new(text), None));
    let (entries, error) = read("\nid,text\n1,\"a, b\"\n2,c\n").await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(entries.iter().map(describe).collect::<Vec<_>>(), ["3 1", "4 2"]);
    assert_eq!(items(&entries)[0].value, json!({"id": "1", "text": "a, b"}));
    for text in ["Great product\nBad product\n", "Great product, I like it\n"] {
        let (entries, error) = read(text).await;
        assert!(entries.is_empty(), "{entries:?}");
        let error = error.unwrap();
        let message = error.to_string();
        assert!(message.starts_with("stdin, line 1: it has no known format"), "{message}");
        assert!(error.advice().is_some_and(|advice| message.ends_with(&advice.to_string())), "{message}");
    }
    let (entries, error) = read("{\"id\": \n{\"id\": 2}\n").await;
    assert!(error.is_none() && entries.len() == 2, "a broken line of JSON lines is a reject: {entries:?}");
}

#[tokio::test]
async fn a_rejected_line_does_not_reserve_its_key() {
    let entries_text = entries_as_text(Format::Csv, "id,b\n1\n1,x\n").await;
    assert_eq!(entries_text, ["2: has 1 field, the header has 2", "3 1"]);
}

#[tokio::test]
async fn ragged_rows_are_rejected_and_quoted_line_breaks_are_kept() {
    let input = "id,name,note\n1,\"A, B\",\"two\r\nlines, \"\"quoted\"\"\"\n2,x\n\n3,x,y,z\n4,x,y";
    let (entries, error) = read_as(Format::Csv, input).await;
    assert!(error.is_none());
    let entries_text: Vec<_> = entries.iter().map(describe).collect();
    assert_eq!(
        entries_text,
        ["2 1", "4: has 2 fields, the header has 3", "6: has 4 fields, the header has 3", "7 4"]
    );
    let expected = json!({"id": "1", "name": "A, B", "note": "two\r\nlines, \"quoted\""});
    assert_eq!(items(&entries)[0].value, expected);
    assert_eq!(rejects(&entries)[1].text, "3,x,y,z");
}

#[tokio::test]
async fn an_unclosed_quote_does_not_lose_the_rows_after_it() {
    // With the last column open, the rows behind it would else become part of its text.
    let entries_text = entries_as_text(Format::Csv, "id,note\n1,fine\n2,\"open\n3,lost\n").await;
    assert_eq!(entries_text[0], "2 1");
    assert!(entries_text[1].starts_with("3: has a quote that is never closed"), "{entries_text:?}");
    assert_eq!(entries_text.len(), 2);
}

#[tokio::test]
async fn bytes_that_are_not_utf_8_are_rejected_with_their_column() {
    let entries_text = entries_as_text(Format::Csv, b"id,note\n1,ab\xff\n2,x\n").await;
    let reason = "2: is not UTF-8: byte 3 of its field \"note\" is wrong; save the file as CSV UTF-8";
    assert_eq!(entries_text, [reason, "3 2"]);
}

/// Writes a file with this suffix and reads it in the format of its name.
pub(super) async fn read_file(suffix: &str, bytes: &[u8]) -> (Vec<Entry>, Option<Error>) {
    let mut file = tempfile::Builder::new().suffix(suffix).tempfile().unwrap();
    file.write_all(bytes).unwrap();
    drain(Source::file(file.path(), None).unwrap()).await
}

#[tokio::test]
async fn semicolons_and_tabs_separate_if_the_header_or_a_sep_line_uses_them() {
    for (suffix, text) in [
        (".csv", "id;text;price\r\n1;a, b;1,5\r\n2;\"c;\nd\";2,0\r\n3;x\r\n4;e;3\r\n"),
        (".csv", "id\ttext\tprice\n1\ta, b\t1,5\n2\t\"c;\nd\"\t2,0\n3\tx\n4\te\t3\n"),
        (".tsv", "id\ttext\tprice\n1\ta, b\t1,5\n2\t\"c;\nd\"\t2,0\n3\tx\n4\te\t3\n"),
        (".TSV", "sep=|\nid|text|price\n1|a, b|1,5\n2|\"c;\nd\"|2,0\n3|x\n4|e|3\n"),
        (".csv", "\u{feff}sep=;\r\nid;text;price\r\n1;a, b;1,5\r\n2;\"c;\nd\";2,0\r\n3;x\r\n4;e;3\r\n"),
    ] {
        let (entries, error) = read_file(suffix, text.as_bytes()).await;
        assert!(error.is_none(), "{text}: {error:?}");
        let above = u64::from(text.contains("sep="));
        let entries_text: Vec<String> = entries.iter().map(describe).collect();
        let expected = [
            format!("{} 1", 2 + above),
            format!("{} 2", 3 + above),
            format!("{}: has 2 fields, the header has 3", 5 + above),
            format!("{} 4", 6 + above),
        ];
        assert_eq!(entries_text, expected, "{text}");
        let values: Vec<&Value> = items(&entries).iter().map(|item| &item.value).collect();
        assert_eq!(values[0], &json!({ "id": "1", "text": "a, b", "price": "1,5" }), "{text}");
        assert_eq!(values[1], &json!({ "id": "2", "text": "c;\nd", "price": "2,0" }), "{text}");
    }
}

#[tokio::test]
async fn a_column_without_any_separator_stays_one_column() {
    let (entries, error) = read_file(".csv", b"text\na;b\nc\td\n").await;
    assert!(error.is_none(), "{error:?}");
    let values: Vec<&Value> = items(&entries).iter().map(|item| &item.value).collect();
    assert_eq!(values, [&json!({ "text": "a;b" }), &json!({ "text": "c\td" })]);
}

#[tokio::test]
async fn a_header_with_an_ambiguous_separator_is_refused_with_advice() {
    for (suffix, text, line, advice) in [
        (".csv", "\nname;net, total;city\nA;1,5;B\n", 2, "`sep=`"),
        (".tsv", "name;total\nA;1,5\n", 1, "name the file .csv, or set the input format to csv"),
    ] {
        let (entries, error) = read_file(suffix, text.as_bytes()).await;
        assert!(entries.is_empty(), "{entries:?}");
        let message = error.unwrap().to_string();
        assert!(message.contains(&format!(", line {line}: ")) && message.contains(advice), "{message}");
        assert!(!message.contains("--"), "{message}");
    }
}

#[tokio::test]
async fn a_row_with_only_empty_fields_is_a_blank_line() {
    let input = "id,text\n1,x\n,\n,,,,\n\"\",\" \"\n   \n2,\n,y\n,,,z\n,,,,\n";
    let (entries, error) = read_as(Format::Csv, input).await;
    assert!(error.is_none(), "{error:?}");
    let lines: Vec<u64> = entries.iter().map(line).collect();
    assert_eq!(lines, [2, 7, 8, 9]);
    assert_eq!(
        (items(&entries).len(), rejects(&entries)[0].reason.as_str()),
        (3, "has 4 fields, the header has 2")
    );
    // In a file of one column, quotes are how an empty value is written.
    let (entries, _) = read_as(Format::Csv, "text\n\"\"\n\n \n").await;
    assert_eq!(entries.iter().map(line).collect::<Vec<_>>(), [2]);
}

#[tokio::test]
async fn a_file_in_another_format_than_its_name_indicates_is_refused_once() {
    let pretty = serde_json::to_string_pretty(&json!({ "id": 1, "tags": ["a", "b"] })).unwrap();
    let array = serde_json::to_string_pretty(&json!([{ "id": 1 }, { "id": 2 }])).unwrap();
    for (suffix, text, advice) in [
        (".jsonl", format!("\n{pretty}\n{pretty}\n"), "looks like JSON over several lines"),
        (".jsonl", array.clone(), "set the input format to json"),
        (".ndjson", "[{\"id\": 1},\n{\"id\": 2}]\n".to_owned(), "set the input format to json"),
        (
            ".csv",
            "{\"id\": 1, \"text\": \"x\"}\n{\"id\": 2, \"text\": \"y\"}\n".to_owned(),
            "set the input format to jsonl",
        ),
        (".csv", "{ \"id\": 1 }\n".to_owned(), "set the input format to jsonl"),
        (".tsv", array, "set the input format to json"),
    ] {
        let (entries, error) = read_file(suffix, text.as_bytes()).await;
        assert!(entries.is_empty(), "{text}: {entries:?}");
        let message = error.unwrap().to_string();
        let line = if text.starts_with('\n') { 2 } else { 1 };
        assert!(message.contains(&format!(", line {line}: ")) && message.contains(advice), "{message}");
        assert!(!message.contains("--"), "{message}");
    }
    let (_, error) = read_file(".csv", b"Name,Gr\xf6\xdfe\nx,1\n").await;
    let message = error.unwrap().to_string();
    assert!(
        message.contains("line 1: the name of column 2") && message.contains("save the file as CSV UTF-8"),
        "{message}"
    );
    let (_, error) = read_file(".csv", &[b'i', 0, b'd', 0, b'\n', 0]).await;
    assert!(error.unwrap().to_string().contains("save it as UTF-8"));
    // A single broken line rejects only that line.
    let entries_text = entries_as_text(Format::Jsonl, "{\"id\": \n{\"id\": 2}\n").await;
    assert_eq!(entries_text[1], "2 2");
}

#[tokio::test]
async fn an_item_cannot_have_the_content_key_of_another_item() {
    let (first, _) = read_as(Format::Jsonl, "{\"text\": \"victim\"}\n").await;
    let taken = items(&first)[0].key.clone();
    let input = format!("{{\"id\": \"{taken}\", \"text\": \"attacker\"}}\n{{\"text\": \"victim\"}}\n");
    let entries_text = entries_as_text(Format::Jsonl, input).await;
    assert!(
        entries_text[0].starts_with("1: has an `id` that looks like the key of an item without an `id`"),
        "{entries_text:?}"
    );
    assert_eq!(entries_text[1], format!("2 {taken}"));
}

#[tokio::test]
async fn a_header_with_a_duplicate_or_unnamed_column_is_fatal() {
    for (header, expected) in [
        ("id,name,id\n", "columns 1 and 3 are both named \"id\"; rename one"),
        ("id,,x\n", "column 2 has no name; every column needs one in the header row"),
        ("id,\"x\n1,2\n", "the header has a quote that is never closed"),
    ] {
        let (entries, error) = read_as(Format::Csv, header).await;
        assert!(entries.is_empty());
        assert_eq!(error.unwrap().to_string(), format!("input, line 1: {expected}"));
    }
}

#[tokio::test]
async fn trailing_columns_without_a_name_are_ignored_if_they_are_empty() {
    let input = "id;name;note;;;\r\n1;a;b;;;\r\n2;a;b\r\n3;a;b;;c;\r\n4;a\r\n5;a;b; ;;\r\n6;a;b;;;;\r\n";
    let (entries, error) = read_as(Format::Csv, input).await;
    assert!(error.is_none(), "{error:?}");
    let entries_text: Vec<_> = entries.iter().map(describe).collect();
    assert_eq!(
        entries_text,
        [
            "2 1",
            "3 2",
            "4: has a value in column 5, which has no name in the header row",
            "5: has 2 fields, the header has 3",
            "6 5",
            "7: has 7 fields, the header has 3",
        ]
    );
    assert_eq!(items(&entries)[0].value, json!({"id": "1", "name": "a", "note": "b"}));
    let (_, error) = read_as(Format::Csv, ";;\n1;2;3\n").await;
    assert!(error.is_some(), "a header of no name is none");
}

#[tokio::test]
async fn an_array_on_one_line_is_refused_as_jsonl() {
    for input in [r#"[{"id": 1}, {"id": 2}]"#, "\n [ {\"id\": 1}]\n", "[{\"id\": 1}"] {
        let (entries, error) = read_as(Format::Jsonl, input).await;
        assert!(entries.is_empty(), "{entries:?}");
        let message = error.unwrap().to_string();
        assert!(message.contains("name it .json, or set the input format to json"), "{message}");
    }
    // An array that is longer than the item limit.
    let long = format!("[{{\"id\": \"{}\"}}]", "x".repeat(17 << 20));
    let (entries, error) = read_as(Format::Jsonl, long).await;
    assert!(entries.is_empty() && error.unwrap().to_string().contains("set the input format to json"));
}

#[tokio::test]
async fn a_workbook_is_refused_with_the_format_to_save_it_in() {
    for (suffix, bytes) in [
        (".xlsx", b"PK\x03\x04\x14\x00\x06\x00rest".as_slice()),
        (".csv", b"PK\x03\x04\x14\x00\x06\x00rest"),
        (".xls", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
    ] {
        let (entries, error) = read_file(suffix, bytes).await;
        assert!(entries.is_empty(), "{suffix}");
        let message = error.unwrap().to_string();
        assert!(
            message.contains("workbook of Excel") && message.contains("save the sheet as CSV UTF-8"),
            "{message}"
        );
    }
}

#[tokio::test]
async fn names_of_columns_are_bounded_each_and_together() {
    let long = "n".repeat(257);
    let (entries, error) = read_as(Format::Csv, format!("id,\"{long}\"\n1,2\n")).await;
    assert!(entries.is_empty());
    let message = error.unwrap().to_string();
    assert!(
        message.starts_with("input, line 1: the name of column 2 has 257 bytes, and a name may have 256;"),
        "{message}"
    );
    let (_, error) = read_as(Format::Csv, format!("id,{}\n", "n".repeat(7 << 20))).await;
    assert!(error.unwrap().to_string().len() < 300);
    let names =
        |count: usize| (0..count).map(|number| format!("{number:0>128}")).collect::<Vec<_>>().join(",");
    let (_, error) = read_as(Format::Csv, format!("{}\n", names(512))).await;
    assert!(error.is_none(), "{error:?}");
    let (_, error) = read_as(Format::Csv, format!("{}\n", names(513))).await;
    let message = error.unwrap().to_string();
    assert!(
        message.contains("the names of the columns up to column 513 have 65664 bytes together"),
        "{message}"
    );
}

#[tokio::test]
async fn a_header_of_too_many_columns_is_fatal() {
    let (_, error) = read_as(Format::Csv, "x,".repeat(70_000)).await;
    assert!(error.unwrap().to_string().ends_with("70001 columns: too many"));
}

#[tokio::test]
async fn an_array_is_read_element_by_element() {
    let input = "\u{feff} \n[ {\"id\": \"a]\\\"\", \"b\": [{}, []]} ,\n\n 7, {\n\"id\": 2}\n, \"x,y\"]\n ";
    assert_eq!(
        entries_as_text(Format::Json, input).await,
        ["2 a]\"", "4: is a number, not a JSON object", "4 2", "6: is a text, not a JSON object"]
    );
    assert_eq!(entries_as_text(Format::Json, " [ \n ] ").await, [""; 0]);
}

#[tokio::test]
async fn an_element_that_is_proper_json_but_unusable_does_not_end_the_array() {
    let deep = "[".repeat(200) + &"]".repeat(200);
    let input = [
        b"[{\"a\": 1e999},\n{\"a\": \"\\ud800\"},\n{\"a\": \"\xff\"},\n{\"a\": ",
        deep.as_bytes(),
        b"},\n{\"id\": 5}]",
    ]
    .concat();
    let entries_text = entries_as_text(Format::Json, input).await;
    assert_eq!(entries_text.len(), 5);
    assert!(entries_text[0].starts_with("1: holds a number that is out of range"), "{entries_text:?}");
    assert!(entries_text[1].starts_with("2: cannot be read: "), "{entries_text:?}");
    assert_eq!(entries_text[2], "3: is not UTF-8: its byte 8 is 0xff; save the file as UTF-8");
    assert!(entries_text[3].starts_with("4: is nested deeper than 100 levels"), "{entries_text:?}");
    assert_eq!(entries_text[4], "5 5");
}

#[tokio::test]
async fn broken_json_ends_reading_and_keeps_the_items_before_it() {
    for (rest, place, reason) in [
        ("{\"a\" 1}, {\"id\": 3}]", "line 2, column 6", "expected `:`"),
        ("{\"a\":\n tru}, {\"id\": 3}]", "line 3, column 5", "expected null, true or false"),
        ("{\"a\": 1} {\"a\": 2}]", "line 2, column 10", "trailing characters"),
        ("{\"a\": [1}, {\"id\": 3}]", "line 2, column 9", "expected `,` or `]`"),
        ("{\"a\": \"x", "line 2, column 1", "the input ends inside the element"),
        ("{\"a\": 1},", "line 2, column 10", "the input ends inside the array"),
        ("{\"a\": 1}", "line 2, column 1", "the input ends inside the element"),
        ("{\"a\": 1},]", "line 2, column 10", "a value is missing before `]`"),
        (",{\"a\": 1}]", "line 2, column 1", "a value is missing before `,`"),
    ] {
        let (entries, error) = read_as(Format::Json, format!("[{{\"id\": 1}},\n{rest}")).await;
        let entries_text = error.unwrap().to_string();
        assert!(entries_text.contains(place) && entries_text.contains(reason), "{rest}: {entries_text}");
        assert_eq!(items(&entries)[0].key.as_str(), "1");
        assert!(entries_text.ends_with(&format!("(items read: {})", entries.len())), "{entries_text}");
    }
}

#[tokio::test]
async fn a_json_input_that_is_not_exactly_one_array_is_refused() {
    for (input, reason) in [
        ("{\"id\": 1}", "put [ ] around it"),
        ("7", "an array of objects is expected"),
        ("[{\"id\": 1}] [", "more after the end"),
    ] {
        let (_, error) = read_as(Format::Json, input).await;
        let entries_text = error.unwrap().to_string();
        assert!(entries_text.contains(reason.trim_start_matches("an ")), "{entries_text}");
    }
}

/// Yields `head`, then `length` times the letter x, then `tail`, without buffering them.
fn long(head: &'static [u8], length: u64, tail: &'static [u8]) -> impl Read + Send {
    head.chain(io::repeat(b'x').take(length)).chain(tail)
}

#[tokio::test]
async fn a_line_of_50_mb_is_rejected_in_every_format_and_the_next_is_read() {
    const LENGTH: u64 = 50_000_000;
    let jsonl = long(b"{\"id\": 1}\n{\"a\": \"", LENGTH, b"\"}\n{\"id\": 3}\n");
    let csv = long(b"id,a\n1,x\n2,\"", LENGTH, b"\"\n3,x\n");
    let json = long(b"[{\"id\": 1},\n{\"a\": \"", LENGTH, b"\"},\n{\"id\": 3}]");
    for (source, line) in [
        (Source::reader("long", jsonl, Some(Format::Jsonl)), 2),
        (Source::reader("long", csv, Some(Format::Csv)), 3),
        (Source::reader("long", json, Some(Format::Json)), 2),
    ] {
        let (entries, error) = drain(source).await;
        assert!(error.is_none(), "{error:?}");
        let keys: Vec<_> = items(&entries).iter().map(|item| item.key.as_str()).collect();
        assert_eq!(keys, ["1", "3"]);
        let reject = rejects(&entries)[0];
        assert_eq!(reject.line, line);
        assert!(reject.reason.starts_with("is longer than the limit of 16777216 bytes"), "{}", reject.reason);
        assert!(reject.text.ends_with("xx… (cut: 50000009 bytes in all)") || line == 3, "{}", reject.text);
        assert!(reject.text.len() < 2100);
    }
}

#[tokio::test]
async fn the_limit_is_exact() {
    let limits = Limits { item_bytes: 10, ..Limits::default() };
    let source = |text: &'static str, format| {
        Source::reader("input", Cursor::new(text), Some(format)).with_limits(limits)
    };
    let (entries, _) = drain(source("{\"id\":123}\n{\"id\":1234}\n{\"id\":321}", Format::Jsonl)).await;
    assert_eq!((items(&entries).len(), rejects(&entries).len()), (2, 1));
    let (entries, error) =
        drain(source("[{\"id\":123},{\"id\":\"12  \"} ,{\"id\":321}   ]", Format::Json)).await;
    assert_eq!((items(&entries).len(), rejects(&entries).len()), (2, 1), "{entries:?} {error:?}");
}

/// Yields some bytes, then fails.
struct Failing(Cursor<&'static [u8]>);

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::other("the disk is gone")),
            read => Ok(read),
        }
    }
}

#[tokio::test]
async fn a_read_error_is_never_mistaken_for_the_end() {
    for (format, bytes, line, before) in [
        (Format::Jsonl, &b"{\"id\": 1}\n{\"id\": 2}\n{\"id\""[..], 2, 2),
        (Format::Csv, b"id,b\n1,x\n2,x\n3,\"x", 4, 2),
        (Format::Json, b"[{\"id\": 1},\n{\"id\": 2},\n{\"id\"", 3, 2),
    ] {
        let (entries, error) =
            drain(Source::reader("input", Failing(Cursor::new(bytes)), Some(format))).await;
        assert_eq!(items(&entries).len(), before, "{format}");
        let entries_text = error.unwrap().to_string();
        assert_eq!(entries_text, format!("cannot read input beyond line {line} (items read: {before})"));
    }
}

#[tokio::test]
async fn a_reader_that_panics_is_never_mistaken_for_the_end() {
    struct Panicking;
    impl Read for Panicking {
        fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
            panic!("on purpose")
        }
    }
    let (entries, error) =
        drain(Source::reader("input", (&b"{\"id\": 1}\n"[..]).chain(Panicking), Some(Format::Jsonl))).await;
    assert_eq!(items(&entries).len(), 1);
    assert!(matches!(error, Some(Error::Panicked { items: 1, .. })), "{error:?}");
}

#[tokio::test]
async fn a_read_interrupted_by_a_signal_is_retried() {
    struct Interrupted(bool);
    impl Read for Interrupted {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 = !self.0;
            if self.0 {
                Err(io::ErrorKind::Interrupted.into())
            } else {
                io::repeat(b' ').take(1).read(buffer)
            }
        }
    }
    let input = Interrupted(false).take(50).chain(&b"{\"id\": 1}"[..]);
    let (entries, error) = drain(Source::reader("input", input, Some(Format::Jsonl))).await;
    assert_eq!((entries.len(), error.is_none()), (1, true));
}

#[tokio::test]
async fn utf_16_is_read_with_a_byte_order_mark_and_refused_by_name_without_one() {
    let encode =
        |text: &str, to: fn(u16) -> [u8; 2]| -> Vec<u8> { text.encode_utf16().flat_map(to).collect() };
    let text = "{\"id\": \"Größe\"}\n{\"id\": \"記事\"}\n";
    for order in [u16::to_le_bytes as fn(u16) -> [u8; 2], u16::to_be_bytes] {
        let (entries, error) = read_as(Format::Jsonl, encode(&format!("\u{feff}{text}"), order)).await;
        assert!(error.is_none(), "{error:?}");
        let entries_text: Vec<String> = entries.iter().map(describe).collect();
        assert_eq!(entries_text, ["1 Größe", "2 記事"]);
        let (_, error) = read_as(Format::Jsonl, encode(text, order)).await;
        assert_eq!(
            error.unwrap().to_string(),
            "input is UTF-16 text without a byte-order mark; save it as UTF-8"
        );
    }
}

#[test]
fn a_source_that_cannot_be_opened_is_reported_before_anything_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let error = Source::file(directory.path().join("none.jsonl"), None).err().unwrap();
    assert!(error.to_string().contains("none.jsonl"), "{error}");
    let error = Source::file(directory.path(), None).err().unwrap();
    assert!(matches!(error, Error::Directory { .. }), "{error}");
}

#[tokio::test]
async fn a_file_is_read_in_the_format_of_its_name_and_progress_goes_from_0_to_1() {
    let mut file = tempfile::Builder::new().suffix(".CSV").tempfile().unwrap();
    file.write_all(b"id\n1\n2\n3\n").unwrap();
    let mut reader = Source::file(file.path(), None).unwrap().read().unwrap();
    let mut progress = vec![reader.progress()];
    while let Some(entry) = reader.next().await {
        entry.unwrap();
        progress.push(reader.progress());
    }
    progress.push(reader.progress());
    let share = |bytes: f64| Some(bytes / 9.0);
    assert_eq!(progress, [share(0.0), share(5.0), share(7.0), share(9.0), Some(1.0)]);
}

/// Returns a file of 200 items that is longer than what is read ahead.
fn long_file(letter: &str) -> String {
    let line = |id| format!("{{\"id\": {id}, \"text\": \"{}\"}}\n", letter.repeat(1000));
    (0..200).map(line).collect()
}

/// Reads a [`long_file`], and calls `change` after the first item. Returns the number of items, and the error that
/// ended reading.
async fn read_long_file(path: &Path, change: impl FnOnce()) -> (u64, Option<Error>) {
    fs::write(path, long_file("x")).unwrap();
    // The clock of a file system is coarse: a change soon after the file was written may not change its time.
    let file = fs::OpenOptions::new().append(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    let limits = Limits { ahead: 1, ..Limits::default() };
    let mut reader = Source::file(path, None).unwrap().with_limits(limits).read().unwrap();
    reader.next().await.unwrap().unwrap();
    change();
    let mut items = 1;
    while let Some(next) = reader.next().await {
        match next {
            Ok(Entry::Item(_)) => items += 1,
            Ok(Entry::Rejected(_)) => {}
            Err(error) => {
                assert!(reader.next().await.is_none(), "an error is the last");
                return (items, Some(error));
            }
        }
    }
    (items, None)
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_ends_with_an_error_after_its_items() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("items.jsonl");
    let appended = format!("{}{{\"id\": 200}}\n", long_file("x"));
    for (content, all_items) in [(appended, Some(201)), (long_file("y"), Some(200)), (String::new(), None)] {
        let (read, error) = read_long_file(&path, || fs::write(&path, &content).unwrap()).await;
        let error = error.unwrap();
        assert!(matches!(error, Error::Changed { items, .. } if items == read), "{error}");
        assert!(all_items.is_none_or(|all_items| read == all_items), "{read} of {all_items:?}");
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_while_it_is_read_is_read_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("items.jsonl");
    let other = directory.path().join("other.jsonl");
    fs::write(&other, "{\"id\": 1}\n").unwrap();
    let (read, error) = read_long_file(&path, || fs::rename(&other, &path).unwrap()).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(read, 200);
}

#[tokio::test]
async fn values_of_the_caller_are_items_like_those_of_a_file() {
    let source = Source::values("values", vec![json!({"id": 1}), json!(2), json!({"id": 1})]);
    let (entries, _) = drain(source).await;
    let entries_text: Vec<_> = entries.iter().map(describe).collect();
    assert_eq!(
        entries_text,
        ["1 1", "2: is a number, not a JSON object", "3: has the key \"1\" of the item on line 1"]
    );
    assert_eq!(rejects(&entries)[1].text, "{\"id\":1}");
}

#[tokio::test]
async fn no_more_entries_are_read_ahead_than_the_limits_allow() {
    let taken = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let count = taken.clone();
    let values = (0..100_000_u64).map(move |id| {
        count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        json!({"id": id})
    });
    let limits = Limits { ahead: 10, ..Limits::default() };
    let mut reader = Source::values("values", values).with_limits(limits).read().unwrap();
    for received in 1..=1000 {
        reader.next().await.unwrap().unwrap();
        // Ten entries are queued, and the thread holds one more.
        assert!(taken.load(std::sync::atomic::Ordering::SeqCst) <= received + 11);
    }
}

#[tokio::test]
async fn every_line_of_the_examples_is_an_item() {
    for (file, expected) in
        [("email/emails.jsonl", 20), ("ad_accounts/accounts.jsonl", 200), ("leads/leads.csv", 50)]
    {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(file);
        let (entries, error) = drain(Source::file(path, None).unwrap()).await;
        assert!(error.is_none() && rejects(&entries).is_empty(), "{file}: {error:?} {entries:?}");
        assert_eq!(entries.len(), expected, "{file}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn every_line_that_is_not_blank_becomes_an_item_or_a_reject(
        lines in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..12),
                prop::sample::select(vec![&b""[..], b" ", b"\r", b"{}", b"{\"id\":1}", b"{\"id\":2}\r", b"[]"]).prop_map(<[u8]>::to_vec),
            ],
            0..20,
        ),
    ) {
        // Line ends inside the random bytes create further lines; a byte-order mark at the start would be
        // dropped.
        let bytes = lines.join(&b'\n');
        let expected: Vec<u64> = (1..)
            .zip(bytes.split(|byte| *byte == b'\n'))
            .filter(|(_, line)| !line.trim_ascii().is_empty())
            .map(|(line, _)| line)
            .collect();
        prop_assume!(!bytes.starts_with(b"\xef\xbb\xbf"));
        let first = bytes.trim_ascii().first().copied();
        let (entries, error) = run(read_as(Format::Jsonl, bytes));
        match error {
            Some(Error::Encoding { .. }) => return Ok(()),
            // The first line shows that the input does not have one object per line.
            Some(Error::Layout { .. }) => {
                let may_begin = matches!(first, Some(b'[' | b'{'));
                prop_assert!(entries.is_empty() && may_begin);
                return Ok(());
            }
            error => prop_assert!(error.is_none(), "{error:?}"),
        }
        let seen: Vec<u64> = entries.iter().map(line).collect();
        prop_assert_eq!(seen, expected);
    }

    #[test]
    fn every_record_after_a_header_becomes_an_item_or_a_reject(
        bytes in prop::collection::vec(prop::sample::select(b"ab1,\"\n\r \xff".to_vec()), 0..80),
    ) {
        let input = [b"id,b\n", &bytes[..]].concat();
        let mut reader = ::csv::ReaderBuilder::new().flexible(true).from_reader(&input[..]);
        let is_blank = |record: &::csv::ByteRecord| {
            let start = record.position().unwrap().byte() as usize;
            let first = input[start..].iter().find(|byte| !matches!(byte, b'\r' | b'\n'));
            let is_quoted = first == Some(&b'"');
            record.iter().all(|field| field.trim_ascii().is_empty()) && (record.len() > 1 || !is_quoted)
        };
        let expected = reader.byte_records().filter(|record| !is_blank(record.as_ref().unwrap())).count();
        let (entries, error) = run(read_as(Format::Csv, input.clone()));
        prop_assert!(error.is_none());
        prop_assert_eq!(entries.len(), expected);
    }

    #[test]
    fn an_array_yields_every_element_or_reports_where_it_is_broken(
        values in prop::collection::vec(prop_oneof![Just(json!({"a": ["]", {"\"": "\\"}]})), Just(json!(1)), any::<u32>().prop_map(|id| json!({"id": id}))], 0..12),
        cut in any::<prop::sample::Index>(),
        pretty in any::<bool>(),
    ) {
        let all = Value::from(values.clone());
        let text = if pretty { format!("{all:#}") } else { all.to_string() };
        let (entries, error) = run(read_as(Format::Json, text.clone()));
        prop_assert!(error.is_none());
        prop_assert_eq!(entries.len(), values.len());
        let part = text[..cut.index(text.len())].to_owned();
        let empty = part.is_empty();
        let (some, error) = run(read_as(Format::Json, part));
        prop_assert_eq!(error.is_none(), empty);
        prop_assert_eq!(&some[..], &entries[..some.len()]);
    }

    #[test]
    fn no_input_bytes_make_a_source_panic(
        bytes in prop::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"[]{},:\"\\\n 1".to_vec())], 0..60),
        format in prop::sample::select(vec![None, Some(Format::Jsonl), Some(Format::Csv), Some(Format::Json)]),
    ) {
        let (_, error) = run(drain(Source::reader("input", Cursor::new(bytes), format)));
        let panicked = matches!(error, Some(Error::Panicked { .. }));
        prop_assert!(!panicked);
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn line(entry: &Entry) -> u64 {
    match entry {
        Entry::Item(item) => item.line,
        Entry::Rejected(reject) => reject.line,
    }
}

/// Inputs as Python's csv and json read them; written by `tests/data/python/generate.py`.
#[derive(serde::Deserialize)]
struct GoldenCsv {
    csv: String,
    rows: Vec<Value>,
}

#[derive(serde::Deserialize)]
struct GoldenJson {
    json: String,
    python_json: String,
}

#[tokio::test]
async fn csv_rows_are_read_as_by_python() {
    let golden = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/python/csv.json"));
    for GoldenCsv { csv, rows } in serde_json::from_str::<Vec<GoldenCsv>>(golden).unwrap() {
        let (entries, error) = read_as(Format::Csv, csv.clone()).await;
        assert!(error.is_none(), "{csv:?}: {error:?}");
        let read: Vec<Value> = items(&entries).into_iter().map(|item| item.value.clone()).collect();
        assert_eq!(read, rows, "{csv:?}");
    }
}

#[tokio::test]
async fn json_values_are_read_as_by_python() {
    let golden = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/python/json.json"));
    for GoldenJson { json, python_json } in serde_json::from_str::<Vec<GoldenJson>>(golden).unwrap() {
        let (entries, error) = read_as(Format::Jsonl, json.clone()).await;
        assert!(error.is_none(), "{json}: {error:?}");
        let expected: Value = serde_json::from_str(&python_json).unwrap();
        assert_eq!(normalize_numbers(&items(&entries)[0].value), normalize_numbers(&expected), "{json}");
    }
}

/// Returns a value whose fractions are written uniformly; integers are unchanged.
fn normalize_numbers(value: &Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => number.as_f64().into(),
        Value::Array(elements) => elements.iter().map(normalize_numbers).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, field)| (name.clone(), normalize_numbers(field))).collect()
        }
        value => value.clone(),
    }
}

#[tokio::test]
async fn a_limited_source_ends_after_its_items_and_knows_whether_the_input_has_more() {
    for (count, max_items, expected, is_limited) in
        [(3_u64, 3_u64, 3, false), (3, 4, 3, false), (4, 3, 3, true), (3_000, 1, 1, true)]
    {
        let values = (0..count).map(|number| json!({ "id": number }));
        let source = Source::values("items", values).with_max_items(max_items.try_into().unwrap());
        let mut reader = source.read().unwrap();
        let mut items = 0;
        while let Some(entry) = reader.next().await {
            entry.unwrap();
            items += 1;
        }
        assert_eq!((items, reader.is_limited()), (expected, is_limited), "{max_items} of {count}");
        assert_eq!(reader.progress(), Some(if is_limited { max_items as f64 / count as f64 } else { 1.0 }));
        assert!(reader.next().await.is_none());
    }
}

/// A pipe may stay open without another item.
#[tokio::test]
async fn a_limited_source_does_not_wait_long_for_the_end_of_a_pipe() {
    let (pipe, mut writer) = io::pipe().unwrap();
    writer.write_all(b"{\"id\":1}\n{\"id\":2}\n").unwrap();
    let source = Source::reader("pipe", pipe, Some(Format::Jsonl));
    let mut reader = source.with_max_items(2.try_into().unwrap()).read().unwrap();
    assert!(reader.next().await.is_some() && reader.next().await.is_some());
    let end = tokio::time::timeout(std::time::Duration::from_secs(20), reader.next()).await;
    assert!(matches!(end, Ok(None)) && reader.is_limited(), "{end:?}");
    drop(writer);
}
