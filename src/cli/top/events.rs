//! Reads the frames of an event stream.

use super::answers::EventView;

/// The longest frame. A longer one is dropped.
const MAX_FRAME_BYTES: usize = 1 << 20;

/// Frames that arrive in pieces.
#[derive(Debug, Default)]
pub(super) struct EventReader(Vec<u8>);

impl EventReader {
    /// Adds a piece. Returns the events of the frames that are complete now. Comments and frames of other kinds are left out.
    pub(super) fn read(&mut self, piece: &[u8]) -> Vec<EventView> {
        self.0.extend_from_slice(piece);
        let mut events = Vec::new();
        while let Some(end) = self.0.windows(2).position(|bytes| bytes == b"\n\n") {
            let rest = self.0.split_off(end + 2);
            let frame = std::mem::replace(&mut self.0, rest);
            events.extend(event(&frame));
        }
        if self.0.len() > MAX_FRAME_BYTES {
            self.0.clear();
        }
        events
    }
}

fn event(frame: &[u8]) -> Option<EventView> {
    let text = std::str::from_utf8(frame).ok()?;
    let data = text.lines().find_map(|line| line.strip_prefix("data: "))?;
    serde_json::from_str(data).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_in_any_pieces() {
        let stream = "retry: 2000\nid: 4\n\n: keep-alive\n\nevent: reset\ndata: {}\n\nid: 5\nevent: run_ended\n\
                      data: {\"number\":5,\"at\":0,\"kind\":\"run_ended\",\"run\":3,\"data\":{}}\n\n";
        for size in 1..stream.len() {
            let mut reader = EventReader::default();
            let pieces = stream.as_bytes().chunks(size);
            let events: Vec<EventView> = pieces.flat_map(|piece| reader.read(piece)).collect();
            assert_eq!(events.iter().map(|event| event.number).collect::<Vec<_>>(), [5]);
        }
    }

    #[test]
    fn a_frame_without_end_does_not_fill_the_memory() {
        let mut reader = EventReader::default();
        for _ in 0..40 {
            assert!(reader.read(&[b'a'; 64 << 10]).is_empty());
        }
        assert!(reader.0.len() <= MAX_FRAME_BYTES);
    }
}
