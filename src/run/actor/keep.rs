//! What a run does with items that are kept: numbers them, and knows those that have settled before.

use std::sync::Arc;

use super::Run;
use crate::run::keeping::{Kept, Known, Standing};
use crate::run::line;
use crate::run::writer::Record;
use crate::source;
use crate::store::{ItemHead, KnownItem};

impl Run {
    /// Returns how an item that begins is kept, if it is; `None` when it has settled before and needs not begin.
    pub(super) fn keep(&mut self, item: &source::Item, known: Option<Box<Known>>) -> Option<Option<Kept>> {
        let Some(keeping) = self.keeping.clone() else { return Some(None) };
        if let Some(known) = &known {
            keeping.meet(known.item.head.number);
        }
        let content = source::content(&item.value);
        self.met_again += u64::from(known.is_some());
        match (keeping.standing(known.as_deref(), content), &known) {
            (Standing::Settled, Some(known)) => {
                self.has_settled(item, &known.item);
                return None;
            }
            (Standing::SettledOtherwise, Some(known)) => {
                self.tally.items.left += 1;
                self.has_settled(item, &known.item);
                return None;
            }
            (Standing::Left, _) => {
                self.tally.items.left += 1;
                self.record(Record::NoLine(item.number));
                return None;
            }
            (Standing::Settled | Standing::SettledOtherwise, None) | (Standing::Asked, _) => {}
        }
        let (number, earlier) = match known {
            Some(known) => (known.item.head.number, known.item.steps),
            None => {
                self.last_item.0 += 1;
                keeping.meet(self.last_item);
                (self.last_item, Vec::new())
            }
        };
        let input = keeping.keep_inputs.then(|| item.value.to_string().into());
        let head = ItemHead { number, key: item.key.clone(), content, line: item.line, input };
        Some(Some(Kept::new(keeping, Arc::new(head), earlier)))
    }

    /// Counts an item that an earlier session settled, and hands on its line again.
    fn has_settled(&mut self, item: &source::Item, known: &KnownItem) {
        let Some(settled) = &known.settled else { return };
        self.tally.settled_before(settled.status, known.steps.iter().any(|step| step.record.practice));
        let steps = self.pipeline.steps().iter().map(|step| &step.name);
        let line = line::earlier(steps, known, item.line);
        if let Some(keeping) = &self.keeping {
            keeping.has_line(known.head.number);
        }
        self.record(match line {
            Some(line) => Record::Line(item.number, Box::new(line), None, item.held.clone()),
            None => Record::NoLine(item.number),
        });
    }
}
