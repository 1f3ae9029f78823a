//! Numbers as serde_json presents them with `exact-numbers`: as a map with the digits.

use std::borrow::Cow;

use serde::de::{IgnoredAny, MapAccess};

/// The map key under which serde_json presents a number of arbitrary precision.
pub(super) const NUMBER_KEY: &str = "$serde_json::private::Number";

/// Returns the digits of a number; `None` for a real map, which is read to its end.
pub(super) fn read_number<'de, A: MapAccess<'de>>(mut all: A) -> Result<Option<String>, A::Error> {
    match all.next_key::<Cow<'de, str>>()?.as_deref() {
        Some(NUMBER_KEY) => return all.next_value::<String>().map(Some),
        Some(_) => all.next_value::<IgnoredAny>().map(|_| ())?,
        None => return Ok(None),
    }
    while all.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
    Ok(None)
}
