//! Reads an input to its end, renders the prompts of some items and samples others.

use std::fmt;
use std::sync::Arc;

use crate::pipeline::Pipeline;
use crate::runtime::error::Error;
use crate::runtime::pointsman::Pointsman;
use crate::source::{self, Entry, Source};
use crate::types::ItemKey;

use super::plan::NoCalls;
use super::rendered_prompts::RenderedPrompts;

/// How many of the first items have their prompts rendered.
const MIN_RENDERED_ITEMS: u64 = 1_000;

/// One in so many of the other items has its prompts rendered.
const RENDER_ONE_IN: u64 = 100;

/// The result of reading an input to its end.
#[derive(Debug)]
pub struct InputScan {
    pub(super) items: u64,
    pub(super) rejected: u64,
    pub(super) first_reject: Option<String>,
    pub(super) rendered: RenderedPrompts,
    /// A uniform random sample of the items, with the lines on which they begin.
    sample: Vec<source::Item>,
    /// The field that is the key of an item in place of `id`.
    key_field: Option<String>,
}

impl InputScan {
    /// Returns a source of the sampled items.
    pub fn sample(&self) -> Source {
        let total = self.sample.len() as u64;
        let items = self.sample.clone().into_iter().map(|item| Ok((item.line, item.key, item.value)));
        let source = Source::fallible("the sample", total, items);
        match &self.key_field {
            Some(field) => source.with_key(field),
            None => source,
        }
    }

    /// Returns the keys of the sampled items.
    pub fn keys(&self) -> Vec<ItemKey> {
        self.sample.iter().map(|item| item.key.clone()).collect()
    }

    fn reject(&mut self, line: u64, reason: &dyn fmt::Display) {
        self.rejected += 1;
        self.first_reject.get_or_insert_with(|| format!("line {line}: {reason}"));
    }

    /// Returns why no call is expected.
    pub(super) fn no_calls(&self) -> NoCalls {
        match (self.items, &self.first_reject) {
            (0, None) => NoCalls::NoItems,
            (0, Some(reason)) => NoCalls::AllRejected { reason: reason.clone() },
            _ => self.rendered.no_calls(),
        }
    }

    /// Returns the number of sampled items.
    pub fn sample_size(&self) -> usize {
        self.sample.len()
    }
}

impl Pointsman {
    /// Reads an input to its end, and samples `pick` items of it at random with a fixed seed.
    ///
    /// # Errors
    /// If the input cannot be read.
    #[doc(hidden)]
    pub async fn scan_input(
        &self,
        pipeline: &Arc<Pipeline>,
        source: Source,
        pick: usize,
    ) -> Result<InputScan, Error> {
        self.scan_and_visit(pipeline, source, pick, |_| {}).await
    }

    /// As [`scan_input`](Self::scan_input), and calls `visit` with every item.
    pub(super) async fn scan_and_visit(
        &self,
        pipeline: &Arc<Pipeline>,
        source: Source,
        pick: usize,
        mut visit: impl FnMut(&source::Item),
    ) -> Result<InputScan, Error> {
        let validator = pipeline.clone();
        let mut source = source.with_check(move |item| validator.validate_item(item));
        self.leave_out_used_files(pipeline, &mut source);
        let key_field = source.key_field().map(str::to_owned);
        let mut reader = source.read().map_err(Error::Source)?;
        let rendered = RenderedPrompts::new(pipeline.clone());
        let mut scan =
            InputScan { items: 0, rejected: 0, first_reject: None, rendered, sample: Vec::new(), key_field };
        let mut random = fastrand::Rng::with_seed(7);
        while let Some(entry) = reader.next().await {
            let item = match entry.map_err(Error::Source)? {
                Entry::Item(item) => item,
                Entry::Rejected(rejected) => {
                    scan.reject(rejected.line, &rejected.reason);
                    continue;
                }
            };
            visit(&item);
            if scan.items < MIN_RENDERED_ITEMS || scan.items.is_multiple_of(RENDER_ONE_IN) {
                scan.rendered.add(scan.items, &item.value);
            }
            // Reservoir sampling (Waterman's algorithm R): the n-th item replaces an entry with probability
            // pick/n.
            if scan.sample.len() < pick {
                scan.sample.push(item);
            } else {
                let slot = random.u64(0..=scan.items);
                if let Some(slot) = usize::try_from(slot).ok().and_then(|slot| scan.sample.get_mut(slot)) {
                    *slot = item;
                }
            }
            scan.items += 1;
        }
        scan.sample.sort_by_key(|item| item.line);
        Ok(scan)
    }
}
