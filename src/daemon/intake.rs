//! Items that come one at a time. Those of one pipeline and one caller share a run.
//!
//! ```text
//! caller --submit--> GrowingFile (on the disk) --> run --> store --> line --> caller
//! ```
//!
//! An item is on the disk before its caller hears of it, and its answer is in the store before the caller gets it. After so
//! many items, and when its pipeline changes, a run gets no more of them and completes; the next item begins another. After
//! a restart, a run gets no more items either: it is resumed and completes.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::pipeline::Pipeline;
use crate::run::RunOutput;
use crate::sink::{Line, Sink};
use crate::source::{Source, content_fingerprint, item_key};
use crate::store::{RunFilter, RunNumber, RunState, StoredRun};
use crate::types::ItemKey;

use super::caller::Caller;
use super::catalogue::{LoadedPipeline, PipelineOrigin};
use super::daemon::Daemon;
use super::data_folder::random_id;
use super::error::Error;
use super::growing_file::GrowingFile;
use super::run_command::{IDENTITY_PREFIX, ItemsFile, RunCommand};
use super::runs::{SessionIo, SessionTerms};
use super::shared_runs::{Answer, RunKey, SharedRun, Taken, dispatch};

/// How many runs of one pipeline and one caller may have unfinished items. Then a caller has to wait.
const MAX_OPEN_RUNS: usize = 4;

/// How many of the latest runs are searched for an item.
const MAX_SEARCHED_RUNS: u32 = 20;

/// An item that was taken.
#[derive(Debug)]
#[non_exhaustive]
pub struct SubmittedItem {
    /// Its run.
    pub run: RunNumber,
    /// Its key: its `id`, or else the hash of its content.
    pub key: ItemKey,
    answer: Answer,
}

/// Whether an item has finished.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum ItemProgress {
    /// Its line is final.
    Finished(Box<Line>),
    /// It is on the disk and is processed when its turn comes.
    Pending,
}

impl Daemon {
    /// Takes an item for a pipeline. It is on the disk when this returns.
    ///
    /// An item with the same `id` and content as one that the present run has taken is the same item. Items without an `id`
    /// are the same if their contents are.
    ///
    /// # Errors
    /// If there is no such pipeline, the item does not fit it, another item has its `id`, or too many items wait.
    pub async fn submit_item(
        &self,
        pipeline: &str,
        item: Map<String, Value>,
        caller: &Caller,
    ) -> Result<SubmittedItem, Error> {
        self.check_running()?;
        let loaded = self.load_pipeline(pipeline).await?;
        let key = item_key(&item).map_err(|reason| Error::invalid(format!("the item {reason}")))?;
        let item = Value::Object(item);
        let fits = loaded.pipeline.validate_item(&item);
        fits.map_err(|reason| {
            Error::invalid(format!("the item does not fit the pipeline's input: {reason}"))
        })?;
        let fingerprint = content_fingerprint(&item);
        let mut loaded = Some(loaded);
        loop {
            let run = self.shared_run(pipeline, caller, &mut loaded).await?;
            match run.take(&key, fingerprint)? {
                Taken::Known(answer) => return Ok(SubmittedItem { run: run.run, key, answer }),
                Taken::New(file, answer) => {
                    self.append(&run, file, &key, &item).await?;
                    return Ok(SubmittedItem { run: run.run, key, answer });
                }
                // Another caller has sent it, and it is not on the disk yet. If that fails, this one tries.
                Taken::Appending(appended) => {
                    let _ = appended.await;
                }
                // It was closed meanwhile.
                Taken::Closed => {}
            }
            loaded = Some(self.load_pipeline(pipeline).await?);
        }
    }

