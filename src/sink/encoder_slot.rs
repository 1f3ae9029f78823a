//! The encoder of a sink, which is created once its layout is known.
//!
//! The fields of the input are known when the run begins to read, which is after its output was opened.

use std::io;
use std::sync::OnceLock;

use super::format::{Format, LineOptions};
use super::layout::{RowLayout, StepColumns};
use super::line::Line;
use super::line_encoder::LineEncoder;
#[cfg(feature = "parquet")]
use super::parquet_table::Table;
use crate::types::StepName;

/// The encoder of a sink of result lines.
pub(super) struct EncoderSlot {
    pub(super) format: Format,
    pub(super) options: LineOptions,
    /// The layout if no other is set.
    default_layout: RowLayout,
    encoder: OnceLock<LineEncoder>,
}

impl EncoderSlot {
    pub(super) fn new(format: Format, options: LineOptions, steps: &[StepName]) -> Self {
        let steps = steps.iter().cloned().map(StepColumns::new).collect();
        Self { format, options, default_layout: RowLayout::new(steps), encoder: OnceLock::new() }
    }

    /// Sets the layout, unless a line was encoded before.
    pub(super) fn set_layout(&self, layout: &RowLayout) {
        self.encoder.get_or_init(|| LineEncoder::with_layout(self.format, self.options, layout));
    }

    fn encoder(&self) -> &LineEncoder {
        let create = || LineEncoder::with_layout(self.format, self.options, &self.default_layout);
        self.encoder.get_or_init(create)
    }

    /// Returns the table that the lines so far become; `None` if they are the file.
    #[cfg(feature = "parquet")]
    pub(super) fn table(&self) -> Option<Table> {
        self.encoder().table()
    }

    pub(super) fn header(&self) -> io::Result<Vec<u8>> {
        self.encoder().header()
    }

    pub(super) fn write(&self, line: &Line, out: &mut Vec<u8>) -> io::Result<()> {
        self.encoder().write(line, out)
    }
}
