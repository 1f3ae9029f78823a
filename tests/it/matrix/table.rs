//! What was measured, as the table of docs/guarantees.md.

use std::fmt::{Display, Write};
use std::fs;

use super::cell::Measured;
use super::rows::{Cost, Row, Word};
use crate::program::repository;
use crate::stage::FORMATS;

const BEGIN: &str = "<!-- What follows is written by tests/it/matrix.rs. -->\n\n";
const END: &str = "\n<!-- Here it ends. -->\n";

const HEAD: &str = "\
| what goes wrong | class | verdict | costs | item | one lane | once | two lanes | once |
|---|---|---|---|---|---|---|---|---|
";

/// Holds the table of the documentation to what was measured, or writes it there when told to.
pub(super) fn compare(rows: &[Row], measured: &[Measured]) {
    let path = repository("docs/guarantees.md");
    let text = fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once(BEGIN).unwrap();
    let (table, after) = rest.split_once(END).unwrap();
    let now = render(rows, measured);
    if std::env::var_os("POINTSMAN_WRITE_DOCS").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{now}{END}{after}")).unwrap();
    } else {
        let differs = table.lines().zip(now.lines()).find(|(told, measured)| told != measured);
        let hint = "docs/guarantees.md says otherwise; run with POINTSMAN_WRITE_DOCS=1 to write it";
        assert!(table == now, "{hint}; first of all: {differs:#?}");
    }
}

fn render(rows: &[Row], measured: &[Measured]) -> String {
    let mut text = HEAD.to_owned();
    for (number, row) in rows.iter().enumerate() {
        let of_row = || measured.iter().filter(move |measured| measured.cell.row == number);
        let failed = |format| {
            let mut of_format = of_row().filter(move |measured| measured.cell.format == format);
            of_format.find_map(|measured| measured.failed.first().copied()).unwrap()
        };
        let class = merge([0, 1, 2].map(|format| format!("`{}`", failed(format).0)));
        let verdict = merge([0, 1, 2].map(|format| word(failed(format).1)));
        let cost = merge([0, 1, 2].map(|format| paid(failed(format).2)));
        let item = merge([0, 1, 2].map(|format| {
            let mut of_format = of_row().filter(|measured| measured.cell.format == format);
            of_format.find_map(|measured| measured.item).unwrap()
        }));
        write!(text, "| {} | {class} | {verdict} | {cost} | {item} |", row.name).unwrap();
        for course in 0..4 {
            let follows = [0, 1, 2].map(|format| {
                let place =
                    |measured: &&Measured| (measured.cell.format, measured.cell.course) == (format, course);
                of_row().find(place).map_or("–".to_owned(), |measured| measured.follows.to_string())
            });
            write!(text, " {} |", merge(follows)).unwrap();
        }
        text.push('\n');
    }
    text
}

/// Says once what is the same for all formats; else what most of them do, and who does not.
fn merge<T: Display + PartialEq>(all: [T; 3]) -> String {
    let like = |one: &T| all.iter().filter(|other| *other == one).count();
    let usual = all.iter().rev().max_by_key(|one| like(one)).unwrap();
    let mut text = usual.to_string();
    for (one, (format, _)) in all.iter().zip(FORMATS).filter(|(one, _)| *one != usual) {
        write!(text, "; {format}: {one}").unwrap();
    }
    text
}

fn word(verdict: Word) -> &'static str {
    match verdict {
        Word::Again => "again",
        Word::Elsewhere => "elsewhere",
        Word::Never => "never",
    }
}

fn paid(cost: Cost) -> &'static str {
    match cost {
        Cost::No => "no",
        Cost::Maybe => "maybe",
        Cost::Yes => "yes",
    }
}
