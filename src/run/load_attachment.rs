//! Reads the files that a step attaches to its prompt.
//!
//! A file is read only when the request is sent, so a run of a million photos holds only a few in memory. The
//! data of an item names the file, so the file must be in a folder that the pipeline's author has allowed, and
//! must not be a file that the program itself uses.

use std::fs::Metadata;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::allowed_folders::{PathError, find};
use super::file_stamp::stamp;
use crate::files::protected::{FileUse, ProtectedFiles};
use crate::pipeline::attach::{Attachment, FileAttachment};
use crate::store::FileStamp;
use crate::types::{Class, Failure, Media, MediaData, Part};

/// Most bytes of one attachment; providers reject larger ones.
const MAX_FILE_BYTES: u64 = 50 << 20;

/// Most bytes of all attachments of one request.
const MAX_REQUEST_BYTES: u64 = 100 << 20;

/// Longest path that a message contains, in characters.
const MAX_SHOWN_CHARACTERS: usize = 200;

/// Returns the parts of a prompt for `attachments`, and the files that were read for them, in their state at
/// that time.
pub(super) async fn load_all(
    attachments: &[Attachment],
    protected: &Arc<ProtectedFiles>,
) -> Result<(Vec<Part>, Vec<FileStamp>), Failure> {
    let mut parts = Vec::with_capacity(attachments.len());
    let mut files = Vec::new();
    let mut remaining = MAX_REQUEST_BYTES;
    for attachment in attachments {
        let (part, bytes) = match attachment {
            Attachment::Ready(part) => {
                if !is_valid_text(part) {
                    return Err(not_utf8("the content of the data: URL"));
                }
                (part.clone(), inline_bytes(part))
            }
            Attachment::File(file) => {
                let (content, stamp) = load(file, protected).await?;
                files.push(stamp);
                let part = file.part(&content);
                if is_text(&part) && str::from_utf8(&content).is_err() {
                    return Err(not_utf8(&display(&file.path)));
                }
                (part, content.len() as u64)
            }
        };
        remaining = remaining.checked_sub(bytes).ok_or_else(too_many_bytes)?;
        parts.push(part);
    }
    Ok((parts, files))
}

fn is_text(part: &Part) -> bool {
    matches!(part, Part::Document(media) if media.is_text())
}

/// Returns whether an inline attachment is valid UTF-8, if it is text.
fn is_valid_text(part: &Part) -> bool {
    match part {
        Part::Document(Media { data: MediaData::Base64(data), .. }) if is_text(part) => {
            BASE64_STANDARD.decode(&**data).is_ok_and(|bytes| str::from_utf8(&bytes).is_ok())
        }
        _ => true,
    }
}

fn not_utf8(what: &str) -> Failure {
    let advice = "an attached text must be UTF-8; convert it, for example with iconv";
    Failure::new(Class::TemplateError, format!("cannot attach {what}: {advice}"))
}

/// Returns a path as a string literal: it comes from an item and may contain terminal control characters.
fn display(path: &Path) -> String {
    let start: String = path.to_string_lossy().chars().take(MAX_SHOWN_CHARACTERS).collect();
    format!("{start:?}")
}

fn too_many_bytes() -> Failure {
    let message = format!("the attachments of one request may have {} MiB together", MAX_REQUEST_BYTES >> 20);
    Failure::new(Class::TemplateError, message)
}

/// Returns the size of an attachment that the item itself contained.
fn inline_bytes(part: &Part) -> u64 {
    let (Part::Image(media) | Part::Audio(media) | Part::Document(media)) = part else { return 0 };
    match &media.data {
        MediaData::Base64(text) => text.len() as u64 / 4 * 3,
        MediaData::Url(_) => 0,
    }
}

async fn load(
    file: &FileAttachment,
    protected: &Arc<ProtectedFiles>,
) -> Result<(Vec<u8>, FileStamp), Failure> {
    let file = file.clone();
    let protected = protected.clone();
    let content = tokio::task::spawn_blocking(move || {
        read(&file, &protected, MAX_FILE_BYTES).map_err(|why| {
            Failure::new(Class::TemplateError, format!("cannot attach {}: {why}", display(&file.path)))
        })
    });
    let panicked = |_| Err(Failure::new(Class::Internal, "reading an attachment panicked"));
    content.await.unwrap_or_else(panicked)
}

/// Why a file is not attached.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("it is {}, which {}", .0.name(), if *.1 { "is never attached" } else { "no item may attach" })]
    Protected(FileUse, bool),
    #[error("it is not a regular file")]
    NotAFile,
    #[error("it is larger than the limit of {} MiB", MAX_FILE_BYTES >> 20)]
    TooLarge,
    #[error("{0}")]
    Io(#[from] io::Error),
}

