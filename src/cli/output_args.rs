//! Options of what result lines contain.

use anyhow::ensure;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::sink::{Format, LineOptions, OutputColumns};

/// What result lines contain besides the answers.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, clap::Args)]
pub(super) struct OutputArgs {
    /// The columns of a table (CSV, Parquet) [default: default].
    #[arg(long, value_name = "COLUMNS")]
    #[serde(default)]
    output_columns: Option<ColumnChoice>,
    /// Add the fields of the item to each JSON line, under `item`.
    #[arg(long)]
    #[serde(default)]
    with_item: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ColumnChoice {
    /// The columns of the input, one per step, `status` and `error`.
    Default,
    /// The key and one column per step.
    Minimal,
    /// Everything: also targets, tokens, cost and duration.
    Full,
}

impl OutputArgs {
    /// Refuses options that lines in `format` do not have.
    pub(super) fn check(self, format: Format) -> anyhow::Result<()> {
        let is_table = format.is_table();
        ensure!(
            is_table || self.output_columns.is_none(),
            "--output-columns is for tables, and the results are JSON lines; name a file that ends in .csv, or add \
             the fields of the items (--with-item)"
        );
        ensure!(
            !is_table || !self.with_item,
            "--with-item is for JSON lines; a table has the columns of the input unless they are left out \
             (--output-columns minimal)"
        );
        Ok(())
    }

    /// Returns what lines contain.
    pub(super) fn options(self) -> LineOptions {
        let columns = match self.output_columns {
            None | Some(ColumnChoice::Default) => OutputColumns::Default,
            Some(ColumnChoice::Minimal) => OutputColumns::Minimal,
            Some(ColumnChoice::Full) => OutputColumns::Full,
        };
        LineOptions::new().with_columns(columns).with_item(self.with_item)
    }

    /// Returns the part of the query of a daemon that asks for it.
    #[cfg(feature = "server")]
    pub(super) fn query(self) -> &'static str {
        match (self.output_columns, self.with_item) {
            (None | Some(ColumnChoice::Default), false) => "",
            (None | Some(ColumnChoice::Default), true) => "&item=true",
            (Some(ColumnChoice::Minimal), _) => "&columns=minimal",
            (Some(ColumnChoice::Full), _) => "&columns=full",
        }
    }
}
