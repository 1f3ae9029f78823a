//! Parses the rendered text of an attachment template.
//!
//! Opens no file: a [`FileAttachment`] contains the path of the file to read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::source::FileSelection;
use crate::types::{Media, MediaData, Origin, Part};

/// File extensions and their media types.
pub(crate) const MEDIA_TYPES: [(&str, &str); 17] = [
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("pdf", "application/pdf"),
    ("txt", "text/plain"),
    ("md", "text/markdown"),
    ("csv", "text/csv"),
    ("html", "text/html"),
    ("json", "application/json"),
    ("xml", "application/xml"),
    ("mp3", "audio/mpeg"),
    ("wav", "audio/wav"),
    ("ogg", "audio/ogg"),
    ("flac", "audio/flac"),
    ("m4a", "audio/mp4"),
];

/// Something to send with a prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Attachment {
    /// Ready to be sent: a URL, or content from the item itself.
    Ready(Part),
    /// A file that must be read first.
    File(FileAttachment),
}

/// A file to send with a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileAttachment {
    /// The path of the file.
    pub path: PathBuf,
    pub(crate) sources: AttachmentSources,
    /// Whether the path is a literal in the pipeline, without an expression.
    pub(crate) is_literal: bool,
    media_type: Arc<str>,
}

/// Folders and hosts that attachments may come from. The data of an item cannot select others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AttachmentSources {
    /// The pipeline's directory. Relative paths are relative to it.
    pub(crate) directory: Arc<Path>,
    /// The folders of `[files] allow`.
    pub(crate) allowed_folders: Arc<[PathBuf]>,
    /// The files that are the items of the run: its user has named their folder or pattern.
    pub(crate) item_files: Option<Arc<FileSelection>>,
    /// Hosts that are literals in `attach` templates, and those of `[files] allow_hosts`.
    pub(crate) allowed_hosts: Arc<[Origin]>,
}

impl AttachmentSources {
    /// Allows only the pipeline's directory.
    pub(crate) fn of_directory(directory: &Path) -> Self {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        Self {
            directory: directory.into(),
            allowed_folders: [].into(),
            item_files: None,
            allowed_hosts: [].into(),
        }
    }

    /// Allows the hosts that are literals in `templates`, before the first expression.
    pub(crate) fn with_hosts_of<'t>(self, templates: impl Iterator<Item = &'t str>) -> Self {
        Self { allowed_hosts: templates.filter_map(literal_origin).collect(), ..self }
    }

    fn allows_host_of(&self, url: &str) -> bool {
        Origin::of(url).is_some_and(|origin| self.allowed_hosts.contains(&origin))
    }

    /// Returns all folders whose files may be attached.
    pub(crate) fn folders(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&*self.directory).chain(self.allowed_folders.iter().map(PathBuf::as_path))
    }
}

impl FileAttachment {
    /// Creates the part of a prompt from the content of the file.
    pub fn part(&self, content: &[u8]) -> Part {
        let name = self.path.file_name().map(|name| name.to_string_lossy().into());
        part(self.media_type.clone(), name, MediaData::Base64(STANDARD.encode(content).into()))
    }
}

impl Attachment {
    /// Parses the rendered text of a template: an http(s) or `data:` URL, or the path of a file, relative to the
    /// pipeline's directory. `None` if the text is empty or `none`.
    ///
    /// # Errors
    /// Why `text` is none of these, or its host is not allowed.
    pub(crate) fn parse(text: &str, sources: &AttachmentSources) -> Result<Option<Self>, String> {
        let text = text.trim();
        if text.is_empty() || text == "none" {
            return Ok(None);
        }
        if let Some(inline) = text.strip_prefix("data:") {
            return inline_part(inline).map(|part| Some(Self::Ready(part)));
        }
        if text.starts_with("https://") || text.starts_with("http://") {
            if !sources.allows_host_of(text) {
                return Err(format!(
                    "cannot attach {:?}: an item cannot choose the host; write it before the first expression \
                     of the template, as in \"https://HOST/{{{{ item.file }}}}\", or add it to \
                     `allow_hosts` of the configuration's [files]",
                    excerpt(text)
                ));
            }
            let path = text.split(['?', '#']).next().unwrap_or(text);
            let media_type = media_type(path)?;
            return Ok(Some(Self::Ready(part(media_type, None, MediaData::Url(text.into())))));
        }
        if text.contains("://") {
            return Err(format!(
                "cannot attach {:?}: use the path of a file, an http(s) URL or a data: URL",
                excerpt(text)
            ));
        }
        let media_type = media_type(text)?;
        let path = sources.directory.join(text);
        let sources = sources.clone();
        Ok(Some(Self::File(FileAttachment { path, sources, is_literal: false, media_type })))
    }

