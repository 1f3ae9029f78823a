//! Messages to a run, from its items, its source task, its writer and its owner.

use std::time::Duration;

use actix::{Message, Recipient};

use super::report::{Items, UnsavedItems};
use crate::ledger::CommitError;
use crate::source::Entry;
use crate::supervisor::ChildId;
use crate::types::{Advice, AttemptLog, Failure};

use super::item_result::ItemResult;
use super::persistence::EarlierItem;

/// Entries of the source, as many as were requested.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct EntriesRead {
    /// Each with what earlier sessions have stored about it.
    pub(super) entries: Vec<(Entry, Option<Box<EarlierItem>>)>,
    pub(super) input_read: Option<f64>,
}

/// The source has no more entries, or it failed.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct SourceEnded {
    pub(super) end: InputEnd,
}

/// How reading the source ended.
pub(super) enum InputEnd {
    /// Everything was read.
    Complete,
    /// The first items were read, as many as were asked for.
    Limited,
    Failed(InputError),
}

/// Why the input was not read to its end.
#[derive(Debug, Clone)]
pub(super) struct InputError {
    pub(super) message: String,
    /// The end of the message, if it has remedies.
    pub(super) advice: Option<Advice>,
}

impl From<String> for InputError {
    fn from(message: String) -> Self {
        Self { message, advice: None }
    }
}

/// One request of a step has ended, or has failed and will be sent again.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct RequestEnded {
    pub(super) step: usize,
    pub(super) attempts: AttemptLog,
    pub(super) simulated: bool,
    pub(super) follow_up: FollowUp,
    /// How often it was lost with the router, or by a panic before it was sent.
    pub(super) lost: u64,
    /// The duration of the step, from its first request on, if the step has ended.
    pub(super) step_duration: Option<Duration>,
}

/// What follows a request that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FollowUp {
    /// No other request of the step.
    Nothing,
    /// The request is repeated, because its response was invalid.
    ValidationRetry,
    /// The request is sent again, because its failure has an external cause.
    Resend,
}

impl RequestEnded {
    /// Creates the message for a request that was not answered and will not be sent again.
    pub(super) fn failed(step: usize, attempts: AttemptLog, lost: u32) -> Self {
        Self {
            step,
            attempts,
            simulated: false,
            follow_up: FollowUp::Nothing,
            lost: lost.into(),
            step_duration: None,
        }
    }
}

/// An item has finished.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct ItemFinished {
    pub(super) id: ChildId,
    pub(super) result: Box<ItemResult>,
}

/// An item is deferred: nothing more can be requested for it now, and what it has is stored.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct ItemDeferred {
    pub(super) id: ChildId,
    /// Which cap was reached, or that everything is being stopped.
    pub(super) why: Box<Failure>,
}

/// The run, as the recipient of the messages of its items. They share it, because a clone of a recipient
/// allocates.
pub(super) struct ItemRecipients {
    pub(super) request_ended: Recipient<RequestEnded>,
    pub(super) finished: Recipient<ItemFinished>,
    pub(super) deferred: Recipient<ItemDeferred>,
    pub(super) ledger_failed: Recipient<LedgerFailed>,
}

/// Answers cannot be stored any more.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct LedgerFailed(pub(super) CommitError);

/// The writer has processed this many records.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct RecordsWritten(pub(super) usize);

/// The writer cannot write any more; further records are lost.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct OutputFailed;

/// The writer has ended, after all its records.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct OutputEnded {
    pub(super) error: Option<String>,
    pub(super) output_closed: bool,
    /// The output, or else the rejects file, if the original file was kept instead of being replaced.
    pub(super) kept_file: Option<String>,
    /// Items whose line was not written.
    pub(super) unwritten: u64,
    /// Items that had finished before, were not read in this session, and whose line was written again.
    pub(super) rewritten: Items,
    /// Items that have finished and that the store could not save.
    pub(super) unsaved: Option<UnsavedItems>,
}

/// Stops reading items; those in flight are finished.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct StopIntake;

/// Pauses the run: stops reading items, finishes the calls in flight, and leaves the items that wait unfinished. A stored run
/// waits until its user resumes it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Pause {
    /// Why, for the report.
    pub why: Box<str>,
}

/// The progress of the run is watched from now on.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ProgressWatched;

/// Aborts the items in flight, too.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Cancel;
