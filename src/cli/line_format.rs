//! The format of the results, by the options and the name of the file.

use std::path::Path;

use crate::sink;

use super::args::{Csv, CsvFormulas, LineFormat};

/// Returns the format of the results at `out`.
pub(super) fn format(argument: Option<LineFormat>, csv: Csv, out: &Path) -> sink::Format {
    let formulas = match csv.csv_formulas {
        CsvFormulas::Neutral => sink::FormulaCells::Escaped,
        CsvFormulas::Keep => sink::FormulaCells::Verbatim,
    };
    match argument.map_or_else(
        || sink::Format::of(out),
        |format| match format {
            LineFormat::Jsonl => sink::Format::Jsonl,
            LineFormat::Csv => sink::Format::Csv(formulas),
            LineFormat::Parquet => sink::Format::Parquet,
        },
    ) {
        sink::Format::Jsonl => sink::Format::Jsonl,
        sink::Format::Parquet => sink::Format::Parquet,
        sink::Format::Csv(_) => sink::Format::Csv(formulas),
    }
}
