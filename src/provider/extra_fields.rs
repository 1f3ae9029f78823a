//! The vendor fields of a model, read from TOML into JSON.

use std::fmt;
use std::sync::Arc;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Number, Value};

/// Prefix of the key with which `toml` passes a date.
const DATE_KEY: &str = "$__toml_private";

/// Deserializes a table of vendor fields, for serde's `deserialize_with`.
pub(super) fn extra_fields<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Arc<Map<String, Value>>>, D::Error> {
    from.deserialize_map(TableVisitor).map(|fields| Some(Arc::new(fields)))
}

struct TableVisitor;

impl<'de> Visitor<'de> for TableVisitor {
    type Value = Map<String, Value>;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut table: A) -> Result<Map<String, Value>, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = table.next_key::<String>()? {
            if name.starts_with(DATE_KEY) {
                return Err(A::Error::custom("a date is not allowed here; write it as text in quotes"));
            }
            let Field(value) = table.next_value()?;
            fields.insert(name, value);
        }
        Ok(fields)
    }
}

/// A value of a vendor field.
struct Field(Value);

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(FieldVisitor).map(Self)
    }
}

struct FieldVisitor;

impl<'de> Visitor<'de> for FieldVisitor {
    type Value = Value;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("text, a number, true, false, a list or a table")
    }

    fn visit_bool<E: Error>(self, switch: bool) -> Result<Value, E> {
        Ok(switch.into())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        let finite = Number::from_f64(number).map(Value::Number);
        finite.ok_or_else(|| E::custom(format!("JSON has no number {number}; write a finite number")))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Field(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, table: A) -> Result<Value, A::Error> {
        TableVisitor.visit_map(table).map(Value::Object)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::provider::Model;

    #[test]
    fn every_value_of_toml_except_a_date_has_its_value_in_json() {
        let text = "[extra]\nservice_tier = 'flex'\nseconds = 30\nshare = 0.5\nlog = true\nlist = [1, 'a', [], {}]\n\
                    nested.inner.x = -1\n";
        let model: Model = toml::from_str(text).unwrap();
        let expected = json!({
            "service_tier": "flex",
            "seconds": 30,
            "share": 0.5,
            "log": true,
            "list": [1, "a", [], {}],
            "nested": { "inner": { "x": -1 } },
        });
        assert_eq!(model.extra.as_deref(), expected.as_object());
        assert_eq!(toml::from_str::<Model>("").unwrap().extra, None);
    }

    #[test]
    fn a_date_and_a_number_without_a_value_in_json_are_refused_at_their_position() {
        for (text, wrong) in [
            ("extra = { a = 1, b = 2024-01-01 }", "2024-01-01"),
            ("extra = { a = { b = 12:30:00 } }", "12:30:00"),
            ("extra = { a = [1, 2024-01-01T00:00:00Z] }", "2024-01-01T00:00:00Z"),
            ("extra = 2024-01-01", "2024-01-01"),
            ("extra = { a = nan }", "nan"),
            ("extra = { a = [-inf] }", "-inf"),
            ("extra = 'x'", "'x'"),
        ] {
            let error = toml::from_str::<Model>(text).unwrap_err();
            assert_eq!(error.span().map(|span| &text[span]), Some(wrong), "{error}");
        }
    }
}
