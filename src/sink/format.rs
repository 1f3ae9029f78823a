//! The format of result lines, and what they contain.

use std::path::Path;

/// What is written for a CSV cell that a spreadsheet would run as a formula.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormulaCells {
    /// The cell starts with an apostrophe, and a spreadsheet shows it as text.
    #[default]
    Escaped,
    /// The cell is written unchanged.
    Verbatim,
}

/// Which columns a table of results has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OutputColumns {
    /// The fields of the input, the answers, `status` and `error`.
    #[default]
    Default,
    /// The key and the answers.
    Minimal,
    /// The default ones, and what the item used: targets, tokens, cost, duration.
    Full,
}

/// What result lines contain besides the answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LineOptions {
    /// The columns of a table.
    pub columns: OutputColumns,
    /// Whether JSON lines have the fields of their item.
    pub with_item: bool,
}

impl LineOptions {
    /// Creates the default: tables with the fields of the input, and JSON lines without.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the columns of a table.
    #[must_use]
    pub fn with_columns(self, columns: OutputColumns) -> Self {
        Self { columns, ..self }
    }

    /// Sets whether JSON lines have the fields of their item.
    #[must_use]
    pub fn with_item(self, with_item: bool) -> Self {
        Self { with_item, ..self }
    }

    /// Returns whether lines in `format` have the fields of their item.
    pub fn needs_item(self, format: Format) -> bool {
        if format.is_table() { self.needs_fields(format) } else { self.with_item }
    }

    /// Returns whether the names of the fields of the input must be known before the first line.
    pub fn needs_fields(self, format: Format) -> bool {
        let has_fields = match self.columns {
            OutputColumns::Minimal => false,
            OutputColumns::Default | OutputColumns::Full => true,
        };
        format.is_table() && has_fields
    }
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// One JSON object per line.
    Jsonl,
    /// Comma-separated values under one header row.
    Csv(FormulaCells),
    /// A Parquet file. It can be written only as a whole, so it replaces the file at the end.
    Parquet,
}

impl Format {
    /// Returns the format for a file of this name: CSV for `.csv`, Parquet for `.parquet`, else JSON lines.
    pub fn of(path: &Path) -> Self {
        let has_extension =
            |wanted: &str| path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(wanted));
        if has_extension("csv") {
            Self::Csv(FormulaCells::default())
        } else if has_extension("parquet") {
            Self::Parquet
        } else {
            Self::Jsonl
        }
    }

    /// Returns whether lines are rows of a table.
    pub fn is_table(self) -> bool {
        match self {
            Self::Jsonl => false,
            Self::Csv(_) | Self::Parquet => true,
        }
    }
}
