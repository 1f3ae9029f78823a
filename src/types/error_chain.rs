//! Formats an error with its sources, for places that take only text.

use std::error::Error;

/// Returns the message of `error` and of each of its sources, joined by `: `.
pub fn error_chain(error: &dyn Error) -> String {
    let mut chain = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        chain.push_str(": ");
        chain.push_str(&error.to_string());
        cause = error.source();
    }
    chain
}
