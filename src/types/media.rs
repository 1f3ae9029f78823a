//! What a prompt can carry besides text.

use std::sync::Arc;

/// An image, a document or a sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// The media type, such as `image/png`.
    pub media_type: Arc<str>,
    /// A file name to show the model, where the format has a place for it.
    pub name: Option<Arc<str>>,
    /// The content, or where it is.
    pub data: MediaData,
}

/// The content of a [`Media`], or its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaData {
    /// Standard base64 with padding.
    Base64(Arc<str>),
    /// An address that the provider itself fetches.
    Url(Arc<str>),
}
