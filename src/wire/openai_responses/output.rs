//! The items of a response: from the deltas of a stream, and from the events that repeat them as a whole.

use std::collections::{BTreeMap, BTreeSet};

use crate::wire::answer::Answer;
use crate::wire::lenient::LenientObject;
use crate::wire::surrogates::{self, JoinedText};

use super::event::{Call, Item, ItemKind, WholeResponse};
use super::raw_field::{raw_elements, raw_field};

/// Stands between two paragraphs of the reasoning.
const PARAGRAPH_END: &str = "\n\n";

/// The first key of calls whose index belongs to another call.
const OTHER_CALLS: u64 = 1 << 63;

/// The output of a response.
#[derive(Debug, Default)]
pub(super) struct Output {
    pub(super) answer: Answer,
    pub(super) refusal: JoinedText,
    /// The type of the first item that is ignored.
    ignored: Option<String>,
    /// The items that have content, each by its kind and its index.
    received: BTreeSet<(ItemKind, u64)>,
    /// The item of the last content.
    last_received: Option<(ItemKind, u64)>,
    /// The keys of the calls by their ids.
    calls_by_id: BTreeMap<String, u64>,
    /// The key of the last call of an index that several calls have: some servers send no index.
    calls_by_index: BTreeMap<u64, u64>,
    /// The reasoning items whose signature is known.
    signed: BTreeSet<u64>,
    /// The paragraph of the last reasoning.
    paragraph: u64,
}

impl Output {
    /// Creates an output whose content is added to `answer`.
    pub(super) fn new(answer: Answer) -> Self {
        Self { answer, ..Self::default() }
    }

    /// Returns the number of buffered bytes.
    pub(super) fn buffered_bytes(&self) -> usize {
        let items = self.received.len() * size_of::<(ItemKind, u64)>() + self.signed.len() * size_of::<u64>();
        let ids = self.calls_by_id.keys().map(|id| id.len() + size_of::<(String, u64)>()).sum::<usize>();
        self.answer.buffered_bytes() + self.refusal.len() + items + ids
    }

    /// Adds text of a message.
    pub(super) fn push_text(&mut self, index: u64, piece: &str, mark: Option<char>) {
        self.receive(ItemKind::Message, index);
        self.answer.push_text(piece, mark);
    }

    /// Adds text of a refusal.
    pub(super) fn push_refusal(&mut self, index: u64, piece: &str, mark: Option<char>) {
        self.receive(ItemKind::Message, index);
        self.refusal.push(piece, mark);
    }

    /// Adds text of reasoning, which consists of paragraphs.
    pub(super) fn push_reasoning(&mut self, index: u64, paragraph: u64, piece: &str, mark: Option<char>) {
        if self.receive(ItemKind::Reasoning, index) {
            self.answer.begin_reasoning();
        } else if self.paragraph != paragraph {
            self.answer.push_reasoning(PARAGRAPH_END, None);
        }
        self.paragraph = paragraph;
        self.answer.push_reasoning(piece, mark);
    }

    /// Adds a piece of the arguments of a call.
    pub(super) fn push_arguments(&mut self, index: u64, piece: &str, mark: Option<char>) {
        self.receive(ItemKind::FunctionCall, index);
        let key = self.call_key(index, None);
        self.answer.tool_call(key).arguments.push(piece, mark);
    }

    /// Begins a call, or adds what is missing of it.
    pub(super) fn complete_call(&mut self, index: u64, known: Call<'_>, mark: Option<char>) {
        self.receive(ItemKind::FunctionCall, index);
        let key = self.call_key(index, known.id);
        let call = self.answer.tool_call(key);
        fill(&mut call.id, known.id.or(known.item_id), mark);
        fill(&mut call.name, known.name, mark);
        if call.arguments.len() == 0 {
            call.arguments.push(known.arguments, mark);
        }
    }

