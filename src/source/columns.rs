//! The names of the columns of a table, checked one by one.

use super::error::LayoutFault;

/// Longest name of a column in bytes: it is repeated in every item and in messages.
const MAX_COLUMN_NAME_BYTES: usize = 256;

/// Most bytes of all names together, for the same reason.
const MAX_HEADER_BYTES: usize = 64 << 10;

/// The names of the columns that were read so far.
#[derive(Debug, Default)]
pub(super) struct ColumnNames {
    names: Vec<String>,
    bytes: usize,
}

impl ColumnNames {
    /// Appends the name of the next column, without the white space around it.
    pub(super) fn push(&mut self, name: &str) -> Result<(), LayoutFault> {
        let number = self.names.len() + 1;
        let name = name.trim();
        if name.len() > MAX_COLUMN_NAME_BYTES {
            return Err(format!(
                "the name of column {number} has {} bytes, and a name may have {MAX_COLUMN_NAME_BYTES}; shorten \
                 it, or add a header row if this is data",
                name.len()
            )
            .into());
        }
        self.bytes += name.len();
        if self.bytes > MAX_HEADER_BYTES {
            return Err(format!(
                "the names of the columns up to column {number} have {} bytes together, and all may have \
                 {MAX_HEADER_BYTES}; shorten them, or leave columns out",
                self.bytes
            )
            .into());
        }
        if name.is_empty() {
            return Err(
                format!("column {number} has no name; every column needs one in the header row").into()
            );
        }
        if let Some(first) = self.names.iter().position(|column| column == name) {
            let first = first + 1;
            return Err(format!("columns {first} and {number} are both named {name:?}; rename one").into());
        }
        self.names.push(name.to_owned());
        Ok(())
    }

    /// Returns the names in the order of the columns.
    pub(super) fn into_names(self) -> Vec<String> {
        self.names
    }
}
