//! The guard around each filter and method that templates may call.
//!
//! It refuses a missing value, takes from the meter what a call can build before it builds it, and refuses
//! numbers from which the engine would build or overflow.

use minijinja::value::{Kwargs, Rest, Value, ValueOrKwargs, from_args};
use minijinja::{Environment, Error, ErrorKind, State};

use super::meter;
use super::operators::{self, Comparison};
use super::signatures::originals;
use super::values::{self, Kind, extent};

/// Gives `env` every filter and method, each with its guard.
pub(super) fn install(env: &mut Environment<'_>) {
    for (name, original) in originals() {
        env.add_filter(name, move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| {
            let args: Vec<Value> = args.0.into_iter().map(ValueOrKwargs::into_value).collect();
            guard(name, &args)?;
            let made = original.call(state, &args)?;
            charge(&made)?;
            Ok::<Value, Error>(made)
        });
    }
    env.set_unknown_method_callback(|state, value, method, args| {
        let all: Vec<Value> = std::iter::once(value).chain(args).cloned().collect();
        match method {
            // The text comes first and what it joins second.
            "join" => guard("join", &all.iter().rev().cloned().collect::<Vec<_>>())?,
            "replace" => guard("replace", all.get(..3).unwrap_or(&all))?,
            "split" | "count" => meter::take(value.as_str().map_or(0, str::len))?,
            _ => guard(method, &all)?,
        }
        let made = minijinja_contrib::pycompat::unknown_method_callback(state, value, method, args)?;
        charge(&made)?;
        Ok(made)
    });
    let range = Value::from_function(minijinja::functions::range);
    env.add_function("range", move |state: &mut State<'_, '_>, args: Rest<Value>| {
        let numbers =
            args.0.iter().all(|number| number.as_i64().is_some_and(|number| number.abs() <= FURTHEST));
        if !numbers {
            return Err(refused("`range` needs whole numbers of at most 15 digits"));
        }
        range.call(state, &args.0)
    });
}

/// Largest number that `range` begins or ends with.
const FURTHEST: i64 = 999_999_999_999_999;
/// Most parts that `batch` and `slice` make, and most blanks that `indent` and `format` write at once.
const MOST: usize = 10_000;

fn refused(why: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, why)
}

fn charge(made: &Value) -> Result<(), Error> {
    match made.as_str() {
        Some(text) => meter::take(text.len()),
        None => meter::look(made.len().unwrap_or(0)),
    }
}

fn size_of_text(value: &Value) -> Result<usize, Error> {
    match value.as_str() {
        Some(text) => Ok(text.len()),
        None => Ok(usize::try_from(extent(value)?.size).unwrap_or(usize::MAX)),
    }
}

