//! The signals that ask the program to stop: Ctrl-C, the SIGTERM of service managers, and the SIGHUP of a terminal
//! that is gone. And the one that would kill it where a file may not grow any more.

use std::future::poll_fn;
use std::task::Poll;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGXFSZ, as Linux and macOS number it: a file would grow beyond the process's limit (`ulimit -f`).
const FILE_SIZE: i32 = 25;

/// Lets a write beyond the limit on file sizes fail as one to a full disk does, instead of ending the process.
pub(super) fn survive_file_limits() {
    // Being caught is enough: the write then returns an error. The handler stays for the whole process, also when the
    // runtime that set it has ended. Where it cannot be set, nothing is lost but that.
    let Ok(runtime) = Builder::new_current_thread().enable_io().build() else { return };
    let _entered = runtime.enter();
    drop(signal(SignalKind::from_raw(FILE_SIZE)));
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopSignal {
    /// Ctrl-C or SIGTERM: another one asks for more haste.
    Requested,
    /// SIGHUP: the terminal or the connection is gone. A shell and the system may each send one, so that another
    /// one asks for nothing more.
    HungUp,
}

/// Ctrl-C, SIGTERM and SIGHUP. Must be made within a runtime.
pub(super) struct Stops(Vec<(StopSignal, Signal)>);

impl Stops {
    /// Starts to catch them.
    pub(super) fn new() -> Self {
        let mut kinds = vec![
            (StopSignal::Requested, SignalKind::interrupt()),
            (StopSignal::Requested, SignalKind::terminate()),
        ];
        if !ignores_hangup() {
            kinds.push((StopSignal::HungUp, SignalKind::hangup()));
        }
        // Where a signal cannot be caught it ends the process, as without us.
        Self(kinds.into_iter().filter_map(|(what, kind)| Some((what, signal(kind).ok()?))).collect())
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) -> StopSignal {
        poll_fn(|cx| {
            let came = self.0.iter_mut().find_map(|(what, signal)| {
                let is_here = signal.poll_recv(cx).is_ready();
                is_here.then_some(*what)
            });
            came.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// Returns whether the process was started so that SIGHUP does not end it, as `nohup` does: then it stays so. Only
/// Linux shows it.
fn ignores_hangup() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| ignored(&status, HANGUP))
}

/// SIGHUP, as every Unix numbers it.
const HANGUP: u32 = 1;

/// Returns whether the mask of ignored signals in `status` holds this one.
fn ignored(status: &str, signal: u32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hangup_that_the_process_ignores_from_its_start_stays_ignored() {
        let status = |mask: &str| format!("Name:\tpointsman\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\n");
        assert!(ignored(&status("0000000000001001"), HANGUP));
        assert!(!ignored(&status("0000000000001000"), HANGUP));
        assert!(!ignored("", HANGUP));
    }
}
