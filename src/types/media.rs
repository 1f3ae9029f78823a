//! Content of a prompt other than text.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// An image, a document or an audio recording. A [`Part`](super::Part) of a message contains it.
///
/// ```
/// use pointsman::{Media, Part, Prompt};
///
/// # let photo: &[u8] = b"...";
/// let inline = Media::bytes("image/jpeg", photo).with_name("track.jpg");
/// let linked = Media::url("application/pdf", "https://example.com/timetable.pdf");
/// let prompt = Prompt::text("Does the picture show the station of the timetable?")
///     .with_part(Part::Image(inline))
///     .with_part(Part::Document(linked));
/// assert_eq!(prompt.messages[0].parts.len(), 3);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Media {
    /// The media type, such as `image/png`.
    pub media_type: Arc<str>,
    /// A file name for the model, if the format supports one.
    pub name: Option<Arc<str>>,
    /// The content, or its URL.
    pub data: MediaData,
}

/// The content of a [`Media`], or its URL.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MediaData {
    /// Standard base64 with padding.
    Base64(Arc<str>),
    /// A URL that the provider fetches.
    Url(Arc<str>),
}

impl Media {
    /// Creates media from content in standard base64 with padding.
    pub fn base64(media_type: impl Into<Arc<str>>, data: impl Into<Arc<str>>) -> Self {
        Self { media_type: media_type.into(), name: None, data: MediaData::Base64(data.into()) }
    }

    /// Creates media from the bytes of a file.
    pub fn bytes(media_type: impl Into<Arc<str>>, bytes: &[u8]) -> Self {
        Self::base64(media_type, STANDARD.encode(bytes))
    }

    /// Creates media from a URL that the provider fetches.
    pub fn url(media_type: impl Into<Arc<str>>, url: impl Into<Arc<str>>) -> Self {
        Self { media_type: media_type.into(), name: None, data: MediaData::Url(url.into()) }
    }

    /// Sets the file name for the model.
    #[must_use]
    pub fn with_name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Returns the media type in lower case and without its parameters.
    #[doc(hidden)]
    pub fn essence(&self) -> String {
        self.media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// Returns whether the content is text, which can be sent as a part of the prompt.
    #[doc(hidden)]
    pub fn is_text(&self) -> bool {
        let essence = self.essence();
        essence.starts_with("text/")
            || ["application/json", "application/xml", "application/yaml"].contains(&&*essence)
            || essence.starts_with("application/")
                && (essence.ends_with("+json") || essence.ends_with("+xml"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_media_become_base64() {
        let media = Media::bytes("text/plain", b"Hello?").with_name("hello.txt");
        assert_eq!(media.data, MediaData::Base64("SGVsbG8/".into()));
        assert_eq!(media, Media::base64("text/plain", "SGVsbG8/").with_name("hello.txt"));
    }

    #[test]
    fn text_media_types_are_distinguished_from_binary_ones() {
        let is_text = |media_type: &str| Media::base64(media_type, "").is_text();
        for text in [
            "text/plain",
            "text/markdown",
            "text/csv;charset=utf-8",
            "TEXT/HTML",
            "application/json",
            "application/xml",
            "application/ld+json",
            "application/xhtml+xml; charset=utf-8",
        ] {
            assert!(is_text(text), "{text}");
        }
        for other in ["application/pdf", "image/svg+xml", "audio/wav", "application/octet-stream", ""] {
            assert!(!is_text(other), "{other}");
        }
    }
}
