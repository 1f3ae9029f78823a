//! The failure that ends a request.

use crate::types::Failure;

/// The failure that ends a request.
#[derive(Debug, Clone, PartialEq)]
pub struct RequestFailure {
    /// The failure.
    pub failure: Failure,
    /// The index of the target that failed; `None` if the failure is not that of one target.
    pub target: Option<usize>,
}

impl RequestFailure {
    /// Creates the failure of a request because of the failure of a target.
    pub(super) fn of_target(target: usize, failure: &Failure) -> Self {
        Self { failure: failure.clone(), target: Some(target) }
    }
}

impl From<Failure> for RequestFailure {
    fn from(failure: Failure) -> Self {
        Self { failure, target: None }
    }
}