    /// Appends an item in a task of its own, so that a caller who goes away leaves no item half taken.
    async fn append(
        &self,
        run: &Arc<SharedRun>,
        file: Arc<GrowingFile>,
        key: &ItemKey,
        item: &Value,
    ) -> Result<(), Error> {
        let run = run.clone();
        let key = key.clone();
        let item = item.clone();
        let work = self.pointsman().runtime().spawn(async move {
            let appended = file.append(&item).await;
            match &appended {
                Ok(_) => run.record_appended(&key),
                Err(_) => run.give_back(&key),
            }
            appended
        });
        work.await.map_err(|_| Error::Stopping)?.map(drop)
    }

    /// Waits for the line of an item that was taken, until the caller drops this future. `None` if its run has ended without
    /// a line: it is paused, and the item waits.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub async fn item_line(&self, item: SubmittedItem) -> Result<Option<Line>, Error> {
        if let Answer::Awaited(line) = item.answer
            && let Ok(line) = line.await
        {
            return Ok(Some(Arc::unwrap_or_clone(line)));
        }
        Ok(match self.item_of(item.run, &item.key).await? {
            Some(ItemProgress::Finished(line)) => Some(*line),
            Some(ItemProgress::Pending) | None => None,
        })
    }

    /// Returns whether an item that came alone has finished, and its run. The latest runs of the pipeline are searched.
    ///
    /// # Errors
    /// If there is no such item.
    pub async fn find_item(
        &self,
        pipeline: &str,
        key: &ItemKey,
        caller: &Caller,
    ) -> Result<(RunNumber, ItemProgress), Error> {
        let filter = RunFilter {
            name: Some(pipeline.to_owned()),
            identity_prefix: Some(format!("{IDENTITY_PREFIX}items:")),
            max: MAX_SEARCHED_RUNS,
            ..RunFilter::default()
        };
        for stored in self.store().runs_page(&filter).await? {
            let is_visible = caller.sees_all
                || RunCommand::of(&stored).is_some_and(|command| command.created_by == caller.name);
            if !is_visible {
                continue;
            }
            if let Some(found) = self.item_of(stored.number, key).await? {
                return Ok((stored.number, found));
            }
        }
        Err(Error::NotFound { what: "item", name: key.to_string() })
    }

    /// Returns whether an item of this run has finished.
    ///
    /// # Errors
    /// If there is no such item, or the caller may not see it.
    pub async fn item_progress(
        &self,
        run: RunNumber,
        key: &ItemKey,
        caller: &Caller,
    ) -> Result<ItemProgress, Error> {
        self.stored_run(run, caller).await?;
        let found = self.item_of(run, key).await?;
        found.ok_or_else(|| Error::NotFound { what: "item", name: key.to_string() })
    }

    async fn item_of(&self, run: RunNumber, key: &ItemKey) -> Result<Option<ItemProgress>, Error> {
        let history = crate::run::History::of(self.store().clone(), run).await?;
        let keys = [key.clone()];
        let stored = self.store().look_up(run, &keys).await?.into_iter().flatten().next();
        if let Some(line) = stored.as_ref().and_then(|item| history.line(item)) {
            return Ok(Some(ItemProgress::Finished(Box::new(line))));
        }
        let is_known = stored.is_some()
            || self.shared_runs().find(run).is_some_and(|run| run.has(key))
            || self.is_in_file(history.run(), key).await?;
        Ok(is_known.then_some(ItemProgress::Pending))
    }

    /// Returns whether the file of a shared run has an item that the run has not started. After a restart, only the file knows
    /// it.
    async fn is_in_file(&self, run: &StoredRun, key: &ItemKey) -> Result<bool, Error> {
        let Some(command) = RunCommand::of(run).filter(|command| command.one_at_a_time) else {
            return Ok(false);
        };
        if run.state == RunState::Completed {
            return Ok(false);
        }
        let path = self.data().items_file(&command.items.id);
        let key = key.clone();
        self.blocking(move || file_has_item(&path, &key).map_err(Error::io("read the items"))).await
    }

    /// Returns the shared run that takes items now, and begins one if there is none.
    async fn shared_run(
        &self,
        pipeline: &str,
        caller: &Caller,
        loaded: &mut Option<LoadedPipeline>,
    ) -> Result<Arc<SharedRun>, Error> {
        let text: Arc<str> = match loaded {
            Some(loaded) => loaded.pipeline.text().into(),
            None => return Err(Error::Stopping),
        };
        let intake_key = (pipeline.to_owned(), caller.name.clone());
        if let Some(run) = self.shared_runs().taking(&intake_key, &text) {
            return Ok(run);
        }
        let _beginning = self.shared_runs().beginning.lock().await;
        if let Some(run) = self.shared_runs().taking(&intake_key, &text) {
            return Ok(run);
        }
        if self.shared_runs().open_runs(&intake_key) >= MAX_OPEN_RUNS {
            return Err(Error::Busy {
                message: format!("too many items of pipeline {pipeline:?} wait for their answers"),
                retry_after: 30,
            });
        }
        let Some(LoadedPipeline { pipeline: parsed, origin }) = loaded.take() else {
            return Err(Error::Stopping);
        };
        let run = self.begin_shared_run(&intake_key, parsed, &origin, caller).await?;
        self.shared_runs().add(intake_key, run.clone());
        Ok(run)
    }

    async fn begin_shared_run(
        &self,
        (name, _): &RunKey,
        pipeline: Arc<Pipeline>,
        origin: &PipelineOrigin,
        caller: &Caller,
    ) -> Result<Arc<SharedRun>, Error> {
        let id = random_id();
        let text: Arc<str> = pipeline.text().into();
        let (file, items) = GrowingFile::create(&self.data().items_file(&id))?;
        let (lines, received) = Sink::channel().map_err(|error| Error::invalid(error.to_string()))?;
        let command = RunCommand {
            pipeline: name.clone(),
            version: match origin {
                PipelineOrigin::Stored { version, .. } => Some(*version),
                PipelineOrigin::File { .. } => None,
            },
            directory: match origin {
                PipelineOrigin::File { path } => Some(path.parent().unwrap_or(Path::new("")).to_owned()),
                PipelineOrigin::Stored { .. } => None,
            },
            items: ItemsFile { id: id.clone(), path: None, format: Some("jsonl".to_owned()) },
            created_by: caller.name.clone(),
            one_at_a_time: true,
        };
        let terms = SessionTerms {
            identity: format!("{IDENTITY_PREFIX}items:{id}"),
            scope: Some(caller.scope.clone()),
            ..SessionTerms::default()
        };
        let io = SessionIo {
            source: Source::growing(format!("items for {name}"), items),
            output: RunOutput::new(lines),
        };
        let begun = self.begin_session_with(pipeline, &command, terms, io).await;
        let run = match begun {
            Ok(run) => run,
            Err(error) => {
                drop(self.data().remove_run_files(&id));
                return Err(error);
            }
        };
        let max_items = self.config().serve.items_per_run.get();
        let shared = Arc::new(SharedRun::new(run, text, max_items, file));
        let dispatched = shared.clone();
        let daemon = self.downgrade();
        drop(self.pointsman().runtime().spawn(async move {
            dispatch(&dispatched, received).await;
            if let Some(daemon) = daemon.upgrade() {
                daemon.shared_runs().remove(&dispatched);
            }
        }));
        Ok(shared)
    }
}

/// Returns whether a file of JSON lines has an item with this key.
fn file_has_item(path: &Path, key: &ItemKey) -> io::Result<bool> {
    let lines = BufReader::new(File::open(path)?).lines();
    for line in lines {
        let item = serde_json::from_str::<Map<String, Value>>(&line?);
        // A crash may have left the last line without its end.
        let Ok(item) = item else { continue };
        if item_key(&item).is_ok_and(|found| found == *key) {
            return Ok(true);
        }
    }
    Ok(false)
}
