//! Operators of templates, in place of the engine's own, which compare any values and build results of any size.
//!
//! Comparing values of different types is an error: the engine would order them by type, so that the text "7" is
//! greater than every number. `none` is equal to `none`; comparing it with any other value is an error.

use std::cmp::Ordering;

use minijinja::value::{Rest, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};

use super::meter;
use super::values::{self, BigInteger, Kind};

/// A comparison operator or test.
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
    /// Every comparison, with the filter that implements it and its tests.
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

    /// Returns the name of the filter that implements it.
    pub(super) fn filter_name(self) -> &'static str {
        Self::ALL.iter().find(|(comparison, ..)| *comparison == self).map_or("__eq", |(_, filter, _)| filter)
    }

    /// Returns the comparison of a test.
    pub(super) fn of_test(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(.., tests)| tests.contains(&name)).map(|(comparison, ..)| *comparison)
    }

    /// Returns whether values of these types can be compared.
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

    /// Returns the error message for values of these types, with what to do.
    pub(super) fn error_message(self, left: Kind, right: Kind) -> String {
        let help = match (left, right) {
            (Kind::None, _) | (_, Kind::None) => "; test `is none` or `is not none` first",
            (Kind::Text, Kind::Number) | (Kind::Number, Kind::Text) => {
                "; make the text a number with `| float` or `| int`, or write the number in quotes"
            }
            _ => "",
        };
        match self {
            Self::In | Self::NotIn => {
                format!("cannot look for {} in {}{help}", left.description(), right.description())
            }
            _ => format!("cannot compare {} with {}{help}", left.description(), right.description()),
        }
    }

    /// Compares two values.
    ///
    /// # Errors
    /// If they cannot be compared.
    pub(super) fn evaluate(self, left: &Value, right: &Value) -> Result<bool, Error> {
        meter::charge(0)?;
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

fn comparison_error(comparison: Comparison, left: &Value, right: &Value) -> Error {
    let message = comparison.error_message(Kind::of(left), Kind::of(right));
    Error::new(ErrorKind::InvalidOperation, message)
}

fn is_nan(value: &Value) -> bool {
    value.kind() == ValueKind::Number && f64::try_from(value.clone()).is_ok_and(f64::is_nan)
}

fn equal(left: &Value, right: &Value) -> Result<bool, Error> {
    let kind = Kind::of(left);
    if !Comparison::Equal.accepts(kind, Kind::of(right)) {
        return Err(comparison_error(Comparison::Equal, left, right));
    }
    match kind {
        Kind::Number => Ok(order(Comparison::Equal, left, right)?.is_eq()),
        Kind::List | Kind::Map => {
            let size = values::extent(left)?.size.min(values::extent(right)?.size);
            meter::charge_visits(usize::try_from(size).unwrap_or(usize::MAX) / 16)?;
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
        return Err(comparison_error(comparison, left, right));
    }
    if is_nan(left) || is_nan(right) {
        return Err(Error::new(ErrorKind::InvalidOperation, "cannot compare nan (not a number)"));
    }
    let long = |value: &Value| value.downcast_object::<BigInteger>();
    let ordering = match (long(left), long(right)) {
        (None, None) => Some(left.cmp(right)),
        (Some(left), Some(right)) => Some(left.compare(&right)),
        (Some(left), None) => left.compare_number(right),
        (None, Some(right)) => right.compare_number(left).map(Ordering::reverse),
    };
    ordering.ok_or_else(|| Error::new(ErrorKind::InvalidOperation, "cannot compare these numbers exactly"))
}

/// Returns whether a text, a list or a map contains a value. For a list without any element of the value's type,
/// this is an error.
fn contains(container: &Value, value: &Value) -> Result<bool, Error> {
    let error = || comparison_error(Comparison::In, value, container);
    if let Some(text) = container.as_str() {
        return value.as_str().map(|part| text.contains(part)).ok_or_else(error);
    }
    match Kind::of(container) {
        Kind::Map if value.as_str().is_some() => {
            Ok(container.as_object().is_some_and(|map| map.get_value(value).is_some()))
        }
        Kind::List => {
            let mut incomparable = None;
            let mut has_comparable = false;
            for element in container.try_iter()? {
                meter::charge(0)?;
                if Kind::of(&element) != Kind::of(value) {
                    incomparable = Some(element);
                } else if equal(value, &element)? {
                    return Ok(true);
                } else {
                    has_comparable = true;
                }
            }
            match incomparable {
                Some(element) if !has_comparable => Err(comparison_error(Comparison::Equal, value, &element)),
                _ => Ok(false),
            }
        }
        _ => Err(error()),
    }
}

/// Registers the operators that rewritten templates call, and the comparison tests.
pub(super) fn install(env: &mut Environment<'_>) {
    for (comparison, filter, tests) in Comparison::ALL {
        env.add_filter(filter, move |left: Value, right: Value| comparison.evaluate(&left, &right));
        for test in tests {
            env.add_test(*test, move |left: Value, right: Value| comparison.evaluate(&left, &right));
        }
    }
    env.add_filter("__chain", compare_chain);
    env.add_filter("__kept", |value: Value| values::variable_value(&value));
    env.add_filter("__part", |value: Value| values::namespace_value(&value));
    env.add_filter("__v", defined);
    env.add_filter("__add", add);
    env.add_filter("__mul", multiply);
    env.add_filter("__cat", concatenate);
    env.add_test("divisibleby", is_divisible);
}

/// Returns `value`, or an error if it is undefined.
fn defined(value: Value) -> Result<Value, Error> {
    if value.is_undefined() {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    Ok(value)
}

/// Evaluates a chained comparison such as `a < b <= c` from left to right.
fn compare_chain(first: Value, rest: Rest<Value>) -> Result<bool, Error> {
    let mut left = &first;
    for pair in rest.0.chunks_exact(2) {
        let comparison = pair[0].as_str().and_then(Comparison::of_filter).unwrap_or(Comparison::Equal);
        if !comparison.evaluate(left, &pair[1])? {
            return Ok(false);
        }
        left = &pair[1];
    }
    Ok(true)
}

impl Comparison {
    fn of_filter(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, filter, _)| *filter == name).map(|(comparison, ..)| *comparison)
    }
}

fn arithmetic_error(sign: &str, left: &Value, right: &Value) -> Error {
    let left = Kind::of(left).description();
    let right = Kind::of(right).description();
    Error::new(ErrorKind::InvalidOperation, format!("cannot calculate {left} {sign} {right}"))
}

/// Adds numbers, texts or lists.
fn add(left: Value, right: Value) -> Result<Value, Error> {
    if let (Some(left), Some(right)) = (left.as_str(), right.as_str()) {
        meter::charge(left.len() + right.len())?;
        return Ok(Value::from([left, right].concat()));
    }
    if Kind::of(&left) == Kind::List
        && Kind::of(&right) == Kind::List
        && !left.is_tuple()
        && !right.is_tuple()
    {
        let length = left.len().unwrap_or_default() + right.len().unwrap_or_default();
        meter::charge(length.saturating_mul(size_of::<Value>()))?;
        return values::list(left.try_iter()?.chain(right.try_iter()?).collect());
    }
    match (Kind::of(&left), Kind::of(&right)) {
        (Kind::Number | Kind::Bool, Kind::Number | Kind::Bool) => calculate("+", &left, &right),
        _ => Err(arithmetic_error("+", &left, &right)),
    }
}

/// Multiplies numbers, or repeats a text or a list.
fn multiply(left: Value, right: Value) -> Result<Value, Error> {
    let (repeated, times) = match (Kind::of(&left), Kind::of(&right)) {
        (Kind::Text | Kind::List, Kind::Number) => (&left, &right),
        (Kind::Number, Kind::Text | Kind::List) => (&right, &left),
        (Kind::Number | Kind::Bool, Kind::Number | Kind::Bool) => return calculate("*", &left, &right),
        _ => return Err(arithmetic_error("*", &left, &right)),
    };
    let times = times.as_i64().ok_or_else(|| arithmetic_error("*", &left, &right))?;
    let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    if let Some(text) = repeated.as_str() {
        meter::charge(text.len().saturating_mul(times))?;
        return Ok(Value::from(text.repeat(times)));
    }
    let items: Vec<Value> = repeated.try_iter()?.collect();
    meter::charge(items.len().saturating_mul(times).saturating_mul(size_of::<Value>()))?;
    values::list(items.iter().cycle().take(items.len() * times).cloned().collect())
}

/// Adds or multiplies numbers like the engine: integers exactly.
fn calculate(sign: &str, left: &Value, right: &Value) -> Result<Value, Error> {
    let integer = |value: &Value| {
        i128::try_from(value.clone()).ok().filter(|_| value.is_integer() || Kind::of(value) == Kind::Bool)
    };
    if let (Some(a), Some(b)) = (integer(left), integer(right)) {
        let result = if sign == "+" { a.checked_add(b) } else { a.checked_mul(b) };
        let result = result.ok_or_else(|| arithmetic_error(sign, left, right))?;
        return Ok(i64::try_from(result).map_or_else(|_| Value::from(result), Value::from));
    }
    match (f64::try_from(left.clone()), f64::try_from(right.clone())) {
        (Ok(a), Ok(b)) => Ok(Value::from(if sign == "+" { a + b } else { a * b })),
        _ => Err(arithmetic_error(sign, left, right)),
    }
}

fn concatenate(left: Value, right: Value) -> Result<Value, Error> {
    let size = values::extent(&left)?.size.saturating_add(values::extent(&right)?.size);
    meter::charge(usize::try_from(size).unwrap_or(usize::MAX))?;
    Ok(Value::from(format!("{left}{right}")))
}

fn is_divisible(value: Value, divisor: Value) -> Result<bool, Error> {
    let integer = |value: &Value| i128::try_from(value.clone()).ok().filter(|_| value.is_integer());
    let Some(divisor) = integer(&divisor).filter(|divisor| *divisor != 0) else {
        return Err(Error::new(
            ErrorKind::InvalidOperation,
            "`divisibleby` needs a whole number other than 0",
        ));
    };
    let Some(value) = integer(&value) else {
        return Err(Error::new(ErrorKind::InvalidOperation, "`divisibleby` needs a whole number"));
    };
    Ok(value.checked_rem(divisor).unwrap_or(0) == 0)
}
