//! Shows an active run, and stops it on a signal.

use std::time::Duration;

use tokio::time::Instant;

use crate::run::Report;
use crate::runtime::{Error, Pointsman, RunHandle};

use super::advice::add_options;
use super::progress::ProgressDisplay;
use super::signals::{StopSignal, StopSignals};

/// How long items in flight may take after an internal error.
const MAX_ITEM_SHUTDOWN: Duration = Duration::from_secs(30);

/// How a watched run ended.
pub(super) enum WatchEnd {
    /// With its report, and whether there was an internal error.
    Reported(Box<Report>, bool),
    /// Without its report: after a third signal, the program exits although the output is not read.
    Abandoned,
    Failed(Error),
}

/// Shows the run until it ends. The first signal stops its intake, the second cancels it, and the third abandons
/// it.
pub(super) async fn watch(
    pointsman: &Pointsman,
    run: &mut RunHandle,
    display: &mut ProgressDisplay,
) -> WatchEnd {
    let mut progress = run.watch_progress();
    let mut stops = StopSignals::new();
    let mut stop_requests = 0;
    let mut has_fatal_error = false;
    let mut cancel_at = None;
    loop {
        tokio::select! {
            biased;
            // First: the run may end because of it, and the exit code depends on it.
            why = pointsman.fatal_error(), if !has_fatal_error => {
                has_fatal_error = true;
                display.note(&format!("stopping: {why}"));
                run.stop_intake();
                cancel_at = Some(Instant::now() + MAX_ITEM_SHUTDOWN);
            }
            report = run.report() => return match report {
                Ok(mut report) => {
                    add_options(&mut report);
                    WatchEnd::Reported(Box::new(report), has_fatal_error)
                }
                Err(error) => WatchEnd::Failed(error),
            },
            Ok(()) = progress.changed() => display.show(&progress.borrow_and_update()),
            signal = stops.next() => {
                if signal == StopSignal::HungUp && stop_requests > 0 {
                    continue;
                }
                stop_requests += 1;
                match stop_requests {
                    1 => {
                        display.note(
                            "stopping: items in flight finish unless their calls have to wait; press Ctrl-C again to stop \
                             now",
                        );
                        run.stop_intake();
                    }
                    2 => {
                        display.note("stopping now; press Ctrl-C once more to exit although the output is not read");
                        run.cancel();
                    }
                    _ => return WatchEnd::Abandoned,
                }
            }
            () = until(cancel_at) => {
                cancel_at = None;
                run.cancel();
            }
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
