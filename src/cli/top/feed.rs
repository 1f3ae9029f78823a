//! Asks the daemon in a thread of its own: its state once a second, its events as they happen, and what keys want.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep};

use crate::cli::remote::client::Client;
use crate::cli::remote::error::RemoteError;
use crate::cli::remote::views::StatusView;
use crate::cli::signals::StopSignals;

use super::answers::RunView;
use super::events::EventReader;
use super::keys::Action;
use super::view::Update;

/// How often the state is read.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long an answer may take.
const MAX_ANSWER: Duration = Duration::from_secs(10);

/// How soon a lost event stream is opened again.
const RECONNECT: Duration = Duration::from_secs(3);

/// How many runs are shown.
const MAX_RUNS: u32 = 100;

/// Updates that the screen has not taken. More are dropped: a later state replaces them.
const MAX_UPDATES: usize = 256;

/// Actions that the daemon has not done. More are refused.
const MAX_ACTIONS: usize = 8;

/// The connection of the screen to the daemon.
#[derive(Debug)]
pub(super) struct Feed {
    updates: Receiver<Update>,
    actions: mpsc::Sender<Action>,
}

impl Feed {
    /// Starts to ask the daemon.
    pub(super) fn start(client: Client) -> anyhow::Result<Self> {
        let (update_sender, updates) = sync_channel(MAX_UPDATES);
        let (actions, action_receiver) = mpsc::channel(MAX_ACTIONS);
        let runtime = Builder::new_current_thread().enable_all().build().context("cannot start")?;
        let work = move || runtime.block_on(run(client, update_sender, action_receiver));
        thread::Builder::new().name("feed".to_owned()).spawn(work).context("cannot start a thread")?;
        Ok(Self { updates, actions })
    }

    /// Returns the next update that has arrived; `None` if there is none now.
    pub(super) fn next(&self) -> Option<Update> {
        match self.updates.try_recv() {
            Ok(update) => Some(update),
            Err(std::sync::mpsc::TryRecvError::Empty) => None,
            // Its thread has ended.
            Err(std::sync::mpsc::TryRecvError::Disconnected) => Some(Update::Stop),
        }
    }

    /// Asks the daemon for an action. Returns what to show.
    pub(super) fn act(&self, action: Action) -> &'static str {
        if self.actions.try_send(action).is_ok() {
            "asked the daemon"
        } else {
            "the daemon is busy: try again"
        }
    }
}

/// Works until the screen is gone, or a signal arrives.
async fn run(client: Client, updates: SyncSender<Update>, mut actions: mpsc::Receiver<Action>) {
    let mut signals = StopSignals::new();
    tokio::select! {
        () = poll(&client, &updates) => {}
        () = watch(&client, &updates) => {}
        () = act(&client, &updates, &mut actions) => {}
        _ = signals.next() => stop(&updates).await,
    }
}

async fn poll(client: &Client, updates: &SyncSender<Update>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let update = match state(client).await {
            Ok((status, runs)) => Update::State(Box::new(status), runs),
            Err(error) => Update::Problem(error.to_string()),
        };
        offer(updates, update);
    }
}

async fn state(client: &Client) -> Result<(StatusView, Vec<RunView>), RemoteError> {
    let path = format!("/runs?limit={MAX_RUNS}");
    let (status, page) =
        tokio::try_join!(client.get_within("/status", MAX_ANSWER), client.get_within(&path, MAX_ANSWER))?;
    let runs = page.get("runs").cloned().unwrap_or(Value::Null);
    let parsed =
        serde_json::from_value(status).and_then(|status| Ok((status, serde_json::from_value(runs)?)));
    match parsed {
        Ok(state) => Ok(state),
        Err(error) => Err(client.other_version(error).await),
    }
}

/// Watches events, from the first that the daemon remembers.
async fn watch(client: &Client, updates: &SyncSender<Update>) {
    let mut last = 0;
    loop {
        if let Ok(mut body) = client.events(last).await {
            let mut reader = EventReader::default();
            while let Ok(Some(piece)) = body.next().await {
                for event in reader.read(&piece) {
                    last = event.number;
                    offer(updates, Update::Event(event));
                }
            }
        }
        sleep(RECONNECT).await;
    }
}

async fn act(client: &Client, updates: &SyncSender<Update>, actions: &mut mpsc::Receiver<Action>) {
    while let Some(action) = actions.recv().await {
        let (run, verb, done) = match action {
            Action::Hold(run) => (run, "hold", "is paused"),
            Action::Resume(run) => (run, "resume", "is resumed"),
            Action::Cancel(run) => (run, "cancel", "is cancelled"),
        };
        let notice = match client.post(&format!("/runs/{run}/{verb}"), &json!({})).await {
            Ok(_) => format!("run {run} {done}"),
            Err(error) => format!("cannot {verb} run {run}: {error}"),
        };
        offer(updates, Update::Notice(notice));
    }
}

/// Sends an update, if the screen has space for it.
fn offer(updates: &SyncSender<Update>, update: Update) {
    // An error means that the screen is behind or gone.
    drop(updates.try_send(update));
}

/// Ends the screen, also when it is behind.
async fn stop(updates: &SyncSender<Update>) {
    while let Err(TrySendError::Full(_)) = updates.try_send(Update::Stop) {
        sleep(Duration::from_millis(20)).await;
    }
}
