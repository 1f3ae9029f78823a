//! Resumes items that are stored: numbers them, and recognizes those that finished in an earlier session.

use std::sync::Arc;

use super::Run;
use crate::run::output_line;
use crate::run::persistence::{EarlierItem, ItemAction, ItemPersistence};
use crate::run::writer::{FinishedItem, OutputRecord};
use crate::source;
use crate::store::{ItemHead, StoredItem};

impl Run {
    /// Returns the persistence of an item that starts, if results are stored; `None` if the item does not need
    /// to start.
    pub(super) fn resume_item(
        &mut self,
        item: &source::Item,
        earlier: Option<Box<EarlierItem>>,
    ) -> Option<Option<ItemPersistence>> {
        let Some(run) = self.persistence.clone() else { return Some(None) };
        if let Some(earlier) = &earlier {
            run.mark_seen(earlier.item.head.number);
        }
        let content = source::content_fingerprint(&item.value);
        self.known_items_seen += u64::from(earlier.is_some());
        let (number, stored) = match run.action_for(earlier, content) {
            ItemAction::WriteStoredLine(earlier) => {
                self.write_stored_line(item, &earlier.item);
                return None;
            }
            ItemAction::WriteOutdatedLine(earlier) => {
                self.stats.items.not_processed += 1;
                self.write_stored_line(item, &earlier.item);
                return None;
            }
            ItemAction::LeaveOut => {
                self.stats.items.not_processed += 1;
                self.record(OutputRecord::NoLine(item.number));
                return None;
            }
            ItemAction::Process(Some(earlier)) => (earlier.item.head.number, Some(earlier.item)),
            ItemAction::Process(None) => {
                self.last_item.0 += 1;
                run.mark_seen(self.last_item);
                (self.last_item, None)
            }
        };
        let input = run.keep_inputs.then(|| item.value.to_string().into());
        let head = ItemHead { number, key: item.key.clone(), content, line: item.line, input };
        Some(Some(ItemPersistence::new(run, Arc::new(head), stored)))
    }

    /// Counts an item that an earlier session finished, and writes its line again.
    fn write_stored_line(&mut self, item: &source::Item, earlier: &StoredItem) {
        let Some(outcome) = &earlier.outcome else { return };
        self.stats.count_stored_item(outcome.status, earlier.steps.iter().any(|step| step.record.simulated));
        let steps = self.pipeline.steps().iter().map(|step| &step.name);
        let mut line = output_line::from_stored(steps, earlier, item.line);
        if let Some(line) = line.as_mut().filter(|_| self.needs_item()) {
            line.item = Some(item.value.clone());
        }
        if let Some(run) = &self.persistence {
            run.mark_line(earlier.head.number);
        }
        self.record(match line {
            Some(line) => OutputRecord::Line(FinishedItem {
                number: item.number,
                line: Box::new(line),
                unsaved: None,
                memory: item.held.clone(),
            }),
            None => OutputRecord::NoLine(item.number),
        });
    }
}