    /// Adds what is missing of a complete item. `raw_item` is its text.
    pub(super) fn push_item(
        &mut self,
        index: u64,
        item: &Item<'_>,
        raw_item: Option<&str>,
        mark: Option<char>,
    ) {
        match item.kind() {
            Some(ItemKind::Message) => self.push_message(index, item, mark),
            Some(ItemKind::FunctionCall) => self.complete_call(index, item.call(), mark),
            Some(ItemKind::Reasoning) => {
                if !self.received.contains(&(ItemKind::Reasoning, index)) {
                    for (paragraph, text) in (0..).zip(item.reasoning()) {
                        self.push_reasoning(index, paragraph, text, mark);
                    }
                }
                // Without this field, the vendor does not accept the item again.
                if let (Some(_), Some(raw_item)) = (item.encrypted_content.as_str(), raw_item) {
                    self.sign_reasoning(index, &surrogates::restore(raw_item, mark));
                }
            }
            None => {
                let kind = || item.kind.label(mark).unwrap_or_default();
                self.ignored.get_or_insert_with(kind);
            }
        }
    }

    /// Returns the type of an ignored item, if the response has neither a message nor a call.
    pub(super) fn only_ignored(&self) -> Option<&str> {
        let is_answer = |(kind, _): &(ItemKind, u64)| *kind != ItemKind::Reasoning;
        self.ignored.as_deref().filter(|_| !self.received.iter().any(is_answer))
    }

    /// Adds the items of a complete response whose kind has not been received. `raw_response` is its text.
    pub(super) fn push_response(
        &mut self,
        response: &WholeResponse<'_>,
        raw_response: &str,
        mark: Option<char>,
    ) {
        let Some(items) = &response.output else { return };
        let has = |kind: &ItemKind| self.received.iter().any(|(received, _)| received == kind);
        let known: Vec<ItemKind> = ItemKind::ALL.into_iter().filter(has).collect();
        let mut raw_items = raw_elements(raw_field(raw_response, "output").unwrap_or_default());
        for (index, item) in (0..).zip(items) {
            let raw_item = raw_items.next();
            if let LenientObject(Some(item)) = item
                && item.kind().is_none_or(|kind| !known.contains(&kind))
            {
                self.push_item(index, item, raw_item, mark);
            }
        }
    }

    fn push_message(&mut self, index: u64, item: &Item<'_>, mark: Option<char>) {
        if self.received.contains(&(ItemKind::Message, index)) {
            return;
        }
        for part in item.content.iter().flatten().filter_map(|part| part.0.as_ref()) {
            match part.kind.as_str() {
                Some("output_text" | "text") | None => {
                    self.push_text(index, part.text.as_str().unwrap_or_default(), mark);
                }
                Some("refusal") => {
                    self.push_refusal(index, part.refusal.as_str().unwrap_or_default(), mark);
                }
                Some(_) => {}
            }
        }
    }

    /// Returns the key of the call with this index, or with this id if it is known.
    fn call_key(&mut self, index: u64, id: Option<&str>) -> u64 {
        let last = self.calls_by_index.get(&index).copied().unwrap_or(index);
        let Some(id) = id else { return last };
        if let Some(known) = self.calls_by_id.get(id) {
            return *known;
        }
        let mut key = last;
        if !self.answer.tool_call(last).id.is_empty() {
            key = OTHER_CALLS + self.calls_by_id.len() as u64;
            self.calls_by_index.insert(index, key);
        }
        self.calls_by_id.insert(id.to_owned(), key);
        key
    }

    fn sign_reasoning(&mut self, index: u64, item: &str) {
        let is_new = self.receive(ItemKind::Reasoning, index);
        let is_signed = !self.signed.insert(index);
        // Two items in one signature would be invalid.
        if is_new || is_signed {
            self.answer.begin_reasoning();
        }
        self.answer.push_signature(item);
    }

    /// Records content of an item; returns whether it is the first.
    fn receive(&mut self, kind: ItemKind, index: u64) -> bool {
        if self.last_received == Some((kind, index)) {
            return false;
        }
        self.last_received = Some((kind, index));
        self.received.insert((kind, index))
    }
}

/// Sets a field of a call that is not known yet.
fn fill(field: &mut String, value: Option<&str>, mark: Option<char>) {
    if let (true, Some(value)) = (field.is_empty(), value) {
        field.push_str(&surrogates::restore(value, mark));
    }
}
