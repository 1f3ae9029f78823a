//! Fields of a request that only one format has.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::Format;

/// Fields that a request to a target of one format carries in addition, such as `service_tier`. Targets of another
/// format do not get them.
///
/// ```
/// use pointsman::{Format, Prompt, VendorFields};
///
/// let fields = serde_json::json!({ "service_tier": "flex" }).as_object().cloned().unwrap_or_default();
/// let prompt = Prompt::text("Hello?").with_vendor_fields(VendorFields::new(Format::Openai, fields));
/// assert_eq!(prompt.vendor_fields.len(), 1);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct VendorFields {
    /// The format of the targets that get them.
    pub format: Format,
    /// The fields. An object is merged into the object of the same name. A target refuses a field that the request sets
    /// itself, and one that `extra` of the model sets to another value: its price is that of the configured value.
    pub fields: Arc<Map<String, Value>>,
}

impl VendorFields {
    /// Creates fields for targets of this format.
    pub fn new(format: Format, fields: impl Into<Arc<Map<String, Value>>>) -> Self {
        Self { format, fields: fields.into() }
    }
}
