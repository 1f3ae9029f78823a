//! `run --limit`: only the first items of the input are processed.

use std::num::NonZeroU64;

use crate::source::Source;

/// The option for the first items. It is not a part of the run: the same command without it continues the run.
#[derive(Debug, Clone, Default, clap::Args)]
pub(super) struct LimitArgs {
    /// Process only the first items, and show their answers as a table in a terminal. The same command without --limit
    /// continues from there.
    #[arg(long = "limit", value_name = "ITEMS")]
    pub(super) max_items: Option<NonZeroU64>,
}

impl LimitArgs {
    /// Returns the source of the items that are processed.
    pub(super) fn limited(&self, source: Source) -> Source {
        match self.max_items {
            Some(max_items) => source.with_max_items(max_items),
            None => source,
        }
    }
}
