//! Checks before and after each call of a filter or method in a template.
//!
//! An undefined value is an error. The meter is charged for what a call can build before it builds it. Numbers
//! with which the engine would overflow or build too much are errors.

use minijinja::value::{Kwargs, Rest, Value, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, State};

use super::meter;
use super::operators::{self, Comparison};
use super::signatures::engine_filters;
use super::values::{self, Kind, extent};

/// Registers every filter and method, each with its checks.
pub(super) fn install(env: &mut Environment<'_>) {
    for (name, engine_filter) in engine_filters() {
        env.add_filter(name, move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
            let args: Vec<Value> = args.0.into_iter().map(ValueOrKwargs::into_value).collect();
            check_args(name, &args)?;
            let result = engine_filter.call(state, &args)?;
            charge_result(&result)?;
            Ok::<Value, Error>(result)
        });
    }
    env.set_unknown_method_callback(|state, value, method, args| {
        let all: Vec<Value> = std::iter::once(value).chain(args).cloned().collect();
        match method {
            // `join` is a method of the separator: the list is the second value.
            "join" => check_args("join", &all.iter().rev().cloned().collect::<Vec<_>>())?,
            "replace" => check_args("replace", all.get(..3).unwrap_or(&all))?,
            "split" | "count" => meter::charge(value.as_str().map_or(0, str::len))?,
            _ => check_args(method, &all)?,
        }
        let result = minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)?;
        charge_result(&result)?;
        Ok(result)
    });
    let range = Value::from_function(minijinja::functions::range);
    env.add_function("range", move |state: &mut State<'_, '_>, args: Rest<Value>| {
        let are_valid =
            args.0.iter().all(|number| number.as_i64().is_some_and(|number| number.abs() <= MAX_RANGE_BOUND));
        if !are_valid {
            return Err(invalid("`range` needs whole numbers of at most 15 digits"));
        }
        range.call(state, &args.0)
    });
}

/// Largest magnitude of the bounds of `range`.
const MAX_RANGE_BOUND: i64 = 999_999_999_999_999;

/// Maximum number of parts of `batch` and `slice`, and of fill characters that `indent` and `format` write at
/// once.
const MAX_COUNT: usize = 10_000;

