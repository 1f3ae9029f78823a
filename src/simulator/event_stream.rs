//! A rendered stream of server-sent events: the events before the text chunks, the chunks, and the final events.
//!
//! The stream is one buffer, so that it can be sent at once. It is split only for latency and faults.

use bytes::Bytes;

/// A rendered stream.
#[derive(Debug, Default)]
pub(super) struct EventStream {
    bytes: Vec<u8>,
    /// End offset of each event.
    ends: Vec<usize>,
    /// Number of events before the first chunk.
    head: usize,
    /// Index of the first event after the last chunk.
    tail: usize,
}

impl EventStream {
    /// Creates a stream with capacity for `bytes` bytes.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(12), head: 0, tail: 0 }
    }

    /// Adds an event in its wire format.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// Marks the next event as the first chunk.
    pub(super) fn begin_chunks(&mut self) {
        self.head = self.ends.len();
    }

    /// Marks the previous event as the last chunk.
    pub(super) fn end_chunks(&mut self) {
        self.tail = self.ends.len();
    }

    /// Returns the number of text chunks.
    pub(super) fn chunk_count(&self) -> usize {
        self.tail - self.head
    }

    /// Drops all events after the last chunk, including the end marker.
    pub(super) fn drop_terminator(&mut self) {
        self.keep_events(self.tail);
    }

    /// Returns the number of events that are left if the stream is truncated: the head and the first half of the
    /// chunks, at least one, if there is one.
    pub(super) fn truncated_len(&self) -> usize {
        self.head + self.chunk_count().div_ceil(2)
    }

    /// Keeps the head and the first half of the chunks (at least one, if there is one), then adds `event`.
    pub(super) fn truncate_with(&mut self, event: &[u8]) {
        self.keep_events(self.truncated_len());
        self.push(|out| out.extend_from_slice(event));
    }

    /// Keeps the head and the first half of the chunks. With `mid_event` the last kept event is cut in its middle.
    pub(super) fn truncate(&mut self, mid_event: bool) {
        self.keep_events(self.truncated_len());
        if mid_event && let Some(end) = self.ends.pop() {
            let start = self.ends.last().copied().unwrap_or(0);
            self.bytes.truncate(start + (end - start) / 2);
            self.ends.push(self.bytes.len());
        }
    }

    /// Removes the end of one chunk's JSON. The other events stay unchanged.
    pub(super) fn corrupt_json(&mut self, line_end: &[u8]) {
        let at = self.head + self.chunk_count() / 2;
        let (Some(start), Some(&end)) = (self.event_start(at), self.ends.get(at)) else { return };
        let cut = start + (end - start) * 2 / 3;
        self.bytes.splice(cut..end, line_end.iter().copied());
        let removed = end - cut - line_end.len();
        for end in &mut self.ends[at..] {
            *end -= removed;
        }
    }

    /// Returns the whole stream.
    pub(super) fn into_bytes(self) -> Bytes {
        self.bytes.into()
    }

    /// Returns the stream in parts: the head with the first chunk, each further chunk, and the final events with
    /// the last chunk.
    pub(super) fn into_parts(self) -> Vec<Bytes> {
        let cuts: Vec<usize> =
            self.ends.get(self.head..self.tail.saturating_sub(1)).unwrap_or_default().to_vec();
        let mut rest = Bytes::from(self.bytes);
        let mut parts = Vec::with_capacity(cuts.len() + 1);
        let mut done = 0;
        for cut in cuts {
            parts.push(rest.split_to(cut - done));
            done = cut;
        }
        parts.push(rest);
        parts
    }

    /// Returns the events as one JSON array.
    pub(super) fn into_array(self) -> Vec<u8> {
        let mut array = vec![b'['];
        let mut start = 0;
        for end in self.ends {
            let event = self.bytes[start..end].trim_ascii();
            if start > 0 {
                array.extend_from_slice(b",\r\n");
            }
            array.extend_from_slice(event.strip_prefix(b"data: ").unwrap_or(event));
            start = end;
        }
        array.push(b']');
        array
    }

    fn event_start(&self, at: usize) -> Option<usize> {
        if at == 0 { Some(0) } else { self.ends.get(at - 1).copied() }
    }

    fn keep_events(&mut self, events: usize) {
        self.ends.truncate(events);
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
        self.tail = self.tail.min(events);
        self.head = self.head.min(events);
    }
}

/// Splits a text at character boundaries into at most `max_chunks` chunks of about the same length.
pub(super) fn text_chunks(text: &str, max_chunks: usize) -> impl Iterator<Item = &str> {
    let length = text.len().div_ceil(max_chunks.max(1)).max(1);
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        // Rounded up, so that a character longer than a chunk makes progress.
        let (chunk, remaining) = rest.split_at(rest.ceil_char_boundary(length.min(rest.len())));
        rest = remaining;
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> EventStream {
        let mut events = EventStream::with_capacity(64);
        let add = |events: &mut EventStream, text: &'static str| {
            events.push(|out| out.extend_from_slice(text.as_bytes()))
        };
        add(&mut events, "head|");
        events.begin_chunks();
        for chunk in ["one111|", "two222|", "three3|"] {
            add(&mut events, chunk);
        }
        events.end_chunks();
        add(&mut events, "end|");
        add(&mut events, "[DONE]|");
        events
    }

    #[test]
    fn each_fault_changes_the_stream_at_its_position() {
        let damaged = |damage: fn(&mut EventStream)| {
            let mut events = stream();
            damage(&mut events);
            String::from_utf8(events.into_bytes().to_vec()).unwrap()
        };
        assert_eq!(damaged(EventStream::drop_terminator), "head|one111|two222|three3|");
        assert_eq!(damaged(|events| events.truncate_with(b"error|")), "head|one111|two222|error|");
        assert_eq!(damaged(|events| events.truncate(false)), "head|one111|two222|");
        assert_eq!(damaged(|events| events.truncate(true)), "head|one111|two");
        assert_eq!(damaged(|events| events.corrupt_json(b"|")), "head|one111|two2|three3|end|[DONE]|");
    }

    #[test]
    fn each_part_contains_one_chunk_and_all_parts_make_the_stream() {
        let parts = stream().into_parts();
        assert_eq!(parts, ["head|one111|", "two222|", "three3|end|[DONE]|"]);
        let mut events = EventStream::default();
        events.push(|out| out.extend_from_slice(b"only"));
        assert_eq!(events.into_parts(), ["only"]);
    }

    #[test]
    fn a_text_is_split_at_character_boundaries() {
        assert_eq!(text_chunks("abcdefgh", 4).collect::<Vec<_>>(), ["ab", "cd", "ef", "gh"]);
        assert_eq!(text_chunks("🌊🌊", 8).collect::<Vec<_>>(), ["🌊", "🌊"]);
        assert_eq!(text_chunks("", 4).count(), 0);
        let text = "ça va? Grüße und 🌊".repeat(7);
        assert!(text_chunks(&text, 4).count() <= 4);
        assert_eq!(text_chunks(&text, 4).collect::<String>(), text);
    }
}