    /// Marks the path as a literal in the pipeline, without an expression: no item chose it.
    #[must_use]
    pub(crate) fn into_literal(self) -> Self {
        match self {
            Self::File(file) => Self::File(FileAttachment { is_literal: true, ..file }),
            Self::Ready(part) => Self::Ready(part),
        }
    }
}

/// The first bytes of files, and their media types.
const SIGNATURES: [(&[u8], &str); 9] = [
    (b"%PDF-", "application/pdf"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
    (b"ID3", "audio/mpeg"),
    (b"\xff\xfb", "audio/mpeg"),
];

/// Returns the part of a prompt for the content of a file. Its type is that of its first bytes, else that of the extension
/// of its name, else text.
///
/// # Errors
/// If it is of no known type, or is to be a text and is not UTF-8.
pub fn attached_file(name: &str, content: &[u8]) -> Result<Part, String> {
    let by_signature = SIGNATURES.iter().find(|(signature, _)| content.starts_with(signature));
    let in_riff = match content.get(8..12) {
        Some(b"WEBP") if content.starts_with(b"RIFF") => Some("image/webp"),
        Some(b"WAVE") if content.starts_with(b"RIFF") => Some("audio/wav"),
        Some(_) | None => None,
    };
    let is_text = str::from_utf8(content).is_ok();
    let found = by_signature.map(|(_, media_type)| *media_type).or(in_riff);
    let media_type: Arc<str> = match found {
        Some(media_type) => media_type.into(),
        None => media_type(name).or_else(|why| if is_text { Ok("text/plain".into()) } else { Err(why) })?,
    };
    if content.is_empty() {
        return Err("it is empty".to_owned());
    }
    let file_name = Path::new(name).file_name().map(|name| name.to_string_lossy().into());
    let part = part(media_type, file_name, MediaData::Base64(STANDARD.encode(content).into()));
    match &part {
        Part::Document(media) if media.is_text() && !is_text => {
            Err("an attached text must be UTF-8; convert it, for example with iconv".to_owned())
        }
        _ => Ok(part),
    }
}

/// Returns the origin of a template's URL, if it is the same for all values of its expressions.
fn literal_origin(template: &str) -> Option<Origin> {
    let literal = ["{{", "{%", "{#"].iter().filter_map(|tag| template.find(tag)).min();
    Origin::of(template[..literal.unwrap_or(template.len())].trim_start())
}

fn inline_part(inline: &str) -> Result<Part, String> {
    let split = inline.split_once(',').and_then(|(kind, data)| Some((kind.strip_suffix(";base64")?, data)));
    let Some((kind, data)) = split else {
        return Err("a data: URL must be written data:TYPE;base64,CONTENT".to_owned());
    };
    let media_type = kind.split(';').next().unwrap_or_default();
    if !media_type.contains('/') {
        return Err(format!("the data: URL names no media type, but {:?}", excerpt(kind)));
    }
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    if data.is_empty() || data.len() % 4 != 0 || !data.bytes().all(is_base64) {
        return Err("the content of the data: URL is not base64".to_owned());
    }
    Ok(part(media_type.into(), None, MediaData::Base64(data.into())))
}

fn media_type(path: &str) -> Result<Arc<str>, String> {
    let extension = Path::new(path).extension().and_then(|extension| extension.to_str()).unwrap_or_default();
    let known = MEDIA_TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(extension));
    known.map(|(_, media_type)| (*media_type).into()).ok_or_else(|| {
        let extensions: Vec<&str> = MEDIA_TYPES.iter().map(|(extension, _)| *extension).collect();
        format!("unknown type of {:?}; known extensions are {}", excerpt(path), extensions.join(", "))
    })
}

