//! Why an item failed, as lists of failures show it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::output_line;
use crate::store::StoredItem;
use crate::types::{Class, ItemKey, ItemStatus, StepName};

/// A failed item. The names of its fields are a compatibility promise, as those of result lines are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FailedItem {
    /// Its key.
    pub key: ItemKey,
    /// The line of the input on which it begins, from 1.
    pub line: u64,
    /// The class of the failure; null if it is not known.
    pub class: Option<Class>,
    /// The step that failed; null if it is not known.
    pub step: Option<StepName>,
    /// What happened, in the provider's words where there are any.
    pub message: String,
    /// The fields of the item; null if they are not stored.
    pub item: Value,
}

impl FailedItem {
    /// Returns why an item failed; `None` if it has not.
    pub(super) fn of(item: &StoredItem) -> Option<Self> {
        let outcome = item.outcome.as_ref().filter(|outcome| outcome.status == ItemStatus::Failed)?;
        let error = outcome.error.as_ref();
        let input = output_line::stored_fields(item);
        Some(Self {
            key: item.head.key.clone(),
            line: item.head.line,
            class: error.map(|(_, failure)| failure.class),
            step: error.map(|(step, _)| step.clone()),
            message: error.map(|(_, failure)| failure.message.to_string()).unwrap_or_default(),
            item: input.unwrap_or(Value::Null),
        })
    }
}