fn read(
    file: &FileAttachment,
    protected: &ProtectedFiles,
    limit: u64,
) -> Result<(Vec<u8>, FileStamp), Refusal> {
    let path = std::path::absolute(&file.path).unwrap_or_else(|_| file.path.clone());
    let refuse = |metadata: &Metadata| match protected.forbidden_use(metadata, file.is_literal) {
        Some(used_as) => Err(Refusal::Protected(used_as, file.is_literal)),
        None => Ok(()),
    };
    let found = find(file)?;
    // Checked before the file is opened: closing a database file would release the locks that this process has
    // on it.
    refuse(&found.metadata()?)?;
    let file = found.open()?;
    // From the opened file, before it is read: the next run detects a change during the read.
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Refusal::NotAFile);
    }
    // It may have been renamed meanwhile.
    refuse(&metadata)?;
    if metadata.len() > limit {
        return Err(Refusal::TooLarge);
    }
    // The length is not reliable: the file may grow, and some files have none.
    let mut content = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(Refusal::TooLarge);
    }
    Ok((content, stamp(path, &metadata)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;
    use crate::pipeline::attach::AttachmentSources;

    /// A folder of pictures next to a secret file; items name paths relative to it.
    struct Fixture(tempfile::TempDir);

    impl Fixture {
        fn new() -> Self {
            let fixture = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(fixture.0.path().join("photos/cats")).unwrap();
            fs::write(fixture.0.path().join("photos/cats/one.png"), "cat").unwrap();
            fs::write(fixture.0.path().join("secret.json"), "key").unwrap();
            fixture
        }

        fn attach(&self, path: &str, allowed: &[&str]) -> Result<String, String> {
            let mut folders = AttachmentSources::of_directory(&self.0.path().join("photos"));
            folders.allowed_folders = allowed.iter().map(|folder| self.0.path().join(folder)).collect();
            let Ok(Some(Attachment::File(file))) = Attachment::parse(path, &folders) else {
                panic!("no file")
            };
            read(&file, &ProtectedFiles::default(), 10)
                .map(|(content, _)| String::from_utf8(content).unwrap())
                .map_err(|refusal| refusal.to_string())
        }
    }

    #[test]
    fn an_attachment_outside_the_allowed_folders_is_refused() {
        let fixture = Fixture::new();
        assert_eq!(fixture.attach("cats/one.png", &[]), Ok("cat".into()));
        assert_eq!(fixture.attach("cats/../cats/one.png", &[]), Ok("cat".into()));
        let absolute = fixture.0.path().join("secret.json");
        symlink(&absolute, fixture.0.path().join("photos/link.json")).unwrap();
        symlink(fixture.0.path(), fixture.0.path().join("photos/up")).unwrap();
        for path in ["../secret.json", absolute.to_str().unwrap(), "link.json", "up/secret.json"] {
            let refusal = fixture.attach(path, &[]).unwrap_err();
            assert!(refusal.contains("outside") && refusal.contains("[files]"), "{path}: {refusal}");
            assert_eq!(fixture.attach(path, &["."]), Ok("key".into()), "{path}");
        }
        // A folder whose name has the name of an allowed folder as a prefix.
        fs::create_dir(fixture.0.path().join("photos-private")).unwrap();
        fs::write(fixture.0.path().join("photos-private/a.txt"), "no").unwrap();
        assert!(fixture.attach("../photos-private/a.txt", &[]).unwrap_err().contains("outside"));
    }

    #[test]
    fn nothing_outside_the_allowed_folders_is_accessed() {
        let fixture = Fixture::new();
        let photos = fixture.0.path().join("photos");
        symlink(fixture.0.path().join("away"), photos.join("up")).unwrap();
        fs::create_dir_all(fixture.0.path().join("away/deep")).unwrap();
        let absolute = |name: &str| fixture.0.path().join(name).to_str().unwrap().to_owned();
        for missing in [
            "../none.json".to_owned(),
            "../photos-none/../secret.json".to_owned(),
            "cats/../../none.json".to_owned(),
            "up/none.json".to_owned(),
            "up/../none.json".to_owned(),
            "up/deep/../none.json".to_owned(),
            absolute("none.json"),
            absolute("none/a.json"),
            "/none/none.json".to_owned(),
            format!("{}/../none.json", photos.display()),
        ] {
            let refusal = fixture.attach(&missing, &[]).unwrap_err();
            assert!(refusal.contains("outside"), "{missing}: {refusal}");
        }
        assert!(fixture.attach("none.json", &[]).unwrap_err().contains("No such file"));
        assert_eq!(fixture.attach(&absolute("photos/cats/one.png"), &[]), Ok("cat".into()));
        assert_eq!(fixture.attach("../photos/cats/../../photos/cats/one.png", &[]), Ok("cat".into()));
        let long = format!("{}a.png", "a/".repeat(3000));
        assert!(fixture.attach(&long, &[]).unwrap_err().contains("longer than 4096 bytes"));
    }

    #[test]
    fn an_allowed_folder_is_found_by_each_of_its_names() {
        let fixture = Fixture::new();
        fs::create_dir(fixture.0.path().join("real")).unwrap();
        fs::write(fixture.0.path().join("real/a.png"), "a").unwrap();
        symlink(fixture.0.path().join("real"), fixture.0.path().join("linked")).unwrap();
        let path = |name: &str| fixture.0.path().join(name).to_str().unwrap().to_owned();
        for allowed in ["linked", "photos/../linked"] {
            for named in ["../linked/a.png".to_owned(), path("linked/a.png"), path("real/a.png")] {
                assert_eq!(fixture.attach(&named, &[allowed]), Ok("a".into()), "{named} in {allowed}");
            }
        }
    }

    #[test]
    fn pipes_devices_and_directories_are_refused_without_blocking() {
        let fixture = Fixture::new();
        let pipe = fixture.0.path().join("photos/pipe.png");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        fs::create_dir(fixture.0.path().join("photos/folder.png")).unwrap();
        for path in ["pipe.png", "folder.png"] {
            assert_eq!(fixture.attach(path, &[]).unwrap_err(), "it is not a regular file", "{path}");
        }
        let folders = AttachmentSources::of_directory(Path::new("/dev"));
        let none = ProtectedFiles::default();
        let Ok(Some(Attachment::File(mut file))) = Attachment::parse("zero.txt", &folders) else { panic!() };
        file.path = "/dev/zero".into();
        assert_eq!(read(&file, &none, 10).unwrap_err().to_string(), "it is not a regular file");
    }

    #[test]
    fn the_size_is_bounded_while_reading() {
        let fixture = Fixture::new();
        fs::write(fixture.0.path().join("photos/large.png"), "12345678901").unwrap();
        assert!(fixture.attach("large.png", &[]).unwrap_err().contains("50 MiB"));
        // A system file without a length.
        let folders = AttachmentSources::of_directory(Path::new("/proc/self"));
        let none = ProtectedFiles::default();
        let Ok(Some(Attachment::File(mut file))) = Attachment::parse("maps.txt", &folders) else { panic!() };
        file.path = "/proc/self/maps".into();
        assert!(matches!(read(&file, &none, 10), Err(Refusal::TooLarge)));
    }

    #[tokio::test]
    async fn an_attached_text_that_is_not_utf8_is_refused_before_it_is_sent() {
        let fixture = Fixture::new();
        let folders = AttachmentSources::of_directory(&fixture.0.path().join("photos"));
        let load = async |path: &str| {
            let Ok(Some(one)) = Attachment::parse(path, &folders) else { panic!("none") };
            load_all(&[one], &Arc::default()).await.map_err(|failure| (failure.class, failure.message))
        };
        for name in ["latin.txt", "latin.json", "latin.png"] {
            fs::write(fixture.0.path().join("photos").join(name), b"d\xeda").unwrap();
        }
        assert!(load("latin.png").await.is_ok());
        for text in ["latin.txt", "latin.json", "data:text/plain;base64,ZO1h"] {
            let (class, message) = load(text).await.unwrap_err();
            assert_eq!(class, Class::TemplateError);
            assert!(message.contains("must be UTF-8; convert it"), "{message}");
        }
        assert!(load("data:text/plain;base64,ZMOtYQ==").await.is_ok());
    }

    #[tokio::test]
    async fn the_total_size_of_the_attachments_of_a_request_is_bounded() {
        let text = format!("data:image/png;base64,{}", "A".repeat(80 << 20));
        let Ok(Some(one)) = Attachment::parse(&text, &AttachmentSources::of_directory(Path::new("."))) else {
            panic!("none")
        };
        let none = Arc::default();
        assert!(load_all(std::slice::from_ref(&one), &none).await.is_ok());
        let failure = load_all(&[one.clone(), one], &none).await.unwrap_err();
        assert_eq!(failure.class, Class::TemplateError);
        assert!(failure.message.contains("100 MiB together"), "{}", failure.message);
    }
}
