//! Reads between which bounds a schema wants its numbers.
//!
//! Makes up a bound where there is none, so that numbers stay small; it never picks a number.

use serde_json::{Map, Value};

/// Returns the lowest and highest whole number allowed.
pub(super) fn whole(schema: &Map<String, Value>) -> (f64, f64) {
    let within = |exclusive: bool, bound: f64, step: f64| {
        if exclusive && bound.fract() == 0.0 { bound + step } else { bound }
    };
    let (low, high) = limits(schema);
    let low = low.map(|(bound, exclusive)| within(exclusive, bound, 1.0).ceil());
    let high = high.map(|(bound, exclusive)| within(exclusive, bound, -1.0).floor());
    around(low, high)
}

/// Returns the numbers between which, and not at which, any number is allowed.
pub(super) fn exclusive(schema: &Map<String, Value>) -> (f64, f64) {
    let (low, high) = limits(schema);
    around(low.map(|bound| bound.0), high.map(|bound| bound.0))
}

fn around(low: Option<f64>, high: Option<f64>) -> (f64, f64) {
    match (low, high) {
        (Some(low), Some(high)) => (low, high),
        (Some(low), None) => (low, low + 100.0),
        (None, Some(high)) => (high - 100.0, high),
        (None, None) => (1.0, 100.0),
    }
}

/// A bound, and whether the bound itself is excluded.
type Bound = Option<(f64, bool)>;

/// Returns the tighter of the inclusive and the exclusive bound on either side.
fn limits(schema: &Map<String, Value>) -> (Bound, Bound) {
    let at = |key| schema.get(key).and_then(Value::as_f64);
    // In draft 4 an exclusive bound was a flag beside the inclusive one.
    let flag = |key| schema.get(key) == Some(&Value::Bool(true));
    let inclusive = |key, exclusive| at(key).map(|bound| (bound, flag(exclusive)));
    let lows = [inclusive("minimum", "exclusiveMinimum"), at("exclusiveMinimum").map(|bound| (bound, true))];
    let highs = [inclusive("maximum", "exclusiveMaximum"), at("exclusiveMaximum").map(|bound| (bound, true))];
    let low = lows.into_iter().flatten().max_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let high = highs.into_iter().flatten().min_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
    (low, high)
}