/// Refuses what a filter cannot do, and takes what it can build. `args` begins with the value.
fn guard(filter: &str, args: &[Value]) -> Result<(), Error> {
    let is_default = matches!(filter, "default" | "d");
    if args.iter().skip(usize::from(is_default)).any(Value::is_undefined) {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let Some((value, rest)) = args.split_first() else { return Ok(()) };
    let (rest, named) = from_args::<(&[Value], Kwargs)>(rest)?;
    let attribute = || named.get::<Option<Value>>("attribute");
    meter::take(0)?;
    match filter {
        "replace" => replace(value, rest),
        "join" => {
            let each = elements(value, attribute()?.or_else(|| rest.get(1).cloned()).as_ref())?;
            let joiner = rest.first().map_or(Ok(0), size_of_text)?;
            let mut size = each.len().saturating_mul(joiner);
            for element in &each {
                size = size.saturating_add(size_of_text(element)?);
            }
            meter::take(size)
        }
        "indent" => {
            let width = number(named.get::<Option<Value>>("width")?.as_ref().or(rest.first()), "indent")?;
            let lines = value.as_str().map_or(1, |text| text.lines().count() + 1);
            meter::take(lines.saturating_mul(width))
        }
        "batch" | "slice" => {
            number(rest.first(), filter)?;
            meter::look(value.len().unwrap_or(0))
        }
        "tojson" => {
            let indent = named.get::<Option<Value>>("indent")?.or_else(|| rest.first().cloned());
            if let Some(indent) = indent.filter(|indent| Kind::of(indent) != Kind::Truth) {
                if number(Some(&indent), "tojson")? > 32 {
                    return Err(refused("`tojson` indents by at most 32 blanks"));
                }
                meter::take(size_of_text(value)?.saturating_mul(8))?;
            }
            meter::take(size_of_text(value)?.saturating_mul(2))
        }
        "format" => formats(value, rest),
        "map" => match attribute()? {
            Some(attribute) if named.get::<Option<Value>>("default").is_ok_and(|other| other.is_none()) => {
                elements(value, Some(&attribute)).map(drop)
            }
            _ => meter::look(value.len().unwrap_or(0)),
        },
        "selectattr" | "rejectattr" => {
            let lenient = rest.get(1).and_then(Value::as_str).is_some_and(|test| test.ends_with("defined"));
            elements(value, rest.first().filter(|_| !lenient)).map(drop)
        }
        "sum" => {
            let each = elements(value, attribute()?.or_else(|| rest.first().cloned()).as_ref())?;
            each.iter()
                .all(|part| Kind::of(part) == Kind::Number)
                .then_some(())
                .ok_or_else(|| refused("`sum` adds numbers alone; make texts numbers with `map('float')`"))
        }
        "groupby" | "unique" => {
            if named.has("default") {
                return meter::look(value.len().unwrap_or(0));
            }
            let attribute = attribute()?.or_else(|| rest.first().cloned());
            elements(value, attribute.as_ref()).map(drop)
        }
        "sort" | "min" | "max" => match attribute()? {
            Some(attributes) => {
                let attributes = attributes.as_str().unwrap_or_default().to_owned();
                attributes.split(',').try_for_each(|attribute| {
                    comparable(&elements(value, Some(&Value::from(attribute.trim())))?)
                })
            }
            None => comparable(&elements(value, None)?),
        },
        "dictsort" => {
            let by_value = named.get::<Option<&str>>("by")? == Some("value");
            let Some(map) = value.as_object() else { return Ok(()) };
            let pairs = map.try_iter_pairs().into_iter().flatten();
            comparable(&pairs.map(|(key, value)| if by_value { value } else { key }).collect::<Vec<_>>())
        }
        "pprint" => meter::take(size_of_text(value)?.saturating_mul(8)),
        _ => meter::take(size_of_text(value)?),
    }
}

/// Returns the elements of a list, or an attribute of each.
///
/// # Errors
/// When one lacks the attribute.
fn elements(value: &Value, attribute: Option<&Value>) -> Result<Vec<Value>, Error> {
    meter::look(value.len().unwrap_or(0))?;
    if value.is_none() {
        return Ok(Vec::new());
    }
    let elements = value.try_iter()?;
    let Some(attribute) = attribute else { return Ok(elements.collect()) };
    let of = |element: Value| {
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
            return Err(refused(format!("an element has no `{attribute}`")));
        }
        Ok(part)
    };
    elements.map(of).collect()
}

/// Refuses what cannot be ordered.
fn comparable(values: &[Value]) -> Result<(), Error> {
    meter::look(values.len())?;
    let Some(first) = values.first() else { return Ok(()) };
    if values.len() == 1 {
        return Ok(());
    }
    values.iter().try_for_each(|value| operators::order(Comparison::Less, first, value).map(drop))
}

fn replace(value: &Value, rest: &[Value]) -> Result<(), Error> {
    let (Some(text), Some(from), Some(to)) =
        (value.as_str(), rest.first().and_then(Value::as_str), rest.get(1).and_then(Value::as_str))
    else {
        return meter::take(size_of_text(value)?);
    };
    meter::take(text.len())?;
    if to.len() <= from.len() {
        return Ok(());
    }
    let found = if from.is_empty() { text.len() + 1 } else { text.matches(from).count() };
    meter::take(found.saturating_mul(to.len()))
}

/// Reads a number that says how many.
fn number(number: Option<&Value>, filter: &str) -> Result<usize, Error> {
    let Some(number) = number else { return Ok(4) };
    number
        .as_usize()
        .filter(|number| *number <= MOST)
        .ok_or_else(|| refused(format!("`{filter}` needs a whole number from 0 to {MOST}")))
}

/// Refuses a format that writes very many blanks or digits, in either of its two languages.
fn formats(format: &Value, args: &[Value]) -> Result<(), Error> {
    let Some(text) = format.as_str() else { return Ok(()) };
    let is_long = text.split(|letter: char| !letter.is_ascii_digit()).any(|digits| digits.len() > 4);
    let takes_width = text.contains('*') || text.contains(":{") || text.contains(".{");
    let is_wide = |arg: &Value| arg.as_i64().is_some_and(|width| width.unsigned_abs() > MOST as u64);
    if (is_long && text.contains(['%', '{'])) || (takes_width && args.iter().any(is_wide)) {
        return Err(refused(format!("`format` writes at most {MOST} characters for a value's width")));
    }
    let mut size = text.len();
    for arg in args {
        size = size.saturating_add(size_of_text(arg)?);
    }
    // Every value may be written as wide as its format says.
    let fields = text.matches(['%', '{']).count();
    meter::take(size.saturating_add(
        if text.contains(|letter: char| letter.is_ascii_digit()) || takes_width {
            fields.saturating_mul(MOST)
        } else {
            0
        },
    ))?;
    values::list(args.to_vec()).map(drop)
}
