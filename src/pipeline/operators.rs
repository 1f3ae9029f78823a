//! The operators of templates, where the engine's own would decide silently or build without a bound.
//!
//! Values of different kinds are not compared: the engine would order them by kind, so that the text "7" is
//! greater than every number. `none` is equal to `none` and compared with nothing else.

use std::cmp::Ordering;

use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};

use super::meter;
use super::values::{self, Kind, LongNumber};

/// A comparison that an operator or a test makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    NotIn,
}

impl Comparison {
    /// Every comparison, with the filter that makes it and the tests that do.
    const ALL: [(Self, &'static str, &'static [&'static str]); 8] = [
        (Self::Equal, "__eq", &["eq", "equalto", "=="]),
        (Self::Unequal, "__ne", &["ne", "!="]),
        (Self::Less, "__lt", &["lt", "lessthan", "<"]),
        (Self::LessOrEqual, "__le", &["le", "<="]),
        (Self::Greater, "__gt", &["gt", "greaterthan", ">"]),
        (Self::GreaterOrEqual, "__ge", &["ge", ">="]),
        (Self::In, "__in", &["in"]),
        (Self::NotIn, "__not_in", &[]),
    ];

    /// Returns the name of the filter that makes it.
    pub(super) fn filter(self) -> &'static str {
        Self::ALL.iter().find(|(comparison, ..)| *comparison == self).map_or("__eq", |(_, filter, _)| filter)
    }

    /// Returns the comparison that a test makes.
    pub(super) fn of_test(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(.., tests)| tests.contains(&name)).map(|(comparison, ..)| *comparison)
    }

    /// Returns whether values of these kinds can be compared so.
    pub(super) fn accepts(self, left: Kind, right: Kind) -> bool {
        match self {
            Self::Equal | Self::Unequal => left == right,
            Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual => {
                left == right && matches!(left, Kind::Number | Kind::Text)
            }
            Self::In | Self::NotIn => match right {
                Kind::Text | Kind::Map => left == Kind::Text,
                Kind::List => true,
                _ => false,
            },
        }
    }

    /// Says why values of these kinds cannot be compared so, and what to do.
    pub(super) fn refusal(self, left: Kind, right: Kind) -> String {
        let advice = match (left, right) {
            (Kind::None, _) | (_, Kind::None) => "; ask `is none` or `is not none` first",
            (Kind::Text, Kind::Number) | (Kind::Number, Kind::Text) => {
                "; make the text a number with `| float` or `| int`, or write the number in quotes"
            }
            _ => "",
        };
        match self {
            Self::In | Self::NotIn => {
                format!("cannot look for {} in {}{advice}", left.named(), right.named())
            }
            _ => format!("cannot compare {} with {}{advice}", left.named(), right.named()),
        }
    }

    /// Compares two values.
    ///
    /// # Errors
    /// When they cannot be compared so.
    pub(super) fn holds(self, left: &Value, right: &Value) -> Result<bool, Error> {
        meter::take(0)?;
        match self {
            Self::Equal => equal(left, right),
            Self::Unequal => equal(left, right).map(|equal| !equal),
            Self::Less => Ok(order(self, left, right)?.is_lt()),
            Self::LessOrEqual => Ok(order(self, left, right)?.is_le()),
            Self::Greater => Ok(order(self, left, right)?.is_gt()),
            Self::GreaterOrEqual => Ok(order(self, left, right)?.is_ge()),
            Self::In => contains(right, left),
            Self::NotIn => contains(right, left).map(|contained| !contained),
        }
    }
}

fn refuse(comparison: Comparison, left: &Value, right: &Value) -> Error {
    let refusal = comparison.refusal(Kind::of(left), Kind::of(right));
    Error::new(ErrorKind::InvalidOperation, refusal)
}

fn is_nan(value: &Value) -> bool {
    value.kind() == ValueKind::Number && f64::try_from(value.clone()).is_ok_and(f64::is_nan)
}

