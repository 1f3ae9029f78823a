//! The progress of a response stream.

/// The effect of one stream event on the timeouts of its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// No part of the answer yet: a ping, an opening event, an empty delta.
    Waiting,
    /// A part of the answer, or of the reasoning before it.
    Answering,
    /// A finish reason in a format without an end mark: the answer is complete unless another event follows.
    Complete,
    /// The end mark: no more events are expected.
    Ended,
}
