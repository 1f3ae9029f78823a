//! The type of a column of a Parquet file, by its values.

use serde_json::{Number, Value};

/// Whole numbers up to this one are exact as floating-point numbers.
const MAX_EXACT_INTEGER: u64 = 1 << 53;

/// The type of a column, by the values that it has so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum ColumnType {
    /// It has no value.
    #[default]
    Empty,
    Boolean,
    /// Whole numbers that are exact as floating-point numbers.
    SmallInteger,
    Integer,
    Float,
    Text,
}

impl ColumnType {
    pub(super) fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Empty,
            Value::Bool(_) => Self::Boolean,
            Value::Number(number) => Self::of_number(number),
            Value::String(_) | Value::Array(_) | Value::Object(_) => Self::Text,
        }
    }

    fn of_number(number: &Number) -> Self {
        match number.as_i64() {
            Some(integer) if integer.unsigned_abs() <= MAX_EXACT_INTEGER => Self::SmallInteger,
            Some(_) => Self::Integer,
            None => {
                let is_fraction = number.to_string().contains(['.', 'e', 'E']);
                let is_finite = number.as_f64().is_some_and(f64::is_finite);
                // A larger whole number would lose digits.
                if is_fraction && is_finite { Self::Float } else { Self::Text }
            }
        }
    }

    /// Returns the type that has the values of both.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (same, other) if same == other => same,
            (Self::Empty, other) | (other, Self::Empty) => other,
            (Self::SmallInteger, Self::Integer) | (Self::Integer, Self::SmallInteger) => Self::Integer,
            (Self::SmallInteger, Self::Float) | (Self::Float, Self::SmallInteger) => Self::Float,
            (Self::Boolean | Self::SmallInteger | Self::Integer | Self::Float | Self::Text, _) => Self::Text,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn type_of(values: &[Value]) -> ColumnType {
        values.iter().map(ColumnType::of).fold(ColumnType::Empty, ColumnType::and)
    }

    #[test]
    fn a_column_has_a_type_only_if_each_of_its_values_has_it() {
        assert_eq!(type_of(&[json!(null), json!(1), json!(-2)]), ColumnType::SmallInteger);
        assert_eq!(type_of(&[json!(1), json!(i64::MAX)]), ColumnType::Integer);
        assert_eq!(type_of(&[json!(1), json!(0.5), json!(null)]), ColumnType::Float);
        assert_eq!(type_of(&[json!(i64::MAX), json!(0.5)]), ColumnType::Text);
        assert_eq!(type_of(&[json!(u64::MAX)]), ColumnType::Text);
        assert_eq!(type_of(&[json!(true), json!(null)]), ColumnType::Boolean);
        assert_eq!(type_of(&[json!(true), json!(1)]), ColumnType::Text);
        assert_eq!(type_of(&[json!("1")]), ColumnType::Text);
        assert_eq!(type_of(&[json!(null)]), ColumnType::Empty);
    }
}
