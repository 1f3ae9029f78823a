//! Picks the lane for every question.

mod settings;

pub use settings::{Lane, Policy, RetrySettings, Route};
