//! A stream of server-sent events: what stands before the answer's pieces, the pieces, what ends them.
//!
//! Written into one buffer, so that it can leave at once; cut apart only when time or a fault wants it.

use bytes::Bytes;

/// A rendered stream.
#[derive(Debug, Default)]
pub(super) struct Events {
    bytes: Vec<u8>,
    /// Where each event ends.
    ends: Vec<usize>,
    /// Events before the first piece.
    head: usize,
    /// Events from the first after the last piece.
    tail: usize,
}

impl Events {
    /// Makes a stream with room for so many bytes.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ends: Vec::with_capacity(12), head: 0, tail: 0 }
    }

    /// Adds an event as it stands on the wire.
    pub(super) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    /// Says that the next event is the first piece.
    pub(super) fn pieces_begin(&mut self) {
        self.head = self.ends.len();
    }

    /// Says that the last event was the last piece.
    pub(super) fn pieces_end(&mut self) {
        self.tail = self.ends.len();
    }

    /// Returns how many pieces of the answer there are.
    pub(super) fn pieces(&self) -> usize {
        self.tail - self.head
    }

    /// Drops everything after the last piece: the terminal mark never comes.
    pub(super) fn drop_end(&mut self) {
        self.keep(self.tail);
    }

    /// Keeps the head and the first half of the pieces (at least one, if there is one), then adds `event`.
    pub(super) fn end_with(&mut self, event: &[u8]) {
        self.keep(self.head + self.pieces().div_ceil(2));
        self.push(|out| out.extend_from_slice(event));
    }

    /// Keeps the head and about half of what follows; `ragged` cuts through the middle of an event.
    pub(super) fn cut(&mut self, ragged: bool) {
        self.keep(self.head + self.pieces().div_ceil(2));
        if ragged && let Some(end) = self.ends.pop() {
            let start = self.ends.last().copied().unwrap_or(0);
            self.bytes.truncate(start + (end - start) / 2);
            self.ends.push(self.bytes.len());
        }
    }

    /// Takes the end off one piece's JSON, and leaves all the others whole.
    pub(super) fn break_json(&mut self, line_end: &[u8]) {
        let at = self.head + self.pieces() / 2;
        let (Some(start), Some(&end)) = (self.start(at), self.ends.get(at)) else { return };
        let kept = start + (end - start) * 2 / 3;
        self.bytes.splice(kept..end, line_end.iter().copied());
        let shorter = end - kept - line_end.len();
        for end in &mut self.ends[at..] {
            *end -= shorter;
        }
    }

    /// Returns the whole stream.
    pub(super) fn into_bytes(self) -> Bytes {
        self.bytes.into()
    }

    /// Returns the stream in parts: the head with the first piece, every further piece, and the end with
    /// the last.
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

    /// Returns the events as one JSON array, for a client that asked for no event stream.
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

    fn start(&self, at: usize) -> Option<usize> {
        if at == 0 { Some(0) } else { self.ends.get(at - 1).copied() }
    }

    fn keep(&mut self, events: usize) {
        self.ends.truncate(events);
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
        self.tail = self.tail.min(events);
        self.head = self.head.min(events);
    }
}

/// Cuts a text into at most `pieces` parts of about one length, between characters.
pub(super) fn pieces(text: &str, pieces: usize) -> impl Iterator<Item = &str> {
    let length = text.len().div_ceil(pieces.max(1)).max(1);
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        // Upwards, so that a character wider than a part still makes progress.
        let (piece, further) = rest.split_at(rest.ceil_char_boundary(length.min(rest.len())));
        rest = further;
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream() -> Events {
        let mut events = Events::with_capacity(64);
        let add = |events: &mut Events, text: &'static str| {
            events.push(|out| out.extend_from_slice(text.as_bytes()))
        };
        add(&mut events, "head|");
        events.pieces_begin();
        for piece in ["one111|", "two222|", "three3|"] {
            add(&mut events, piece);
        }
        events.pieces_end();
        add(&mut events, "end|");
        add(&mut events, "[DONE]|");
        events
    }

    #[test]
    fn each_fault_spoils_the_stream_where_it_should() {
        let spoilt = |spoil: fn(&mut Events)| {
            let mut events = stream();
            spoil(&mut events);
            String::from_utf8(events.into_bytes().to_vec()).unwrap()
        };
        assert_eq!(spoilt(Events::drop_end), "head|one111|two222|three3|");
        assert_eq!(spoilt(|events| events.end_with(b"error|")), "head|one111|two222|error|");
        assert_eq!(spoilt(|events| events.cut(false)), "head|one111|two222|");
        assert_eq!(spoilt(|events| events.cut(true)), "head|one111|two");
        assert_eq!(spoilt(|events| events.break_json(b"|")), "head|one111|two2|three3|end|[DONE]|");
    }

    #[test]
    fn parts_are_the_whole_stream_with_one_piece_in_each() {
        let parts = stream().into_parts();
        assert_eq!(parts, ["head|one111|", "two222|", "three3|end|[DONE]|"]);
        let mut events = Events::default();
        events.push(|out| out.extend_from_slice(b"only"));
        assert_eq!(events.into_parts(), ["only"]);
    }

    #[test]
    fn a_text_is_cut_between_characters_into_as_many_pieces_as_it_has() {
        assert_eq!(pieces("abcdefgh", 4).collect::<Vec<_>>(), ["ab", "cd", "ef", "gh"]);
        assert_eq!(pieces("🌊🌊", 8).collect::<Vec<_>>(), ["🌊", "🌊"]);
        assert_eq!(pieces("", 4).count(), 0);
        let text = "ça va? Grüße und 🌊".repeat(7);
        assert!(pieces(&text, 4).count() <= 4);
        assert_eq!(pieces(&text, 4).collect::<String>(), text);
    }
}
