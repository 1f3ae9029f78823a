//! Why an ask ends without an answer.

use crate::types::Failure;

/// Why an ask ends without an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct End {
    /// The failure that ended it.
    pub failure: Failure,
    /// The number of the lane whose failure it is; `None` where it is not that of one lane.
    pub lane: Option<usize>,
}

impl End {
    /// Makes the end of an ask by a failure of this lane.
    pub(super) fn of(lane: usize, failure: &Failure) -> Self {
        Self { failure: failure.clone(), lane: Some(lane) }
    }
}

impl From<Failure> for End {
    fn from(failure: Failure) -> Self {
        Self { failure, lane: None }
    }
}
