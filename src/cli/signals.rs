//! The signals that stop the program: Ctrl-C, SIGTERM and SIGHUP. Also SIGXFSZ, which would kill it when a file
//! reaches the size limit.

use std::future::poll_fn;
use std::task::Poll;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The number of SIGXFSZ on Linux and macOS: a file would grow beyond the process's limit (`ulimit -f`).
const SIGXFSZ: i32 = 25;

/// Lets a write beyond the limit on file sizes fail with an error, like a full disk, instead of ending the
/// process.
pub(super) fn catch_file_size_signal() {
    // It is enough to catch the signal: the write then returns an error. The handler stays for the whole process,
    // also when the runtime that set it has ended. If it cannot be set, such a write ends the process.
    let Ok(runtime) = Builder::new_current_thread().enable_io().build() else { return };
    let _entered = runtime.enter();
    drop(signal(SignalKind::from_raw(SIGXFSZ)));
}

/// The kind of a stop signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopSignal {
    /// Ctrl-C or SIGTERM: the next one stops faster.
    Requested,
    /// SIGHUP: the terminal or the connection is closed. A shell and the system may each send one, so a second one
    /// has no effect.
    HungUp,
}

/// Receives Ctrl-C, SIGTERM and SIGHUP. It must be created within a runtime.
pub(super) struct StopSignals(Vec<(StopSignal, Signal)>);

impl StopSignals {
    /// Starts to catch the signals.
    pub(super) fn new() -> Self {
        let mut kinds = vec![
            (StopSignal::Requested, SignalKind::interrupt()),
            (StopSignal::Requested, SignalKind::terminate()),
        ];
        if !ignores_sighup() {
            kinds.push((StopSignal::HungUp, SignalKind::hangup()));
        }
        // A signal that cannot be caught ends the process.
        Self(
            kinds
                .into_iter()
                .filter_map(|(signal_kind, kind)| Some((signal_kind, signal(kind).ok()?)))
                .collect(),
        )
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> StopSignal {
        poll_fn(|cx| {
            let received = self.0.iter_mut().find_map(|(kind, signal)| {
                let is_ready = signal.poll_recv(cx).is_ready();
                is_ready.then_some(*kind)
            });
            received.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// A signal to the daemon.
#[cfg(feature = "server")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DaemonSignal {
    /// Ctrl-C or SIGTERM.
    Stop,
    /// SIGHUP.
    Reload,
}

/// Receives Ctrl-C, SIGTERM and SIGHUP for the daemon. SIGUSR1 and SIGUSR2 have no effect. It must be created within a runtime.
#[cfg(feature = "server")]
pub(super) struct DaemonSignals(Vec<(DaemonSignal, Signal)>);

#[cfg(feature = "server")]
impl DaemonSignals {
    /// Starts to catch the signals.
    pub(super) fn new() -> Self {
        let kinds = [
            (DaemonSignal::Stop, SignalKind::interrupt()),
            (DaemonSignal::Stop, SignalKind::terminate()),
            (DaemonSignal::Reload, SignalKind::hangup()),
        ];
        // They would end the process without a drain. Caught once, they have no effect.
        for kind in [SignalKind::user_defined1(), SignalKind::user_defined2()] {
            drop(signal(kind));
        }
        // A signal that cannot be caught ends the process.
        Self(kinds.into_iter().filter_map(|(kind, number)| Some((kind, signal(number).ok()?))).collect())
    }

    /// Waits for the next signal.
    pub(super) async fn next(&mut self) -> DaemonSignal {
        poll_fn(|cx| {
            let received = self.0.iter_mut().find_map(|(kind, signal)| {
                let is_ready = signal.poll_recv(cx).is_ready();
                is_ready.then_some(*kind)
            });
            received.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// Returns whether SIGHUP was ignored when the process started, as with `nohup`; it then stays ignored. Only Linux
/// shows this.
fn ignores_sighup() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| is_ignored(&status, SIGHUP))
}

/// The number of SIGHUP on every Unix.
const SIGHUP: u32 = 1;

/// Returns whether the mask of ignored signals in `status` has this signal.
fn is_ignored(status: &str, signal: u32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sighup_that_is_ignored_at_the_start_stays_ignored() {
        let status = |mask: &str| format!("Name:\tpointsman\nSigBlk:\t0000000000000001\nSigIgn:\t{mask}\n");
        assert!(is_ignored(&status("0000000000001001"), SIGHUP));
        assert!(!is_ignored(&status("0000000000001000"), SIGHUP));
        assert!(!is_ignored("", SIGHUP));
    }
}
