//! Content of a prompt other than text.

use std::sync::Arc;

/// An image, a document or an audio recording.
#[derive(Debug, Clone, PartialEq, Eq)]
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
pub enum MediaData {
    /// Standard base64 with padding.
    Base64(Arc<str>),
    /// A URL that the provider fetches.
    Url(Arc<str>),
}

impl Media {
    /// Returns the media type in lower case and without its parameters.
    pub fn essence(&self) -> String {
        self.media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
    }

    /// Returns whether the content is text, which can be sent as a part of the prompt.
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
    fn text_media_types_are_distinguished_from_binary_ones() {
        let is_text = |media_type: &str| {
            Media { media_type: media_type.into(), name: None, data: MediaData::Base64("".into()) }.is_text()
        };
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
