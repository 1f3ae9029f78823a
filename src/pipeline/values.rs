//! Values of templates: those of items and answers, and those that templates build.
//!
//! Lists and maps store how deep they are nested and how many bytes of text they represent. A template can put one
//! list into another many times, and these limits bound the work of rendering, comparing and dropping it. Integers
//! are rendered as they are written, at any length.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;
use minijinja::value::{DynObject, Enumerator, Object, ObjectExt, ObjectRepr, Value, ValueKind};
use minijinja::{Error, ErrorKind};
use serde_json::Value as Json;

use super::meter;

/// Maximum nesting of a value. JSON parsers allow 128 levels, and a template may add its own.
const MAX_DEPTH: u32 = 200;

/// Maximum text that one value may represent, in bytes.
const MAX_TEXT_BYTES: u64 = 256 << 20;

/// How deep a value is nested, and about how many bytes of text it represents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extent {
    depth: u32,
    pub(super) size: u64,
}

impl Extent {
    fn of_container(parts: impl Iterator<Item = Result<Self, Error>>) -> Result<Self, Error> {
        let mut total = Self::default();
        for part in parts {
            let part = part?;
            total.depth = total.depth.max(part.depth);
            total.size = total.size.saturating_add(part.size + 4);
            if total.depth >= MAX_DEPTH {
                return Err(invalid_operation("a value is nested too deeply: more than 200 levels"));
            }
            if total.size > MAX_TEXT_BYTES {
                return Err(invalid_operation("a value is too large: its text would have more than 256 MiB"));
            }
        }
        total.depth += 1;
        Ok(total)
    }
}

fn invalid_operation(reason: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

/// Returns the extent of any value.
pub(super) fn extent(value: &Value) -> Result<Extent, Error> {
    inner_extent(value, 0)
}

fn inner_extent(value: &Value, level: u32) -> Result<Extent, Error> {
    let Some(object) = value.as_object() else {
        let size = value.as_str().map_or(8, str::len) as u64;
        return Ok(Extent { depth: 0, size });
    };
    if let Some(list) = object.downcast_ref::<List>() {
        return Ok(list.extent);
    }
    if let Some(map) = object.downcast_ref::<Map>() {
        return Ok(map.extent);
    }
    if level > MAX_DEPTH {
        return Err(invalid_operation("a value is nested too deeply: more than 200 levels"));
    }
    if level > 0 && is_namespace(value) {
        return Err(invalid_operation(NESTED_NAMESPACE));
    }
    meter::charge_visits(object.enumerator_len().unwrap_or(1))?;
    match object.repr() {
        ObjectRepr::Seq | ObjectRepr::Iterable => {
            let parts = object.try_iter().into_iter().flatten();
            Extent::of_container(parts.map(|part| inner_extent(&part, level + 1)))
        }
        ObjectRepr::Map => {
            let parts = object.try_iter_pairs().into_iter().flatten();
            Extent::of_container(
                parts.flat_map(|(key, part)| [key, part]).map(|part| inner_extent(&part, level + 1)),
            )
        }
        _ => Ok(Extent { depth: 0, size: 64 }),
    }
}

/// Returns `value` in the form that is assigned to a variable: iterators are collected, and the extent is checked.
///
/// # Errors
/// If it is nested too deeply or too large.
pub(super) fn variable_value(value: &Value) -> Result<Value, Error> {
    let Some(object) = value.as_object() else { return Ok(value.clone()) };
    if object.downcast_ref::<List>().is_some() || object.downcast_ref::<Map>().is_some() {
        return Ok(value.clone());
    }
    if is_namespace(value) {
        return Ok(value.clone());
    }
    let is_lazy = object.repr() == ObjectRepr::Iterable;
    if is_lazy || object.downcast_ref::<Vec<Value>>().is_some() {
        return list(value.try_iter()?.collect());
    }
    extent(value)?;
    Ok(value.clone())
}

/// Returns `value` in the form that is stored in a namespace, like [`variable_value`].
///
/// # Errors
/// Also for a namespace, because it could then contain itself.
pub(super) fn namespace_value(value: &Value) -> Result<Value, Error> {
    if is_namespace(value) {
        return Err(invalid_operation(NESTED_NAMESPACE));
    }
    variable_value(value)
}

const NESTED_NAMESPACE: &str = "a namespace cannot be put into a list, a map or another namespace";

/// Returns whether a value is a namespace, the only map that templates can modify.
fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

/// Creates a list.
pub(super) fn list(items: Vec<Value>) -> Result<Value, Error> {
    meter::charge_visits(items.len())?;
    let extent = Extent::of_container(items.iter().map(|item| inner_extent(item, 1)))?;
    Ok(Value::from_object(List { items, extent }))
}

/// Converts JSON into a value.
///
/// # Errors
/// If the meter's limits are exceeded.
pub(super) fn from_json(json: &Json) -> Result<Value, Error> {
    Ok(match json {
        Json::Null => Value::from(()),
        Json::Bool(value) => Value::from(*value),
        Json::Number(number) => from_number(number),
        Json::String(text) => {
            meter::charge_visits(text.len() / 64)?;
            Value::from(text.as_str())
        }
        Json::Array(elements) => {
            meter::charge_visits(elements.len())?;
            let items: Vec<Value> = elements.iter().map(from_json).collect::<Result<_, _>>()?;
            let extent = json_extent(items.iter());
            Value::from_object(List { items, extent })
        }
        Json::Object(fields) => {
            meter::charge_visits(fields.len())?;
            let entries =
                fields.iter().map(|(name, field)| Ok((Value::from(name.as_str()), from_json(field)?)));
            let entries: IndexMap<Value, Value> = entries.collect::<Result<_, Error>>()?;
            let extent = json_extent(entries.iter().flat_map(|(name, field)| [name, field]));
            Value::from_object(Map { entries, extent })
        }
    })
}

/// Returns the extent of values from JSON, which has its own limits.
fn json_extent<'v>(parts: impl Iterator<Item = &'v Value>) -> Extent {
    let extents = parts.map(|part| inner_extent(part, 0).unwrap_or_default());
    let total = extents.fold(Extent::default(), |total, part| Extent {
        depth: total.depth.max(part.depth),
        size: total.size.saturating_add(part.size + 4),
    });
    Extent { depth: total.depth + 1, ..total }
}