fn invalid(reason: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

fn charge_result(result: &Value) -> Result<(), Error> {
    match result.as_str() {
        Some(text) => meter::charge(text.len()),
        None => meter::charge_visits(result.len().unwrap_or(0)),
    }
}

fn text_size(value: &Value) -> Result<usize, Error> {
    match value.as_str() {
        Some(text) => Ok(text.len()),
        None => Ok(usize::try_from(extent(value)?.size).unwrap_or(usize::MAX)),
    }
}

/// Checks the arguments of a filter and charges the meter for what it can build. The first of `args` is the value.
///
/// # Errors
/// If an argument is invalid or a limit is exceeded.
fn check_args(filter: &str, args: &[Value]) -> Result<(), Error> {
    let is_default = matches!(filter, "default" | "d");
    if args.iter().skip(usize::from(is_default)).any(Value::is_undefined) {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let Some((value, rest)) = args.split_first() else { return Ok(()) };
    let (rest, named) = from_args::<(&[Value], Kwargs)>(rest)?;
    let attribute = || named.get::<Option<Value>>("attribute");
    meter::charge(0)?;
    match filter {
        "replace" => charge_replace(value, rest),
        "join" => {
            let parts = elements(value, attribute()?.or_else(|| rest.get(1).cloned()).as_ref())?;
            let separator = rest.first().map_or(Ok(0), text_size)?;
            let mut size = parts.len().saturating_mul(separator);
            for part in &parts {
                size = size.saturating_add(text_size(part)?);
            }
            meter::charge(size)
        }
        "indent" => {
            let width = count(named.get::<Option<Value>>("width")?.as_ref().or(rest.first()), "indent")?;
            let lines = value.as_str().map_or(1, |text| text.lines().count() + 1);
            meter::charge(lines.saturating_mul(width))
        }
        "batch" | "slice" => {
            count(rest.first(), filter)?;
            meter::charge_visits(value.len().unwrap_or(0))
        }
        "tojson" => {
            let indent = named.get::<Option<Value>>("indent")?.or_else(|| rest.first().cloned());
            if let Some(indent) = indent.filter(|indent| Kind::of(indent) != Kind::Bool) {
                if count(Some(&indent), "tojson")? > 32 {
                    return Err(invalid("`tojson` indents by at most 32 spaces"));
                }
                meter::charge(text_size(value)?.saturating_mul(8))?;
            }
            meter::charge(text_size(value)?.saturating_mul(2))
        }
        "format" => check_format(value, rest),
        "map" => match attribute()? {
            Some(attribute) if named.get::<Option<Value>>("default").is_ok_and(|other| other.is_none()) => {
                elements(value, Some(&attribute)).map(drop)
            }
            _ => meter::charge_visits(value.len().unwrap_or(0)),
        },
        "selectattr" | "rejectattr" => {
            let allows_undefined =
                rest.get(1).and_then(Value::as_str).is_some_and(|test| test.ends_with("defined"));
            elements(value, rest.first().filter(|_| !allows_undefined)).map(drop)
        }
        "sum" => {
            let parts = elements(value, attribute()?.or_else(|| rest.first().cloned()).as_ref())?;
            parts
                .iter()
                .all(|part| Kind::of(part) == Kind::Number)
                .then_some(())
                .ok_or_else(|| invalid("`sum` adds only numbers; make texts numbers with `map('float')`"))
        }
        "groupby" | "unique" => {
            if named.has("default") {
                return meter::charge_visits(value.len().unwrap_or(0));
            }
            let attribute = attribute()?.or_else(|| rest.first().cloned());
            elements(value, attribute.as_ref()).map(drop)
        }
        "sort" | "min" | "max" => match attribute()? {
            Some(attributes) => {
                let attributes = attributes.as_str().unwrap_or_default().to_owned();
                attributes.split(',').try_for_each(|attribute| {
                    check_comparable(&elements(value, Some(&Value::from(attribute.trim())))?)
                })
            }
            None => check_comparable(&elements(value, None)?),
        },
        "dictsort" => {
            let by_value = named.get::<Option<&str>>("by")? == Some("value");
            let Some(map) = value.as_object() else { return Ok(()) };
            let pairs = map.try_iter_pairs().into_iter().flatten();
            check_comparable(
                &pairs.map(|(key, value)| if by_value { value } else { key }).collect::<Vec<_>>(),
            )
        }
        "pprint" => meter::charge(text_size(value)?.saturating_mul(8)),
        _ => meter::charge(text_size(value)?),
    }
}

/// Returns the elements of a list, or an attribute of each element.
///
/// # Errors
/// If an element lacks the attribute.
fn elements(value: &Value, attribute: Option<&Value>) -> Result<Vec<Value>, Error> {
    meter::charge_visits(value.len().unwrap_or(0))?;
    if value.is_none() {
        return Ok(Vec::new());
    }
    let elements = value.try_iter()?;
    let Some(attribute) = attribute else { return Ok(elements.collect()) };
    let attribute_of = |element: Value| {
        let mut part = element;
        match attribute.as_str() {
            Some(path) => {
                for key in path.split('.') {
                    part = match key.parse::<usize>() {
                        Ok(index) => part.get_item_by_index(index)?,
                        Err(_) => part.get_attr(key)?,
                    };
                }
            }
            None => part = part.get_item(attribute)?,
        }
        if part.is_undefined() {
            return Err(invalid(format!("an element has no `{attribute}`")));
        }
        Ok(part)
    };
    elements.map(attribute_of).collect()
}

/// Checks that all values can be compared with the first.
fn check_comparable(values: &[Value]) -> Result<(), Error> {
    meter::charge_visits(values.len())?;
    let Some(first) = values.first() else { return Ok(()) };
    if values.len() == 1 {
        return Ok(());
    }
    values.iter().try_for_each(|value| operators::order(Comparison::Less, first, value).map(drop))
}

fn charge_replace(value: &Value, rest: &[Value]) -> Result<(), Error> {
    let (Some(text), Some(from), Some(to)) =
        (value.as_str(), rest.first().and_then(Value::as_str), rest.get(1).and_then(Value::as_str))
    else {
        return meter::charge(text_size(value)?);
    };
    meter::charge(text.len())?;
    if to.len() <= from.len() {
        return Ok(());
    }
    let matches = if from.is_empty() { text.len() + 1 } else { text.matches(from).count() };
    meter::charge(matches.saturating_mul(to.len()))
}

/// Returns a number argument of `filter`; 4 if it is absent.
fn count(number: Option<&Value>, filter: &str) -> Result<usize, Error> {
    let Some(number) = number else { return Ok(4) };
    number
        .as_usize()
        .filter(|number| *number <= MAX_COUNT)
        .ok_or_else(|| invalid(format!("`{filter}` needs a whole number from 0 to {MAX_COUNT}")))
}

/// Checks that a format writes a limited number of fill characters and digits, in the `%` and the `{}` syntax.
fn check_format(format: &Value, args: &[Value]) -> Result<(), Error> {
    let Some(text) = format.as_str() else { return Ok(()) };
    let has_long_number = text.split(|letter: char| !letter.is_ascii_digit()).any(|digits| digits.len() > 4);
    let takes_width = text.contains('*') || text.contains(":{") || text.contains(".{");
    let is_wide = |arg: &Value| arg.as_i64().is_some_and(|width| width.unsigned_abs() > MAX_COUNT as u64);
    if (has_long_number && text.contains(['%', '{'])) || (takes_width && args.iter().any(is_wide)) {
        return Err(invalid(format!("`format` writes at most {MAX_COUNT} characters for a value's width")));
    }
    let mut size = text.len();
    for arg in args {
        size = size.saturating_add(text_size(arg)?);
    }
    // Each value may be padded to the width of its field.
    let fields = text.matches(['%', '{']).count();
    meter::charge(size.saturating_add(
        if text.contains(|letter: char| letter.is_ascii_digit()) || takes_width {
            fields.saturating_mul(MAX_COUNT)
        } else {
            0
        },
    ))?;
    values::list(args.to_vec()).map(drop)
}
