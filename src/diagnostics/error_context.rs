//! What is known about the position of an error.

use toml::de::DeValue;

/// What is known about the position of an error.
#[derive(Default)]
pub(super) struct ErrorContext<'a> {
    /// The key of the value; `None` in a list.
    pub(super) key: Option<String>,
    /// The value in the file.
    pub(super) value: Option<&'a DeValue<'a>>,
    /// The enum values, or the keys of the table, that are accepted there.
    pub(super) accepted: Vec<String>,
    /// The header of a nearby table that accepts the unknown key.
    pub(super) accepting_table: Option<String>,
}
