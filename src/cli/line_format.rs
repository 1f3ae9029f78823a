//! The format of the results, by the options and the name of the file.

use std::path::Path;

use anyhow::ensure;

use crate::sink;

use super::args::{Csv, CsvFormulas, LineFormat};

/// Ends of file names that promise a format in which results are not written.
const OTHER_FORMATS: [&str; 8] = ["xlsx", "xls", "ods", "tsv", "gz", "zst", "zip", "xml"];

/// Refuses a file for results whose name promises another format.
pub(super) fn check_name(argument: Option<LineFormat>, out: &Path) -> anyhow::Result<()> {
    let extension = out.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    ensure!(
        argument.is_some() || !OTHER_FORMATS.iter().any(|other| other.eq_ignore_ascii_case(extension)),
        "results are not written as .{extension}: name a file that ends in .csv, .parquet or .jsonl, or set the format \
         (--output-format)"
    );
    Ok(())
}

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