fn from_number(number: &serde_json::Number) -> Value {
    if let Some(number) = number.as_i64() {
        return Value::from(number);
    }
    if let Some(number) = number.as_u64() {
        return Value::from(number);
    }
    let text = number.to_string();
    if let Some(number) = parse_integer(&text) {
        return number;
    }
    number.as_f64().map_or_else(|| Value::from(text.as_str()), Value::from)
}

/// Parses an integer of any length. It is rendered as it is written.
pub(super) fn parse_integer(text: &str) -> Option<Value> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    if let Ok(number) = text.parse::<i128>() {
        return Some(Value::from(number));
    }
    Some(Value::from_object(BigInteger(text.into())))
}

/// A list whose extent is known.
#[derive(Debug)]
pub(super) struct List {
    items: Vec<Value>,
    extent: Extent,
}

impl Object for List {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.items.get(key.as_usize()?).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.items.len())
    }
}

/// A map whose extent is known.
#[derive(Debug)]
pub(super) struct Map {
    entries: IndexMap<Value, Value>,
    extent: Extent,
}

impl Object for Map {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        self.entries.get(key).cloned()
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        self.mapped_key_value_enumerator(|this| {
            Box::new(this.entries.iter().map(|(key, value)| (key.clone(), value.clone())))
        })
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.entries.len())
    }
}

/// An integer of more than 128 bits, as it was written.
#[derive(Debug)]
pub(super) struct BigInteger(Box<str>);

impl BigInteger {
    fn is_negative(&self) -> bool {
        self.0.starts_with('-')
    }

    fn digits(&self) -> &str {
        self.0.trim_start_matches('-').trim_start_matches('0')
    }

    fn compare_magnitude(&self, other: &Self) -> Ordering {
        let length = self.digits().len().cmp(&other.digits().len());
        length.then_with(|| self.digits().cmp(other.digits()))
    }

    /// Compares it with another integer of more than 128 bits.
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        match (self.is_negative(), other.is_negative()) {
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.compare_magnitude(other),
            (true, true) => other.compare_magnitude(self),
        }
    }

    /// Compares it with an integer of at most 128 bits, or with a float; `None` if the order cannot be determined.
    pub(super) fn compare_number(&self, other: &Value) -> Option<Ordering> {
        let ordering = if self.is_negative() { Ordering::Less } else { Ordering::Greater };
        if other.is_integer() {
            return Some(ordering);
        }
        let own = self.0.parse::<f64>().ok()?;
        own.partial_cmp(&f64::try_from(other.clone()).ok()?).filter(|order| *order != Ordering::Equal)
    }
}

impl Object for BigInteger {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }

    fn custom_cmp(self: &Arc<Self>, other: &DynObject) -> Option<Ordering> {
        Some(self.compare(other.downcast_ref::<Self>()?))
    }

    fn render(self: &Arc<Self>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The type of a value, as far as comparisons distinguish it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    None,
    Bool,
    Number,
    Text,
    List,
    Map,
    Other,
}

impl Kind {
    pub(super) fn of(value: &Value) -> Self {
        match value.kind() {
            ValueKind::None => Self::None,
            ValueKind::Bool => Self::Bool,
            ValueKind::Number => Self::Number,
            ValueKind::String => Self::Text,
            ValueKind::Seq | ValueKind::Iterable => Self::List,
            ValueKind::Map => Self::Map,
            _ if value.downcast_object_ref::<BigInteger>().is_some() => Self::Number,
            _ => Self::Other,
        }
    }

    pub(super) fn description(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Bool => "true or false",
            Self::Number => "a number",
            Self::Text => "a text",
            Self::List => "a list",
            Self::Map => "a map",
            Self::Other => "a value that cannot be compared",
        }
    }
}
