//! The input file: items, records that are no items, and items whose key another has.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::form::Form;
use super::world::Item;

/// A record beside the items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Extra {
    /// No item, of one of three kinds.
    Bad(u8),
    /// A copy of the item at this place, with another text where that leaves it its key.
    Twin(u8, u8),
}

/// The input as it is to be read: the first item of a key counts, any other is rejected.
#[derive(Debug, Default)]
pub(crate) struct Input {
    pub(crate) text: String,
    pub(crate) items: Vec<Item>,
    /// The line of each item, by its key.
    pub(crate) lines: BTreeMap<String, u64>,
    /// What is rejected: its line, its key if it has one, and words of the reason.
    pub(crate) rejects: BTreeMap<u64, (Option<String>, &'static str)>,
}

impl Input {
    /// Writes the items with the extra records between them, each before the item at its place.
    pub(crate) fn new(form: Form, items: &[Item], extras: &[(u8, Extra)]) -> Self {
        let mut input = Self::default();
        if form.csv_items {
            input.text.push_str("id,name,picture,tag,text\n");
        }
        for place in 0..=items.len() {
            for (_, extra) in extras.iter().filter(|(at, _)| usize::from(*at) % (items.len() + 1) == place) {
                match extra {
                    Extra::Bad(kind) => input.bad(form, *kind),
                    Extra::Twin(of, text) => {
                        let mut twin = items[usize::from(*of) % items.len()].clone();
                        if twin.has_id() {
                            twin.text = *text;
                        }
                        input.item(&twin);
                    }
                }
            }
            if let Some(item) = items.get(place) {
                input.item(item);
            }
        }
        input
    }

    fn item(&mut self, item: &Item) {
        let line = self.next_line();
        self.text.push_str(&item.line());
        match self.lines.entry(item.key()) {
            Entry::Occupied(first) => {
                let why = if item.has_id() { "has the key" } else { "has the same content" };
                self.rejects.insert(line, (Some(first.key().clone()), why));
            }
            Entry::Vacant(free) => {
                free.insert(line);
                self.items.push(item.clone());
            }
        }
    }

    fn bad(&mut self, form: Form, kind: u8) {
        let line = self.next_line();
        let (text, why) = match (form.csv_items, kind % 3) {
            (true, 0) => ("i0,only\n", "has 2 fields, the header has 5"),
            (true, 1) => ("one\n", "has 1 field, the header has 5"),
            (true, _) => ("i0,a,b,c,d,e\n", "has 6 fields, the header has 5"),
            (false, 0) => ("{\"id\":\"i0\",\n", "is not JSON"),
            (false, 1) => ("[\"i0\"]\n", "not a JSON object"),
            (false, _) => ("{\"id\":true,\"name\":\"i0\"}\n", "has true or false as `id`"),
        };
        self.text.push_str(text);
        self.rejects.insert(line, (None, why));
    }

    fn next_line(&self) -> u64 {
        self.text.matches('\n').count() as u64 + 1
    }

    /// The keys in the order of the input.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.items.iter().map(Item::key).collect()
    }

    pub(crate) fn key_set(&self) -> BTreeSet<String> {
        self.lines.keys().cloned().collect()
    }
}
