//! The values that templates see: those of items and answers, and what templates build.
//!
//! A list or map of these knows how deep it is nested and how much text it would make, so that writing, comparing
//! and dropping it have a bound although a template can put one list into another many times. Whole numbers show
//! as they are written, however long they are.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;
use minijinja::value::{DynObject, Enumerator, Object, ObjectExt, ObjectRepr, Value, ValueKind};
use minijinja::{Error, ErrorKind};
use serde_json::Value as Json;

use super::meter;

/// Levels that a value may be nested. Readers of JSON allow 128, and a template may add its own.
const DEEPEST: u32 = 200;
/// Bytes of text that one value may stand for.
const LARGEST: u64 = 256 << 20;

/// How deep a value is nested, and about how many bytes of text it makes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Extent {
    depth: u32,
    pub(super) size: u64,
}

impl Extent {
    fn around(parts: impl Iterator<Item = Result<Self, Error>>) -> Result<Self, Error> {
        let mut whole = Self::default();
        for part in parts {
            let part = part?;
            whole.depth = whole.depth.max(part.depth);
            whole.size = whole.size.saturating_add(part.size + 4);
            if whole.depth >= DEEPEST {
                return Err(refused("a value is nested too deeply: more than 200 levels"));
            }
            if whole.size > LARGEST {
                return Err(refused("a value is too large: its text would have more than 256 MiB"));
            }
        }
        whole.depth += 1;
        Ok(whole)
    }
}

fn refused(why: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, why)
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
    if level > DEEPEST {
        return Err(refused("a value is nested too deeply: more than 200 levels"));
    }
    if level > 0 && is_namespace(value) {
        return Err(refused(IN_ITSELF));
    }
    meter::look(object.enumerator_len().unwrap_or(1))?;
    match object.repr() {
        ObjectRepr::Seq | ObjectRepr::Iterable => {
            let parts = object.try_iter().into_iter().flatten();
            Extent::around(parts.map(|part| inner_extent(&part, level + 1)))
        }
        ObjectRepr::Map => {
            let parts = object.try_iter_pairs().into_iter().flatten();
            Extent::around(
                parts.flat_map(|(key, part)| [key, part]).map(|part| inner_extent(&part, level + 1)),
            )
        }
        _ => Ok(Extent { depth: 0, size: 64 }),
    }
}

/// Returns what a variable keeps of a value: the value, with its extent known.
///
/// # Errors
/// When it is nested too deeply or too large.
pub(super) fn kept(value: &Value) -> Result<Value, Error> {
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

/// Returns what a namespace keeps of a value, as [`kept`] does.
///
/// # Errors
/// Also for a namespace, which could be put into itself.
pub(super) fn part(value: &Value) -> Result<Value, Error> {
    if is_namespace(value) {
        return Err(refused(IN_ITSELF));
    }
    kept(value)
}

const IN_ITSELF: &str = "a namespace cannot be put into a list, a map or another namespace";

/// Returns whether a value is a namespace: the one map that changes.
fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().ends_with("::Namespace"))
}

/// Makes a list.
pub(super) fn list(items: Vec<Value>) -> Result<Value, Error> {
    meter::look(items.len())?;
    let extent = Extent::around(items.iter().map(|item| inner_extent(item, 1)))?;
    Ok(Value::from_object(List { items, extent }))
}

/// Turns JSON into a value.
///
/// # Errors
/// When it takes more than the filling may.
pub(super) fn of_json(json: &Json) -> Result<Value, Error> {
    Ok(match json {
        Json::Null => Value::from(()),
        Json::Bool(truth) => Value::from(*truth),
        Json::Number(number) => of_number(number),
        Json::String(text) => {
            meter::look(text.len() / 64)?;
            Value::from(text.as_str())
        }
        Json::Array(elements) => {
            meter::look(elements.len())?;
            let items: Vec<Value> = elements.iter().map(of_json).collect::<Result<_, _>>()?;
            let extent = data_extent(items.iter());
            Value::from_object(List { items, extent })
        }
        Json::Object(fields) => {
            meter::look(fields.len())?;
            let entries =
                fields.iter().map(|(name, field)| Ok((Value::from(name.as_str()), of_json(field)?)));
            let entries: IndexMap<Value, Value> = entries.collect::<Result<_, Error>>()?;
            let extent = data_extent(entries.iter().flat_map(|(name, field)| [name, field]));
            Value::from_object(Map { entries, extent })
        }
    })
}

/// Returns the extent of what has come from JSON, which has limits of its own.
fn data_extent<'v>(parts: impl Iterator<Item = &'v Value>) -> Extent {
    let extents = parts.map(|part| inner_extent(part, 0).unwrap_or_default());
    let whole = extents.fold(Extent::default(), |whole, part| Extent {
        depth: whole.depth.max(part.depth),
        size: whole.size.saturating_add(part.size + 4),
    });
    Extent { depth: whole.depth + 1, ..whole }
}

fn of_number(number: &serde_json::Number) -> Value {
    if let Some(number) = number.as_i64() {
        return Value::from(number);
    }
    if let Some(number) = number.as_u64() {
        return Value::from(number);
    }
    let text = number.to_string();
    if let Some(number) = whole(&text) {
        return number;
    }
    number.as_f64().map_or_else(|| Value::from(text.as_str()), Value::from)
}

/// Returns the whole number that `text` is, as it is written.
pub(super) fn whole(text: &str) -> Option<Value> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    if let Ok(number) = text.parse::<i128>() {
        return Some(Value::from(number));
    }
    Some(Value::from_object(LongNumber(text.into())))
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

/// A whole number of more than 128 bits, as it was written.
#[derive(Debug)]
pub(super) struct LongNumber(Box<str>);

impl LongNumber {
    fn is_negative(&self) -> bool {
        self.0.starts_with('-')
    }

    fn digits(&self) -> &str {
        self.0.trim_start_matches('-').trim_start_matches('0')
    }

    fn magnitude(&self, other: &Self) -> Ordering {
        let length = self.digits().len().cmp(&other.digits().len());
        length.then_with(|| self.digits().cmp(other.digits()))
    }

    /// Compares two of them.
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        match (self.is_negative(), other.is_negative()) {
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => self.magnitude(other),
            (true, true) => other.magnitude(self),
        }
    }

    /// Compares it with a number of at most 128 bits, or with a float; `None` where that cannot be known.
    pub(super) fn compare_short(&self, other: &Value) -> Option<Ordering> {
        let beyond = if self.is_negative() { Ordering::Less } else { Ordering::Greater };
        if other.is_integer() {
            return Some(beyond);
        }
        let own = self.0.parse::<f64>().ok()?;
        own.partial_cmp(&f64::try_from(other.clone()).ok()?).filter(|order| *order != Ordering::Equal)
    }
}

impl Object for LongNumber {
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

/// What a value is, as far as comparisons care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    None,
    Truth,
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
            ValueKind::Bool => Self::Truth,
            ValueKind::Number => Self::Number,
            ValueKind::String => Self::Text,
            ValueKind::Seq | ValueKind::Iterable => Self::List,
            ValueKind::Map => Self::Map,
            _ if value.downcast_object_ref::<LongNumber>().is_some() => Self::Number,
            _ => Self::Other,
        }
    }

    pub(super) fn named(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Truth => "true or false",
            Self::Number => "a number",
            Self::Text => "a text",
            Self::List => "a list",
            Self::Map => "a map",
            Self::Other => "a value that cannot be compared",
        }
    }
}
