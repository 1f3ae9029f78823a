//! What one reply may hold in memory, and how many large ones are read at once in this process.
//!
//! Counted after decompression: 61 KB of gzip can be 64 MiB. A large reply waits for its place in the middle of being
//! read, so that its sender waits, too. It needs nothing else while it has its place, so places always come free.

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::types::{Cause, Class, Failure};

use super::clocks::Clocks;

/// Most bytes that are held of one reply: of a whole body, or of the text of a streamed answer.
pub(super) const MAX_HELD_BYTES: usize = 16 << 20;

/// Most bytes of one event of a stream.
pub(super) const MAX_EVENT_BYTES: usize = 4 << 20;

/// A reply of more bytes is a large one.
const LARGE_BYTES: usize = 1 << 20;

/// Large replies that are read at once.
static LARGE_REPLIES: Semaphore = Semaphore::const_new(MAX_LARGE_REPLIES);

const MAX_LARGE_REPLIES: usize = 4;

/// The share of memory of one reply while it is read.
#[derive(Default)]
pub(super) struct ReplyLimit {
    place: Option<SemaphorePermit<'static>>,
}

impl ReplyLimit {
    /// Takes note that so many bytes are held, and waits for a place when the reply has become a large one.
    ///
    /// # Errors
    /// `unreadable` when it is too large, and how the wait ended when there was no place in time.
    pub(super) async fn hold(&mut self, bytes: usize, clocks: &mut Clocks<'_>) -> Result<(), Failure> {
        if bytes > MAX_HELD_BYTES {
            return Err(too_large("the reply", MAX_HELD_BYTES));
        }
        if bytes > LARGE_BYTES && self.place.is_none() {
            let place = clocks.wait(LARGE_REPLIES.acquire()).await;
            let place = place.map_err(|failure| {
                let why = "other large replies were still being read when its time was up";
                Failure::new(failure.class, format!("a reply of more than 1 MiB had to wait: {why}"))
                    .maybe_charged()
            })?;
            self.place = place.ok();
        }
        Ok(())
    }
}

/// Makes the failure of a reply of which a part is larger than anything that a model writes.
pub(super) fn too_large(what: &str, limit: usize) -> Failure {
    Failure::new(Class::Unreadable, format!("{what} is larger than {} MiB, unpacked", limit >> 20))
        .because(Cause::TooLarge)
        .maybe_charged()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::provider::settings::Timeouts;

    #[tokio::test(start_paused = true)]
    async fn large_replies_wait_for_each_other_and_small_ones_do_not() {
        let (timeouts, now) = (Timeouts::default(), Instant::now());
        let clocks = || Clocks::start(&timeouts, now + Duration::from_secs(5), now);
        let mut large = Vec::new();
        for _ in 0..MAX_LARGE_REPLIES {
            let mut reply = ReplyLimit::default();
            reply.hold(LARGE_BYTES + 1, &mut clocks()).await.unwrap();
            reply.hold(MAX_HELD_BYTES, &mut clocks()).await.unwrap();
            large.push(reply);
        }
        ReplyLimit::default().hold(LARGE_BYTES, &mut clocks()).await.unwrap();
        let failure = ReplyLimit::default().hold(LARGE_BYTES + 1, &mut clocks()).await.unwrap_err();
        assert_eq!(failure.class, Class::Deadline);
        assert!(failure.message.contains("large replies"), "{}", failure.message);
        large.pop();
        ReplyLimit::default().hold(LARGE_BYTES + 1, &mut clocks()).await.unwrap();
        let failure = ReplyLimit::default().hold(MAX_HELD_BYTES + 1, &mut clocks()).await.unwrap_err();
        assert_eq!(
            (failure.class, &*failure.message),
            (Class::Unreadable, "the reply is larger than 16 MiB, unpacked")
        );
    }
}
