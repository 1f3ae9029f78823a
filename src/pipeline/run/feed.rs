//! Brings a run as many items as it asks for, and no more.
//!
//! A task of its own, so that a slow source never stops the run's actor.

use actix::prelude::*;
use futures_util::FutureExt;
use tokio::sync::mpsc;

use super::actor::Run;
use crate::chaos;
use crate::types::whole_story;

use super::messages::{Arrived, SourceEnded};
use crate::pipeline::source::{Entry, Reader};

/// Most entries sent at once.
const BATCH: usize = 64;

/// Sends `run` one entry for every one that `wanted` asks for, until the source ends or nobody asks
/// any more.
pub(super) async fn feed(mut reader: Reader, mut wanted: mpsc::UnboundedReceiver<usize>, run: Addr<Run>) {
    let mut batch = Vec::new();
    let mut owed = 0_usize;
    loop {
        while owed == 0 {
            match wanted.recv().await {
                Some(more) => owed = more,
                None => return,
            }
        }
        // What has come already goes before anything is waited for: a source may be a person typing.
        let next = match reader.next().now_or_never() {
            Some(next) => next,
            None => {
                send(&mut batch, &reader, &run);
                tokio::select! {
                    next = reader.next() => next,
                    () = stopped(&mut wanted, &mut owed) => return,
                }
            }
        };
        match next {
            Some(Ok(entry)) => {
                chaos::point("feed.entry");
                owed -= 1;
                batch.push(entry);
                if batch.len() == BATCH || owed == 0 {
                    send(&mut batch, &reader, &run);
                }
            }
            Some(Err(error)) => {
                send(&mut batch, &reader, &run);
                return run.do_send(SourceEnded { error: Some(whole_story(&error)) });
            }
            None => {
                send(&mut batch, &reader, &run);
                return run.do_send(SourceEnded { error: None });
            }
        }
    }
}

/// Returns when the run has hung up.
async fn stopped(wanted: &mut mpsc::UnboundedReceiver<usize>, owed: &mut usize) {
    while let Some(more) = wanted.recv().await {
        *owed += more;
    }
}

fn send(batch: &mut Vec<Entry>, reader: &Reader, run: &Addr<Run>) {
    if !batch.is_empty() {
        // At most a window of entries is under way: the run asked for each.
        run.do_send(Arrived { entries: std::mem::take(batch), input_read: reader.progress() });
    }
}
