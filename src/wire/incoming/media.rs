//! Media of a request: in the request itself as a data URL, or at another URL.

use crate::types::{Failure, Media};

use super::fields::invalid;

/// The media types of files by the ends of their names: those that some vendor fetches from a URL.
const EXTENSIONS: [(&str, &str); 20] = [
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("heic", "image/heic"),
    ("heif", "image/heif"),
    ("pdf", "application/pdf"),
    ("txt", "text/plain"),
    ("md", "text/markdown"),
    ("csv", "text/csv"),
    ("html", "text/html"),
    ("json", "application/json"),
    ("wav", "audio/wav"),
    ("mp3", "audio/mpeg"),
    ("flac", "audio/flac"),
    ("ogg", "audio/ogg"),
    ("mp4", "video/mp4"),
    ("mov", "video/quicktime"),
    ("webm", "video/webm"),
];

/// Returns the media at an address: a data URL, or a URL that the provider fetches. `path` is that of the field.
///
/// # Errors
/// `api_error` if it is a data URL without a media type or without base64.
pub(in crate::wire) fn media_at(address: &str, path: &str, default_type: &str) -> Result<Media, Failure> {
    match after_scheme(address) {
        Some(data) => of_data(data, path),
        None => Ok(media_of_url(address, default_type)),
    }
}

/// Returns media that the provider fetches. The request does not say their media type: it is that of the file's
/// name, or the default.
pub(in crate::wire) fn media_of_url(url: &str, default_type: &str) -> Media {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = name.rsplit_once('.').map(|(_, extension)| extension);
    let known =
        EXTENSIONS.iter().find(|(known, _)| extension.is_some_and(|end| end.eq_ignore_ascii_case(known)));
    Media::url(known.map_or(default_type, |(_, media_type)| *media_type), url)
}

/// Returns what follows `data:`; `None` for another URL.
fn after_scheme(address: &str) -> Option<&str> {
    let (scheme, data) = address.split_once(':')?;
    scheme.eq_ignore_ascii_case("data").then_some(data)
}

fn of_data(data: &str, path: &str) -> Result<Media, Failure> {
    let (head, content) = data.split_once(',').unwrap_or((data, ""));
    let media_type =
        head.rsplit_once(';').filter(|(_, encoding)| encoding.trim().eq_ignore_ascii_case("base64"));
    match media_type.map(|(media_type, _)| media_type.trim()) {
        Some(media_type) if !media_type.is_empty() => Ok(Media::base64(media_type, content)),
        Some(_) | None => Err(invalid(format!(
            "{path} must be like data:image/png;base64,...: with a media type and base64"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_url_becomes_media_with_its_content() {
        for (url, media_type, data) in [
            ("data:image/png;base64,AA==", "image/png", "AA=="),
            ("DATA:image/png;BASE64,AA==", "image/png", "AA=="),
            ("data:text/plain;charset=utf-8;base64,eA==", "text/plain;charset=utf-8", "eA=="),
            ("data:image/png;base64,", "image/png", ""),
        ] {
            assert_eq!(media_at(url, "p", "image/*"), Ok(Media::base64(media_type, data)), "{url}");
        }
        for url in ["data:", "data:,x", "data:image/png,x", "data:;base64,AA==", "data:base64,AA=="] {
            let failure = media_at(url, "messages[0].url", "image/*").unwrap_err();
            assert!(failure.message.starts_with("messages[0].url must be like data:"), "{url}: {failure}");
        }
    }

    #[test]
    fn the_media_type_of_a_url_is_that_of_the_file_name() {
        for (url, media_type) in [
            ("https://example.com/a.png", "image/png"),
            ("https://example.com/a.b/A.JPG?x=.gif#y.gif", "image/jpeg"),
            ("https://example.com/a.png/b", "image/*"),
            ("https://example.com", "image/*"),
            ("", "image/*"),
            ("gs://bucket/é.webp", "image/webp"),
        ] {
            assert_eq!(media_at(url, "p", "image/*"), Ok(Media::url(media_type, url)), "{url}");
        }
    }
}
