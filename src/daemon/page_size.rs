//! How many items are read at once, so that a page takes about as much memory whatever their size.

use serde_json::Value;

use crate::store::StoredItem;

/// How many items the first page has. An item can have many megabytes.
const FIRST: usize = 8;

/// How many items a page has at most.
const MAX: usize = 100;

/// How many bytes of text a page should have.
const TARGET_BYTES: usize = 1 << 20;

/// How many items the next page has.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageSize(usize);

impl PageSize {
    /// Returns the size of the first page.
    pub(super) fn first() -> Self {
        Self(FIRST)
    }

    /// Returns how many items the page has.
    pub(super) fn items(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }

    /// Returns the size of the page after this one. It is at most doubled.
    #[must_use]
    pub(super) fn after(self, page: &[StoredItem]) -> Self {
        let bytes: usize = page.iter().map(item_bytes).sum();
        let mean = bytes / page.len().max(1);
        Self((TARGET_BYTES / (mean + 1)).clamp(1, MAX.min(2 * self.0)))
    }
}

/// Returns about how many bytes of text an item has.
fn item_bytes(item: &StoredItem) -> usize {
    let input = item.head.input.as_ref().map_or(0, |input| input.len());
    let steps = item.steps.iter().map(|step| {
        let failure = step.record.failure.as_ref();
        let text = failure.and_then(|failure| failure.text.as_ref()).map_or(0, |text| text.len());
        value_bytes(&step.record.answer) + text
    });
    input + steps.sum::<usize>()
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len(),
        Value::Array(values) => values.iter().map(value_bytes).sum(),
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + value_bytes(value)).sum(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::{ItemHead, ItemNumber};
    use crate::types::Fingerprint;

    fn page(items: usize, bytes: usize) -> Vec<StoredItem> {
        let input: Arc<str> = "a".repeat(bytes).into();
        let item = |number| StoredItem {
            head: ItemHead {
                number: ItemNumber(number),
                key: "k".into(),
                content: Fingerprint::of([b"".as_slice()]),
                line: 1,
                input: Some(input.clone()),
            },
            outcome: None,
            steps: Vec::new(),
        };
        (1..=items as i64).map(item).collect()
    }

    #[test]
    fn pages_grow_to_their_limit_and_shrink_for_large_items() {
        let mut size = PageSize::first();
        for expected in [16, 32, 64, 100, 100] {
            size = size.after(&page(size.0, 10));
            assert_eq!(size.items(), expected);
        }
        assert_eq!(size.after(&page(100, 100 << 10)).items(), 10);
        assert_eq!(size.after(&page(1, 16 << 20)).items(), 1);
        assert_eq!(size.after(&[]).items(), 100);
    }
}
