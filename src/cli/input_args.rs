//! How the items are read, where their file does not show it.

use serde::{Deserialize, Serialize};

use crate::source::{Delimiter, Source};

use super::shell_word::shell_word;

/// Settings of the items.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args, Serialize, Deserialize)]
#[serde(default)]
#[command(next_help_heading = "Items")]
pub(super) struct InputArgs {
    /// The column or field that is the key of an item. Every item needs it [default: `id`, else a hash of the item].
    #[arg(long, value_name = "COLUMN")]
    key: Option<String>,
    /// What separates the columns of CSV, such as ";", "|" or tab [default: as its first line shows].
    #[arg(long, value_name = "CHARACTER")]
    delimiter: Option<Delimiter>,
    /// The sheet of an Excel workbook, by name or number [default: the first one].
    #[arg(long, value_name = "SHEET")]
    sheet: Option<String>,
    /// The key of a JSON object whose value is the array of items [default: the only array of objects].
    #[arg(long, value_name = "KEY")]
    items_key: Option<String>,
}

impl InputArgs {
    /// Returns a source with these settings.
    pub(super) fn apply(&self, mut source: Source) -> Source {
        if let Some(key) = &self.key {
            source = source.with_key(key);
        }
        if let Some(delimiter) = self.delimiter {
            source = source.with_delimiter(delimiter);
        }
        if let Some(sheet) = &self.sheet {
            source = source.with_sheet(sheet);
        }
        if let Some(key) = &self.items_key {
            source = source.with_items_key(key);
        }
        source
    }

    /// Returns the options of a command with these settings, each with a space before it.
    pub(super) fn options(&self) -> String {
        let delimiter = self.delimiter.map(|delimiter| delimiter.to_string());
        let settings = [
            ("--key", &self.key),
            ("--delimiter", &delimiter),
            ("--sheet", &self.sheet),
            ("--items-key", &self.items_key),
        ];
        let set = settings.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        set.map(|(name, value)| format!(" {name} {}", shell_word(value))).collect()
    }

    /// Returns what makes the items others than those of the same file without settings; `None` without settings.
    pub(super) fn identity(&self) -> Option<String> {
        let delimiter = self.delimiter.map(|delimiter| delimiter.to_string());
        let settings = [
            ("key", &self.key),
            ("delimiter", &delimiter),
            ("sheet", &self.sheet),
            ("items key", &self.items_key),
        ];
        let set: Vec<String> = settings
            .into_iter()
            .filter_map(|(name, value)| Some(format!("{name} {:?}", value.as_ref()?)))
            .collect();
        (!set.is_empty()).then(|| set.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_saved_and_part_of_the_identity() {
        let args = InputArgs {
            key: Some("sku".to_owned()),
            delimiter: Some("tab".parse().unwrap()),
            sheet: None,
            items_key: None,
        };
        let saved = serde_json::to_value(&args).unwrap();
        assert_eq!(serde_json::from_value::<InputArgs>(saved).unwrap(), args);
        assert_eq!(args.identity().as_deref(), Some("key \"sku\", delimiter \"tab\""));
        assert_eq!(serde_json::from_str::<InputArgs>("{}").unwrap(), InputArgs::default());
        assert_eq!(InputArgs::default().identity(), None);
    }
}
