//! Shows a run while it is at work, and stops it when it is told to.

use std::time::Duration;

use tokio::time::Instant;

use crate::run::Report;
use crate::runtime::{Error, Pointsman, RunHandle};

use super::live::Live;
use super::stops::{StopSignal, Stops};

/// How long items in flight may take once something that must not fail did.
const LAST_ITEMS: Duration = Duration::from_secs(30);

/// How the watching of a run ended.
pub(super) enum End {
    /// With its report, and whether something failed that must not.
    Reported(Box<Report>, bool),
    /// It was told a third time to stop: the output is not read.
    Left,
    Failed(Error),
}

/// Shows the run until it ends, and stops it when told to: first gently, then now.
pub(super) async fn watch(pointsman: &Pointsman, run: &mut RunHandle, live: &mut Live) -> End {
    let mut progress = run.progress();
    let mut stops = Stops::new();
    let mut asked = 0;
    let mut gave_up = false;
    let mut last = None;
    loop {
        tokio::select! {
            biased;
            // First: the run may end of it, and the exit code is to say why.
            why = pointsman.gave_up(), if !gave_up => {
                gave_up = true;
                live.note(&format!("stopping: {why}"));
                run.stop_intake();
                last = Some(Instant::now() + LAST_ITEMS);
            }
            report = run.report() => return match report {
                Ok(report) => End::Reported(Box::new(report), gave_up),
                Err(error) => End::Failed(error),
            },
            Ok(()) = progress.changed() => live.show(&progress.borrow_and_update()),
            signal = stops.next() => {
                if signal == StopSignal::HungUp && asked > 0 {
                    continue;
                }
                asked += 1;
                match asked {
                    1 => {
                        live.note(
                            "stopping: items in flight are finished as far as their calls need not wait; press Ctrl-C \
                             again to stop now",
                        );
                        run.stop_intake();
                    }
                    2 => {
                        live.note("stopping now; press Ctrl-C once more to leave an output that is not read");
                        run.cancel();
                    }
                    _ => return End::Left,
                }
            }
            () = until(last) => {
                last = None;
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
