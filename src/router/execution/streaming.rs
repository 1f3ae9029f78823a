//! The commit of a streamed answer to one call.

use crate::provider::AnswerStream;
use crate::router::pending_call::CallMeta;

use super::Execution;

impl Execution {
    /// Returns whether a call has begun to answer a streamed request.
    pub(super) fn is_committed(&self) -> bool {
        self.request.stream.as_ref().is_some_and(AnswerStream::is_committed)
    }

    /// Returns whether this call has.
    pub(super) fn is_committed_to(&self, meta: CallMeta) -> bool {
        let committed = self.request.stream.as_ref().and_then(AnswerStream::committed_number);
        committed.is_some() && committed == meta.stream_number
    }

    /// Waits until a call begins to answer, and returns its number; waits forever if the request is not streamed.
    pub(super) fn committed(&self) -> impl Future<Output = u64> + use<> {
        let stream = self.request.stream.clone();
        async move {
            match stream {
                Some(stream) => stream.committed().await,
                None => std::future::pending().await,
            }
        }
    }
}
