//! What is said to a run: by its items, by what feeds it, by what writes for it, and by its owner.

use actix::Message;

use super::report::{Items, UnkeptItems};
use crate::ledger::Unkept;
use crate::source::Entry;
use crate::supervisor::ChildId;
use crate::types::{Failure, Trail};

use super::keeping::Known;
use super::walked::Walked;

/// Entries of the source, as many as were asked for.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Arrived {
    /// Each with what earlier sessions left of it.
    pub(super) entries: Vec<(Entry, Option<Box<Known>>)>,
    pub(super) input_read: Option<f64>,
}

/// The source has no more entries, or broke.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct SourceEnded {
    pub(super) error: Option<String>,
}

/// One question of a step was answered, or was not.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct StepAsked {
    pub(super) step: usize,
    pub(super) trail: Trail,
    pub(super) practice: bool,
    pub(super) reasked: bool,
    /// Whether it has no end yet: it came back for a reason that is not its own, and is sent again.
    pub(super) held: bool,
    /// How often it was lost with the router, or on its way by a panic.
    pub(super) lost: u64,
}

/// An item has walked to its end.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct ItemSettled {
    pub(super) id: ChildId,
    pub(super) walked: Box<Walked>,
}

/// An item is left as it is: nothing more can be asked for it now, and what it has is kept.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct ItemLeft {
    pub(super) id: ChildId,
    /// Which cap was met, or that everything is being stopped.
    pub(super) why: Box<Failure>,
}

/// Answers cannot be kept any more.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct LedgerBroken(pub(super) Unkept);

/// The writer has dealt with so many records.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct Written(pub(super) usize);

/// The writer cannot write any more; what it still gets is lost.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct OutputBroken;

/// The writer has ended, after everything it was given.
#[derive(Message)]
#[rtype(result = "()")]
pub(super) struct OutputEnded {
    pub(super) error: Option<String>,
    pub(super) reader_gone: bool,
    /// The output, or else the rejects, where the file that was there before has been left in its place.
    pub(super) left_before: Option<String>,
    /// Items whose line was not written.
    pub(super) unwritten: u64,
    /// Items that had settled before and that the run has not come to, whose line was written again.
    pub(super) rest: Items,
    /// Items that have settled and that the store could not keep.
    pub(super) unkept: Option<UnkeptItems>,
}

/// Asks the run to take no more items and finish those in flight.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct StopIntake;

/// Tells the run that somebody looks at its progress from now on.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Watched;

/// Asks the run to give up the items in flight, too.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Cancel;
