//! Writes one line per finished item, and one line per rejected piece of the input.
//!
//! A thread writes the lines. A [`Sink`] passes them to it through a bounded queue, so a slow disk or pipe
//! slows the run down instead of filling the memory. Alternatively the sink sends the lines to the program
//! itself through a channel. A failed write is reported by the next write and by [`Sink::finish`], with the
//! number of lines that were saved. A file never ends in a partial line.

mod atomic_file;
#[cfg(feature = "parquet")]
mod column_type;
mod columns;
mod csv_rows;
mod destination;
mod encoder_slot;
mod error;
mod format;
mod layout;
mod line;
mod line_encoder;
mod output;
mod output_owner;
#[cfg(feature = "parquet")]
mod parquet_table;
mod reorder_buffer;
mod restore;
#[cfg(feature = "parquet")]
mod spool_rows;
#[cfg(feature = "parquet")]
mod table_file;
#[cfg(test)]
mod tests;
mod write;
mod write_queue;

pub use destination::Destination;
pub use error::Error;
pub use format::{Format, FormulaCells, LineOptions, OutputColumns};
pub use layout::{OtherFields, RowLayout, StepColumns};
pub use line::{Line, LineError, RejectLine, StepError, StepLine, StepStatus, TokenCount};
pub use line_encoder::LineEncoder;
pub use output::WriteSummary;
pub(crate) use output::WrittenLength;
pub use output_owner::{OutputOwner, ReplaceableFile, Replacement, WrittenFile};
pub use reorder_buffer::ReorderBuffer;
pub use write::Sink;
