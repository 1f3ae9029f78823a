//! Amounts of money in requests.

use crate::server::problem::Problem;
use crate::types::NanoUsd;

/// Returns the amount of `max_cost_usd`.
///
/// # Errors
/// If it is not a credible amount above 0.
pub(super) fn dollars(dollars: f64) -> Result<NanoUsd, Problem> {
    amount("max_cost_usd", dollars)
}

/// Returns the amount of a field.
///
/// # Errors
/// If it is not a credible amount above 0.
pub(super) fn amount(field: &str, dollars: f64) -> Result<NanoUsd, Problem> {
    let nanos = (dollars * 1e9).round();
    if nanos >= 1.0 && dollars < 1e9 {
        Ok(NanoUsd(nanos as u64))
    } else {
        Err(Problem::bad_request(format!("`{field}` is a number of US dollars above 0 and below a billion")))
    }
}
