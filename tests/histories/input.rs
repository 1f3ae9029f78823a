//! The input file: items, malformed records, and items with duplicate keys.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::options::HistoryOptions;
use super::setup::Item;

/// A record of the input beside the items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ExtraRecord {
    /// A malformed record, of one of three kinds.
    Malformed(u8),
    /// A copy with another text of the item at this position among those with an `id`. Records without an `id` never repeat
    /// a key: equal ones have keys of their own.
    DuplicateKey(u8, u8),
}

/// The expected reading of the input: the first item of a key counts, later ones are rejected.
#[derive(Debug, Default)]
pub(crate) struct Input {
    pub(crate) text: String,
    pub(crate) items: Vec<Item>,
    /// The line number of each item, by key.
    pub(crate) line_numbers: BTreeMap<String, u64>,
    /// The rejected records by line number: the key, if there is one, and a part of the reason.
    pub(crate) rejects: BTreeMap<u64, (Option<String>, &'static str)>,
}

impl Input {
    /// Writes the items. Each extra record is inserted before the item at its position.
    pub(crate) fn new(options: HistoryOptions, items: &[Item], extras: &[(u8, ExtraRecord)]) -> Self {
        let mut input = Self::default();
        if options.csv_items {
            input.text.push_str("id,name,picture,tag,text\n");
        }
        for position in 0..=items.len() {
            for (_, extra) in
                extras.iter().filter(|(before, _)| usize::from(*before) % (items.len() + 1) == position)
            {
                match extra {
                    ExtraRecord::Malformed(kind) => input.add_malformed(options, *kind),
                    ExtraRecord::DuplicateKey(original, text) => {
                        let with_id: Vec<&Item> = items.iter().filter(|item| item.has_id()).collect();
                        if !with_id.is_empty() {
                            let mut duplicate = with_id[usize::from(*original) % with_id.len()].clone();
                            duplicate.text = *text;
                            input.add_item(&duplicate);
                        }
                    }
                }
            }
            if let Some(item) = items.get(position) {
                input.add_item(item);
            }
        }
        input
    }

    fn add_item(&mut self, item: &Item) {
        let line = self.next_line();
        self.text.push_str(&item.line());
        match self.line_numbers.entry(item.key()) {
            Entry::Occupied(first) => {
                assert!(item.has_id(), "{item:?} is not a duplicate of an item with an `id`");
                self.rejects.insert(line, (Some(first.key().clone()), "has the key"));
            }
            Entry::Vacant(entry) => {
                entry.insert(line);
                self.items.push(item.clone());
            }
        }
    }

    fn add_malformed(&mut self, options: HistoryOptions, kind: u8) {
        let line = self.next_line();
        let (text, reason) = match (options.csv_items, kind % 3) {
            (true, 0) => ("i0,only\n", "has 2 fields, the header has 5"),
            (true, 1) => ("one\n", "has 1 field, the header has 5"),
            (true, _) => ("i0,a,b,c,d,e\n", "has 6 fields, the header has 5"),
            (false, 0) => ("{\"id\":\"i0\",\n", "is not JSON"),
            (false, 1) => ("[\"i0\"]\n", "not a JSON object"),
            (false, _) => ("{\"id\":true,\"name\":\"i0\"}\n", "has true or false as `id`"),
        };
        self.text.push_str(text);
        self.rejects.insert(line, (None, reason));
    }

    fn next_line(&self) -> u64 {
        self.text.matches('\n').count() as u64 + 1
    }

    /// Returns the keys in the order of the input.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.items.iter().map(Item::key).collect()
    }

    pub(crate) fn key_set(&self) -> BTreeSet<String> {
        self.line_numbers.keys().cloned().collect()
    }
}