fn equal(left: &Value, right: &Value) -> Result<bool, Error> {
    let kinds = (Kind::of(left), Kind::of(right));
    if !Comparison::Equal.accepts(kinds.0, kinds.1) {
        return Err(refuse(Comparison::Equal, left, right));
    }
    match kinds.0 {
        Kind::Number => Ok(order(Comparison::Equal, left, right)?.is_eq()),
        Kind::List | Kind::Map => {
            let size = values::extent(left)?.size.min(values::extent(right)?.size);
            meter::look(usize::try_from(size).unwrap_or(usize::MAX) / 16)?;
            Ok(left == right)
        }
        _ => Ok(left == right),
    }
}

/// Orders two numbers or two texts.
pub(super) fn order(comparison: Comparison, left: &Value, right: &Value) -> Result<Ordering, Error> {
    if let (Some(left), Some(right)) = (left.as_str(), right.as_str()) {
        return Ok(left.cmp(right));
    }
    if Kind::of(left) != Kind::Number || Kind::of(right) != Kind::Number {
        return Err(refuse(comparison, left, right));
    }
    if is_nan(left) || is_nan(right) {
        return Err(Error::new(ErrorKind::InvalidOperation, "cannot compare what is not a number (nan)"));
    }
    let long = |value: &Value| value.downcast_object::<LongNumber>();
    let ordering = match (long(left), long(right)) {
        (None, None) => Some(left.cmp(right)),
        (Some(left), Some(right)) => Some(left.compare(&right)),
        (Some(left), None) => left.compare_short(right),
        (None, Some(right)) => right.compare_short(left).map(Ordering::reverse),
    };
    ordering.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "cannot compare these numbers exactly"))
}

/// Returns whether a text, a list or a map contains a value. A list in which nothing is of its kind decides nothing.
fn contains(container: &Value, value: &Value) -> Result<bool, Error> {
    let refused = || refuse(Comparison::In, value, container);
    if let Some(text) = container.as_str() {
        return value.as_str().map(|part| text.contains(part)).ok_or_else(refused);
    }
    match Kind::of(container) {
        Kind::Map if value.as_str().is_some() => {
            Ok(container.as_object().is_some_and(|map| map.get_value(value).is_some()))
        }
        Kind::List => {
            let mut other = None;
            let mut comparable = false;
            for element in container.try_iter()? {
                meter::take(0)?;
                if Kind::of(&element) != Kind::of(value) {
                    other = Some(element);
                } else if equal(value, &element)? {
                    return Ok(true);
                } else {
                    comparable = true;
                }
            }
            match other {
                Some(other) if !comparable => Err(refuse(Comparison::Equal, value, &other)),
                _ => Ok(false),
            }
        }
        _ => Err(refused()),
    }
}

/// Gives `env` the operators that a rewritten template calls, and the tests that compare.
pub(super) fn install(env: &mut Environment<'_>) {
    for (comparison, filter, tests) in Comparison::ALL {
        env.add_filter(filter, move |left: Value, right: Value| comparison.holds(&left, &right));
        for test in tests {
            env.add_test(*test, move |left: Value, right: Value| comparison.holds(&left, &right));
        }
    }
    env.add_filter("__chain", chain);
    env.add_filter("__kept", |value: Value| values::kept(&value));
    env.add_filter("__part", |value: Value| values::part(&value));
    env.add_filter("__v", defined);
    env.add_filter("__add", add);
    env.add_filter("__mul", multiply);
    env.add_filter("__cat", concatenate);
    env.add_test("divisibleby", divisible);
}

/// Passes a value on, and refuses one that is missing.
fn defined(value: Value) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    Ok(value)
}

/// Makes the comparisons of `a < b <= c` from left to right.
fn chain(first: Value, rest: Rest<Value>) -> Result<bool, Error> {
    let mut left = &first;
    for pair in rest.0.chunks_exact(2) {
        let comparison = pair[0].as_str().and_then(Comparison::of_chain).unwrap_or(Comparison::Equal);
        if !comparison.holds(left, &pair[1])? {
            return Ok(false);
        }
        left = &pair[1];
    }
    Ok(true)
}

