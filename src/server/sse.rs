//! Event streams (server-sent events).
//!
//! A frame is rendered once and shared by all watchers. A watcher that does not read is not polled, so it costs its
//! connection and the frame that it has not taken.

use actix_web::HttpResponse;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::Bytes;
use futures_util::Stream;

use super::problem::Problem;

/// What keeps proxies from closing an idle stream.
pub(super) const KEEP_ALIVE: Bytes = Bytes::from_static(b": keep-alive\n\n");

/// Renders a frame. `data` is one line of JSON.
pub(super) fn frame(id: Option<u64>, event: &str, data: &str) -> Bytes {
    let mut text = String::with_capacity(data.len() + event.len() + 48);
    if let Some(id) = id {
        text.push_str("id: ");
        text.push_str(&id.to_string());
        text.push('\n');
    }
    text.push_str("event: ");
    text.push_str(event);
    // A line end within the data would begin another field.
    for line in data.lines() {
        text.push_str("\ndata: ");
        text.push_str(line);
    }
    text.push_str("\n\n");
    Bytes::from(text)
}

/// Renders the start of a stream: how soon a client reconnects, and the number of the last event before those that follow.
pub(super) fn start(position: u64) -> Bytes {
    Bytes::from(format!("retry: 2000\nid: {position}\n\n"))
}

/// Returns a frame in three pieces, of which no watcher has a copy of its own. `head` ends with the name of the data field,
/// and `data` is one line.
pub(super) fn shared_frame(head: &'static str, data: Bytes) -> [Bytes; 3] {
    [Bytes::from_static(head.as_bytes()), data, Bytes::from_static(b"\n\n")]
}

/// Returns the response with a stream of frames.
pub(super) fn response(frames: impl Stream<Item = Bytes> + 'static) -> HttpResponse {
    use futures_util::StreamExt;
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream"))
        .insert_header((CACHE_CONTROL, "no-store"))
        // nginx would collect frames.
        .insert_header(("x-accel-buffering", "no"))
        .streaming(frames.map(Ok::<_, Problem>))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_one_data_field_for_each_line() {
        assert_eq!(frame(Some(7), "run", "{}"), "id: 7\nevent: run\ndata: {}\n\n");
        assert_eq!(frame(None, "x", "a\nb"), "event: x\ndata: a\ndata: b\n\n");
    }
}
