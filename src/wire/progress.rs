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

/// Returns whether the data of an event is empty or OpenAI's end mark, in a format that has neither. Some gateways
/// send empty keep-alives, and some end every stream with the mark.
pub(super) fn is_filler(data: &str) -> bool {
    data.trim().is_empty() || data == "[DONE]"
}
