//! The signals that ask the program to stop: Ctrl-C, and the SIGTERM of service managers. And the one
//! that would kill it where a file may not grow any more.

use std::future::poll_fn;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGXFSZ, as Linux and macOS number it: a file would grow beyond the process's limit (`ulimit -f`).
const FILE_SIZE: i32 = 25;

/// Lets a write beyond the limit on file sizes fail as one to a full disk does, instead of ending the
/// process. Must be called within a runtime.
pub(super) fn survive_file_limits() {
    // Being caught is enough: the write then returns an error. Where it cannot be, nothing is lost but that.
    drop(signal(SignalKind::from_raw(FILE_SIZE)));
}

/// Ctrl-C and SIGTERM. Must be made within a runtime.
pub(super) struct Stops(Vec<Signal>);

impl Stops {
    /// Starts to catch them.
    pub(super) fn new() -> Self {
        // Where a signal cannot be caught it ends the process, as without us.
        let kinds = [SignalKind::interrupt(), SignalKind::terminate()];
        Self(kinds.into_iter().filter_map(|kind| signal(kind).ok()).collect())
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) {
        poll_fn(|cx| {
            let told = self.0.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
            if told { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
