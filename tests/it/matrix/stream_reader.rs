//! Reads a streamed answer to its end, and checks the order of its events.

use futures_util::StreamExt;
use pointsman::ResponseStream;
use pointsman::types::{RequestError, Response, StreamEvent};

/// Returns the number of pieces that the reader got, and the result of the request.
pub(super) async fn read(mut stream: ResponseStream) -> (usize, Result<Response, Box<RequestError>>) {
    let mut answering = None;
    let mut pieces = 0;
    let mut text = String::new();
    let result = loop {
        // A stream ends with a response or an error.
        match stream.next().await.unwrap() {
            Ok(StreamEvent::Started { target }) => {
                assert_eq!(answering.replace(target), None, "an answer comes from one target");
            }
            Ok(StreamEvent::Text(piece)) => {
                assert!(answering.is_some(), "a piece comes from a target");
                pieces += 1;
                text.push_str(&piece);
            }
            Ok(StreamEvent::Finished(response)) => {
                let expected = (Some(&response.target), response.text());
                assert_eq!((answering.as_ref(), &*text), expected, "the pieces are the answer");
                break Ok(*response);
            }
            Ok(event) => panic!("{event:?}"),
            Err(error) => {
                // The target that has begun to answer is the one that has failed.
                assert!(answering.is_none() || answering == error.target, "{answering:?}: {error}");
                break Err(error);
            }
        }
    };
    assert!(stream.next().await.is_none(), "nothing follows the end");
    (pieces, result)
}
