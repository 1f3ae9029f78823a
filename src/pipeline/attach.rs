//! Tells what an attachment is, from the text that its template gave.
//!
//! Opens no file: a [`FileAttachment`] says which one to read.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::types::{Media, MediaData, Origin, Part};

/// Endings and what they stand for.
pub(crate) const KNOWN: [(&str, &str); 17] = [
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attachment {
    /// Ready to be sent: an address, or content that the item itself carried.
    Ready(Part),
    /// A file to read first.
    File(FileAttachment),
}

/// A file to send with a prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileAttachment {
    /// Where it is.
    pub path: PathBuf,
    pub(crate) folders: Folders,
    /// Whether the pipeline itself writes its path, without an expression.
    pub(crate) is_written_out: bool,
    media_type: Arc<str>,
}

/// Where attachments may come from: an item's data chooses no folder and no host that the author did not allow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Folders {
    /// The pipeline's own directory, which relative paths start from.
    pub(crate) own: Arc<Path>,
    /// What `[files] allow` names.
    pub(crate) allowed: Arc<[PathBuf]>,
    /// Hosts that an `attach` template writes itself, and those that `[files] allow_hosts` names.
    pub(crate) hosts: Arc<[Origin]>,
}

impl Folders {
    /// Allows the pipeline's own directory alone.
    pub(crate) fn only(own: &Path) -> Self {
        let own = if own.as_os_str().is_empty() { Path::new(".") } else { own };
        Self { own: own.into(), allowed: [].into(), hosts: [].into() }
    }

    /// Allows the hosts that templates write themselves, before anything that an item can change.
    pub(crate) fn with_hosts_of<'t>(self, templates: impl Iterator<Item = &'t str>) -> Self {
        Self { hosts: templates.filter_map(written_host).collect(), ..self }
    }

    fn allow_host_of(&self, address: &str) -> bool {
        Origin::of(address).is_some_and(|origin| self.hosts.contains(&origin))
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = &Path> {
        std::iter::once(&*self.own).chain(self.allowed.iter().map(PathBuf::as_path))
    }
}

impl FileAttachment {
    /// Makes the part of a prompt from the file's content.
    pub fn part(&self, content: &[u8]) -> Part {
        let name = self.path.file_name().map(|name| name.to_string_lossy().into());
        part(self.media_type.clone(), name, MediaData::Base64(STANDARD.encode(content).into()))
    }
}

impl Attachment {
    /// Reads what a template gave: an http(s) or `data:` URL, or the path of a file, which is
    /// relative to the pipeline's directory. `None` when it gave nothing.
    ///
    /// # Errors
    /// What is wrong with `text`, when it is none of these.
    pub(crate) fn read(text: &str, folders: &Folders) -> Result<Option<Self>, String> {
        let text = text.trim();
        if text.is_empty() || text == "none" {
            return Ok(None);
        }
        if let Some(inline) = text.strip_prefix("data:") {
            return inline_part(inline).map(|part| Some(Self::Ready(part)));
        }
        if text.starts_with("https://") || text.starts_with("http://") {
            if !folders.allow_host_of(text) {
                return Err(format!(
                    "cannot attach {:?}: an item chooses no host; write it before the first expression of the template, \
                     as in \"https://HOST/{{{{ item.file }}}}\", or add it to `allow_hosts` of the configuration's [files]",
                    short(text)
                ));
            }
            let path = text.split(['?', '#']).next().unwrap_or(text);
            let media_type = media_type(path)?;
            return Ok(Some(Self::Ready(part(media_type, None, MediaData::Url(text.into())))));
        }
        if text.contains("://") {
            return Err(format!(
                "cannot attach {:?}: give a file, an http(s) URL or a data: URL",
                short(text)
            ));
        }
        let media_type = media_type(text)?;
        let path = folders.own.join(text);
        let folders = folders.clone();
        Ok(Some(Self::File(FileAttachment { path, folders, is_written_out: false, media_type })))
    }

    /// Says that the pipeline itself writes what is attached, without an expression: no item chose it.
    #[must_use]
    pub(crate) fn written_out(self) -> Self {
        match self {
            Self::File(file) => Self::File(FileAttachment { is_written_out: true, ..file }),
            Self::Ready(part) => Self::Ready(part),
        }
    }
}

/// Returns where a template's address leads whatever its expressions give.
fn written_host(template: &str) -> Option<Origin> {
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
        return Err(format!("the data: URL names no media type, but {:?}", short(kind)));
    }
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
    if data.is_empty() || data.len() % 4 != 0 || !data.bytes().all(is_base64) {
        return Err("the content of the data: URL is no base64".to_owned());
    }
    Ok(part(media_type.into(), None, MediaData::Base64(data.into())))
}

fn media_type(path: &str) -> Result<Arc<str>, String> {
    let ending = Path::new(path).extension().and_then(|ending| ending.to_str()).unwrap_or_default();
    let known = KNOWN.iter().find(|(known, _)| known.eq_ignore_ascii_case(ending));
    known.map(|(_, media_type)| (*media_type).into()).ok_or_else(|| {
        let endings: Vec<&str> = KNOWN.iter().map(|(ending, _)| *ending).collect();
        format!("cannot tell what {:?} is; known endings are {}", short(path), endings.join(", "))
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

fn short(text: &str) -> String {
    text.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Attachment>, String> {
        let folders = Folders::only(Path::new("/pipelines/photos"));
        Attachment::read(text, &folders.with_hosts_of(["https://a.example/{{ item.file }}"].into_iter()))
    }

    #[test]
    fn a_path_is_relative_to_the_pipeline_and_its_ending_decides() {
        let Ok(Some(Attachment::File(file))) = read(" cats/one.JPG\n") else { panic!("no file") };
        assert_eq!(file.path, Path::new("/pipelines/photos/cats/one.JPG"));
        let Part::Image(media) = file.part(b"abc") else { panic!("no image") };
        assert_eq!((&*media.media_type, media.name.as_deref()), ("image/jpeg", Some("one.JPG")));
        assert_eq!(media.data, MediaData::Base64("YWJj".into()));
    }

    #[test]
    fn urls_are_sent_as_they_are() {
        let Ok(Some(Attachment::Ready(Part::Document(media)))) = read("https://a.example/b.pdf?sig=1") else {
            panic!("no document")
        };
        assert_eq!(media.data, MediaData::Url("https://a.example/b.pdf?sig=1".into()));
        let Ok(Some(Attachment::Ready(Part::Audio(media)))) = read("data:audio/wav;base64,YWJj") else {
            panic!("no audio")
        };
        assert_eq!(media.data, MediaData::Base64("YWJj".into()));
    }

    #[test]
    fn an_item_chooses_no_host() {
        for address in [
            "https://b.example/b.pdf",
            "http://a.example/b.pdf",
            "https://a.example:8443/b.pdf",
            "https://a.example@b.example/b.pdf",
            "https://b.example\\@a.example/b.pdf",
            "http://169.254.169.254/latest/meta-data/x.txt",
        ] {
            let refusal = read(address).unwrap_err();
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
            assert_eq!(written_host(template).map(String::from).as_deref(), host, "{template}");
        }
    }

    #[test]
    fn nothing_is_nothing_and_nonsense_is_refused() {
        assert_eq!(read("  "), Ok(None));
        assert_eq!(read("none"), Ok(None));
        for wrong in ["photo", "ftp://a/b.png", "data:image/png,abc", "data:image/png;base64,a~~=", "x.exe"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
