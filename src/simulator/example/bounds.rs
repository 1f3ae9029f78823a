//! Bounds of a schema's numbers. A missing bound gets a default, so that numbers stay small.

use serde_json::{Map, Value};

/// Returns the lowest and highest whole number allowed.
pub(super) fn integer_bounds(schema: &Map<String, Value>) -> (f64, f64) {
    let inclusive_bound = |exclusive: bool, bound: f64, step: f64| {
        if exclusive && bound.fract() == 0.0 { bound + step } else { bound }
    };
    let (low, high) = limits(schema);
    let low = low.map(|(bound, exclusive)| inclusive_bound(exclusive, bound, 1.0).ceil());
    let high = high.map(|(bound, exclusive)| inclusive_bound(exclusive, bound, -1.0).floor());
    with_default_width(low, high)
}

/// Returns the bounds strictly between which each number is allowed.
pub(super) fn number_bounds(schema: &Map<String, Value>) -> (f64, f64) {
    let (low, high) = limits(schema);
    with_default_width(low.map(|bound| bound.0), high.map(|bound| bound.0))
}

fn with_default_width(low: Option<f64>, high: Option<f64>) -> (f64, f64) {
    match (low, high) {
        (Some(low), Some(high)) => (low, high),
        (Some(low), None) => (low, low + 100.0),
        (None, Some(high)) => (high - 100.0, high),
        (None, None) => (1.0, 100.0),
    }
}

/// A bound, and whether the bound itself is excluded.
type Bound = Option<(f64, bool)>;

/// Returns the stricter of the inclusive and the exclusive bound on each side.
fn limits(schema: &Map<String, Value>) -> (Bound, Bound) {
    let number = |key| schema.get(key).and_then(Value::as_f64);
    // In draft 4 `exclusiveMinimum` is a flag next to `minimum`.
    let is_set = |key| schema.get(key) == Some(&Value::Bool(true));
    let inclusive = |key, exclusive| number(key).map(|bound| (bound, is_set(exclusive)));
    let lows =
        [inclusive("minimum", "exclusiveMinimum"), number("exclusiveMinimum").map(|bound| (bound, true))];
    let highs =
        [inclusive("maximum", "exclusiveMaximum"), number("exclusiveMaximum").map(|bound| (bound, true))];
    let low = lows.into_iter().flatten().max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let high = highs.into_iter().flatten().min_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
    (low, high)
}