fn part(media_type: Arc<str>, name: Option<Arc<str>>, data: MediaData) -> Part {
    let media = Media { media_type, name, data };
    match media.media_type.split('/').next() {
        Some("image") => Part::Image(media),
        Some("audio") => Part::Audio(media),
        _ => Part::Document(media),
    }
}

fn excerpt(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<Attachment>, String> {
        let folders = AttachmentSources::of_directory(Path::new("/pipelines/photos"));
        Attachment::parse(text, &folders.with_hosts_of(["https://a.example/{{ item.file }}"].into_iter()))
    }

    #[test]
    fn a_path_is_relative_to_the_pipeline_and_its_extension_determines_the_type() {
        let Ok(Some(Attachment::File(file))) = parse(" cats/one.JPG\n") else { panic!("no file") };
        assert_eq!(file.path, Path::new("/pipelines/photos/cats/one.JPG"));
        let Part::Image(media) = file.part(b"abc") else { panic!("no image") };
        assert_eq!((&*media.media_type, media.name.as_deref()), ("image/jpeg", Some("one.JPG")));
        assert_eq!(media.data, MediaData::Base64("YWJj".into()));
    }

    #[test]
    fn urls_are_sent_unchanged() {
        let Ok(Some(Attachment::Ready(Part::Document(media)))) = parse("https://a.example/b.pdf?sig=1")
        else {
            panic!("no document")
        };
        assert_eq!(media.data, MediaData::Url("https://a.example/b.pdf?sig=1".into()));
        let Ok(Some(Attachment::Ready(Part::Audio(media)))) = parse("data:audio/wav;base64,YWJj") else {
            panic!("no audio")
        };
        assert_eq!(media.data, MediaData::Base64("YWJj".into()));
    }

    #[test]
    fn an_item_cannot_choose_the_host() {
        for address in [
            "https://b.example/b.pdf",
            "http://a.example/b.pdf",
            "https://a.example:8443/b.pdf",
            "https://a.example@b.example/b.pdf",
            "https://b.example\\@a.example/b.pdf",
            "http://169.254.169.254/latest/meta-data/x.txt",
        ] {
            let refusal = parse(address).unwrap_err();
            assert!(refusal.contains("allow_hosts"), "{address}: {refusal}");
        }
        for (template, host) in [
            ("https://a.example/{{ item.file }}", Some("https://a.example")),
            (" http://A.example:81/x.png", Some("http://a.example:81")),
            ("https://a.example{{ item.file }}", None),
            ("https://{{ item.host }}/x.png", None),
            ("{% if item.x %}https://a.example/x.png{% endif %}", None),
            ("{{ item.url }}", None),
        ] {
            assert_eq!(literal_origin(template).map(String::from).as_deref(), host, "{template}");
        }
    }

    #[test]
    fn the_type_of_a_file_is_that_of_its_content_or_its_name() {
        for (name, content, expected) in [
            ("report", b"%PDF-1.7".as_slice(), "application/pdf"),
            ("photo.png", b"\xff\xd8\xff\xe0", "image/jpeg"),
            ("a.webp", b"RIFF1234WEBPVP8 ", "image/webp"),
            ("a", b"RIFF1234WAVEfmt ", "audio/wav"),
            ("dir/notes.md", b"# x", "text/markdown"),
            ("notes", b"x", "text/plain"),
        ] {
            let part = attached_file(name, content).unwrap();
            let (Part::Image(media) | Part::Audio(media) | Part::Document(media)) = part else { panic!() };
            assert_eq!(&*media.media_type, expected, "{name}");
        }
        for (name, content, words) in [
            ("a.exe", b"MZ\x90\xff".as_slice(), "unknown type"),
            ("a.txt", b"\xff", "must be UTF-8"),
            ("a.txt", b"", "is empty"),
        ] {
            let error = attached_file(name, content).unwrap_err();
            assert!(error.contains(words), "{name}: {error}");
        }
    }

    #[test]
    fn an_empty_text_attaches_nothing_and_an_invalid_one_is_refused() {
        assert_eq!(parse("  "), Ok(None));
        assert_eq!(parse("none"), Ok(None));
        for wrong in ["photo", "ftp://a/b.png", "data:image/png,abc", "data:image/png;base64,a~~=", "x.exe"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
