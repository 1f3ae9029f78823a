//! The streams of updates: a frame for each part of a page whose content differs from what the browser has.

use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::web::{Bytes, Data, Path};
use futures_util::stream::{self, Stream, StreamExt};
use serde_json::json;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::daemon::{Daemon, Error, Stopping};
use crate::server::api_state::ApiState;
use crate::server::sse::{self, KEEP_ALIVE};
use crate::store::RunNumber;

use super::fragment::Fragment;
use super::overview_page;
use super::run_page;
use super::visitor::{PageError, Visitor};

/// How often a page is rendered for its watchers.
const INTERVAL: Duration = Duration::from_secs(1);

/// After how many renderings without a difference something is sent.
const KEEP_ALIVE_TICKS: u32 = 15;

/// How long a stream lasts. The browser connects again, and whether it may is checked again.
const LIFETIME: Duration = Duration::from_mins(5);

/// What a stream shows.
#[derive(Debug, Clone, Copy)]
enum View {
    Overview,
    Run(RunNumber),
}

/// A stream of updates.
struct Updates {
    daemon: Daemon,
    visitor: Visitor,
    view: View,
    ticks: Interval,
    end: Instant,
    stopping: Stopping,
    /// What the browser has.
    sent: Vec<Fragment>,
    quiet_ticks: u32,
}

/// Streams the overview.
pub(super) async fn overview(visitor: Visitor, state: Data<ApiState>) -> HttpResponse {
    respond(Updates::new(state.daemon.clone(), visitor, View::Overview))
}

/// Streams a run.
pub(super) async fn run(
    visitor: Visitor,
    state: Data<ApiState>,
    path: Path<String>,
) -> Result<HttpResponse, PageError> {
    let run = run_page::number(&path, &visitor)?;
    // An error now is a status; later it ends the stream.
    state.daemon.run(run, &visitor.caller).await.map_err(|error| visitor.error(error))?;
    Ok(respond(Updates::new(state.daemon.clone(), visitor, View::Run(run))))
}

fn respond(updates: Updates) -> HttpResponse {
    let start = Bytes::from_static(b"retry: 2000\n\n");
    sse::response(stream::once(async move { start }).chain(updates.frames()))
}

impl Updates {
    fn new(daemon: Daemon, visitor: Visitor, view: View) -> Self {
        let now = Instant::now();
        let mut ticks = interval_at(now, INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let stopping = daemon.stopping();
        Self { daemon, visitor, view, ticks, end: now + LIFETIME, stopping, sent: Vec::new(), quiet_ticks: 0 }
    }

    /// Returns the frames until the end of the stream. A browser that does not read is not rendered for.
    fn frames(self) -> impl Stream<Item = Bytes> {
        stream::unfold(self, |mut updates| async move {
            loop {
                tokio::select! {
                    _ = updates.ticks.tick() => {}
                    () = updates.stopping.stopped() => return None,
                }
                if Instant::now() >= updates.end {
                    return None;
                }
                // An error may pass, as when the store is busy, and the run may be gone: the browser connects again.
                let fragments = updates.render().await.ok()?;
                let frames = updates.differences(fragments);
                if !frames.is_empty() {
                    updates.quiet_ticks = 0;
                    return Some((Bytes::from(frames), updates));
                }
                updates.quiet_ticks += 1;
                if updates.quiet_ticks >= KEEP_ALIVE_TICKS {
                    updates.quiet_ticks = 0;
                    return Some((KEEP_ALIVE, updates));
                }
            }
        })
    }

    async fn render(&self) -> Result<Vec<Fragment>, Error> {
        let Visitor { caller, prefix, can_control, .. } = &self.visitor;
        match self.view {
            View::Overview => {
                let overview = self.daemon.overview(caller).await?;
                Ok(overview_page::fragments(&overview, prefix))
            }
            View::Run(run) => {
                let details = self.daemon.run_details(run, caller).await?;
                Ok(run_page::fragments(&details, prefix, *can_control))
            }
        }
    }

    /// Returns the frames of what differs from what the browser has.
    fn differences(&mut self, fragments: Vec<Fragment>) -> Vec<u8> {
        let mut frames = Vec::new();
        for fragment in fragments.iter().filter(|fragment| !self.sent.contains(fragment)) {
            let data = json!({ "id": fragment.id, "html": fragment.content }).to_string();
            frames.extend_from_slice(&sse::frame(None, "fragment", &data));
        }
        self.sent = fragments;
        frames
    }
}
