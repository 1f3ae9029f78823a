//! Text documents as prompt text, for formats that do not support them as files.
//!
//! Only UTF-8 is supported; other encodings are rejected.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::types::{Class, Failure, Media, MediaData};

/// Decodes the text of a document from `base64`.
///
/// # Errors
/// `api_error` if it is not UTF-8.
pub(super) fn content(media: &Media, base64: &str) -> Result<String, Failure> {
    let text = BASE64_STANDARD.decode(base64).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let Some(text) = text else {
        let name = media.name.as_deref().unwrap_or("a document");
        return Err(Failure::new(Class::ApiError, format!("{name} is not base64-encoded UTF-8 text")));
    };
    Ok(match text.strip_prefix('\u{feff}') {
        Some(without_bom) => without_bom.to_owned(),
        None => text,
    })
}

/// Returns the text of a text document as a part of a prompt, preceded by its name; `None` for a document of another
/// type, or at a URL.
///
/// # Errors
/// `api_error` if it is not UTF-8.
pub(super) fn part(media: &Media) -> Result<Option<String>, Failure> {
    let content = match &media.data {
        MediaData::Base64(base64) if media.is_text() => content(media, base64)?,
        MediaData::Base64(_) | MediaData::Url(_) => return Ok(None),
    };
    Ok(Some(match &media.name {
        Some(name) => format!("{name}:\n\n{content}"),
        None => content,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_decoded_as_utf_8_without_its_byte_order_mark() {
        let read = |bytes: &[u8]| part(&Media::bytes("text/plain", bytes).with_name("a.txt"));
        assert_eq!(read("día".as_bytes()).unwrap().as_deref(), Some("a.txt:\n\ndía"));
        assert_eq!(read(b"\xef\xbb\xbfx").unwrap().as_deref(), Some("a.txt:\n\nx"));
        assert_eq!(part(&Media::bytes("text/plain", b"x")).unwrap().as_deref(), Some("x"));
        let failure = read(b"d\xeda").unwrap_err();
        assert_eq!(
            (failure.class, &*failure.message),
            (Class::ApiError, "a.txt is not base64-encoded UTF-8 text")
        );
    }

    #[test]
    fn only_the_content_of_a_text_document_is_text() {
        assert_eq!(part(&Media::bytes("application/pdf", b"x")), Ok(None));
        assert_eq!(part(&Media::url("text/plain", "https://example.com/a.txt")), Ok(None));
    }
}