impl Comparison {
    fn of_chain(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, filter, _)| *filter == name).map(|(comparison, ..)| *comparison)
    }
}

fn impossible(sign: &str, left: &Value, right: &Value) -> Error {
    let (left, right) = (Kind::of(left).named(), Kind::of(right).named());
    Error::new(ErrorKind::InvalidOperation, format!("cannot calculate {left} {sign} {right}"))
}

/// Adds numbers, texts or lists.
fn add(left: Value, right: Value) -> Result<Value, Error> {
    if let (Some(left), Some(right)) = (left.as_str(), right.as_str()) {
        meter::take(left.len() + right.len())?;
        return Ok(Value::from([left, right].concat()));
    }
    if Kind::of(&left) == Kind::List
        && Kind::of(&right) == Kind::List
        && !left.is_tuple()
        && !right.is_tuple()
    {
        let length = left.len().unwrap_or_default() + right.len().unwrap_or_default();
        meter::take(length.saturating_mul(size_of::<Value>()))?;
        return values::list(left.try_iter()?.chain(right.try_iter()?).collect());
    }
    match (Kind::of(&left), Kind::of(&right)) {
        (Kind::Number | Kind::Truth, Kind::Number | Kind::Truth) => calculate("+", &left, &right),
        _ => Err(impossible("+", &left, &right)),
    }
}

/// Multiplies numbers, or repeats a text or a list.
fn multiply(left: Value, right: Value) -> Result<Value, Error> {
    let (many, times) = match (Kind::of(&left), Kind::of(&right)) {
        (Kind::Text | Kind::List, Kind::Number) => (&left, &right),
        (Kind::Number, Kind::Text | Kind::List) => (&right, &left),
        (Kind::Number | Kind::Truth, Kind::Number | Kind::Truth) => return calculate("*", &left, &right),
        _ => return Err(impossible("*", &left, &right)),
    };
    let times = times.as_i64().ok_or_else(|| impossible("*", &left, &right))?;
    let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    if let Some(text) = many.as_str() {
        meter::take(text.len().saturating_mul(times))?;
        return Ok(Value::from(text.repeat(times)));
    }
    let items: Vec<Value> = many.try_iter()?.collect();
    meter::take(items.len().saturating_mul(times).saturating_mul(size_of::<Value>()))?;
    values::list(items.iter().cycle().take(items.len() * times).cloned().collect())
}

/// Adds or multiplies numbers as the engine does: whole ones exactly.
fn calculate(sign: &str, left: &Value, right: &Value) -> Result<Value, Error> {
    let whole = |value: &Value| {
        i128::try_from(value.clone()).ok().filter(|_| value.is_integer() || Kind::of(value) == Kind::Truth)
    };
    if let (Some(a), Some(b)) = (whole(left), whole(right)) {
        let result = if sign == "+" { a.checked_add(b) } else { a.checked_mul(b) };
        let result = result.ok_or_else(|| impossible(sign, left, right))?;
        return Ok(i64::try_from(result).map_or_else(|_| Value::from(result), Value::from));
    }
    match (f64::try_from(left.clone()), f64::try_from(right.clone())) {
        (Ok(a), Ok(b)) => Ok(Value::from(if sign == "+" { a + b } else { a * b })),
        _ => Err(impossible(sign, left, right)),
    }
}

fn concatenate(left: Value, right: Value) -> Result<Value, Error> {
    let size = values::extent(&left)?.size.saturating_add(values::extent(&right)?.size);
    meter::take(usize::try_from(size).unwrap_or(usize::MAX))?;
    Ok(Value::from(format!("{left}{right}")))
}

fn divisible(value: Value, by: Value) -> Result<bool, Error> {
    let whole = |value: &Value| i128::try_from(value.clone()).ok().filter(|_| value.is_integer());
    let Some(by) = whole(&by).filter(|by| *by != 0) else {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "`divisibleby` needs a whole number other than 0",
        ));
    };
    let Some(value) = whole(&value) else {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "`divisibleby` asks this of whole numbers alone",
        ));
    };
    Ok(value.checked_rem(by).unwrap_or(0) == 0)
}
