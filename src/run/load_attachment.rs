//! Reads the files that a step attaches to its prompt.
//!
//! Only when the step is asked, so that a run of a million photos holds a few. An item's data names the file, so it
//! must lie in a folder that the pipeline's author allowed, and be none that the program itself uses. Links are resolved
//! name by name, and nothing outside these folders is looked at: an item learns not even whether it is there. The file
//! is then opened from its folder, directory by directory, without following a link.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::pipeline::attach::{Attachment, FileAttachment, Folders};
use crate::pipeline::protected::{FileUse, ProtectedFiles};
use crate::store::FileStamp;
use crate::types::{Class, Failure, Media, MediaData, Part};

/// Most bytes of one attachment; providers refuse larger ones.
const MAX_FILE_BYTES: u64 = 50 << 20;

/// Most bytes of all attachments of one request.
const MAX_REQUEST_BYTES: u64 = 100 << 20;

/// Longest path that is looked for, in bytes; no system opens a longer one.
const MAX_PATH: usize = 4096;

/// Longest path that a message shows, in characters.
const MAX_SHOWN: usize = 200;

/// Returns the parts of a prompt that `attachments` stand for, and the files that were read for them as they were then.
pub(super) async fn load_all(
    attachments: &[Attachment],
    protected: &Arc<ProtectedFiles>,
) -> Result<(Vec<Part>, Vec<FileStamp>), Failure> {
    let mut parts = Vec::with_capacity(attachments.len());
    let mut files = Vec::new();
    let mut left = MAX_REQUEST_BYTES;
    for attachment in attachments {
        let (part, bytes) = match attachment {
            Attachment::Ready(part) => {
                if !is_readable(part) {
                    return Err(no_utf8("the content of the data: URL"));
                }
                (part.clone(), inline_bytes(part))
            }
            Attachment::File(file) => {
                let (content, stamp) = load(file, protected).await?;
                files.push(stamp);
                let part = file.part(&content);
                if is_text(&part) && str::from_utf8(&content).is_err() {
                    return Err(no_utf8(&shown(&file.path)));
                }
                (part, content.len() as u64)
            }
        };
        left = left.checked_sub(bytes).ok_or_else(too_much)?;
        parts.push(part);
    }
    Ok((parts, files))
}

fn is_text(part: &Part) -> bool {
    matches!(part, Part::Document(media) if media.is_text())
}

/// Returns whether a part that the item carried is UTF-8 where it is a text.
fn is_readable(part: &Part) -> bool {
    match part {
        Part::Document(Media { data: MediaData::Base64(data), .. }) if is_text(part) => {
            BASE64_STANDARD.decode(&**data).is_ok_and(|bytes| str::from_utf8(&bytes).is_ok())
        }
        _ => true,
    }
}

fn no_utf8(what: &str) -> Failure {
    let advice = "an attached text must be UTF-8; convert it, for example with iconv";
    Failure::new(Class::TemplateError, format!("cannot attach {what}: {advice}"))
}

/// Returns a path as a literal: it is an item's, and may hold what a terminal obeys.
fn shown(path: &Path) -> String {
    let start: String = path.to_string_lossy().chars().take(MAX_SHOWN).collect();
    format!("{start:?}")
}

fn too_much() -> Failure {
    let message = format!("the attachments of one request may have {} MiB together", MAX_REQUEST_BYTES >> 20);
    Failure::new(Class::TemplateError, message)
}

/// Returns how many bytes an attachment has that the item itself carried.
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
            Failure::new(Class::TemplateError, format!("cannot attach {}: {why}", shown(&file.path)))
        })
    });
    let broken = |_| Err(Failure::new(Class::Internal, "reading an attachment panicked"));
    content.await.unwrap_or_else(broken)
}

/// Why a file is not attached.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(
        "it is outside the pipeline's directory; to send it, add its folder to `allow` of the configuration's [files]"
    )]
    Outside,
    #[error("it is {}, which {}", .0.name(), if *.1 { "is never attached" } else { "no item may attach" })]
    Protected(FileUse, bool),
    #[error("its path is longer than {MAX_PATH} bytes")]
    LongPath,
    #[error("it is no regular file")]
    NoFile,
    #[error("it has more than {} MiB, which is the most", MAX_FILE_BYTES >> 20)]
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
    let refuse = |metadata: &Metadata| match protected.refuse(metadata, file.is_written_out) {
        Some(used_as) => Err(Refusal::Protected(used_as, file.is_written_out)),
        None => Ok(()),
    };
    let (folder, inside) = find(file)?;
    // Before it is opened: to close a database's file would free the locks that this process has on it.
    refuse(&std::fs::metadata(folder.join(&inside))?)?;
    let file = open_beneath(&folder, &inside)?;
    // Of the file that is read, and before it is: what is written to it meanwhile is noticed by the next run.
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Refusal::NoFile);
    }
    // It may have been renamed meanwhile.
    refuse(&metadata)?;
    if metadata.len() > limit {
        return Err(Refusal::TooLarge);
    }
    // Its length is no promise: it may grow, and some files have none.
    let mut content = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
    file.take(limit + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(Refusal::TooLarge);
    }
    Ok((content, stamp(path, &metadata)))
}

/// Returns whether a file is what it was when it was attached, as far as that is known without reading it.
pub(super) fn is_as_it_was(file: &FileStamp) -> bool {
    std::fs::metadata(&file.path).is_ok_and(|now| stamp(file.path.clone(), &now) == *file)
}

fn stamp(path: PathBuf, metadata: &Metadata) -> FileStamp {
    let modified = metadata.modified().map_or(0, nanoseconds);
    FileStamp { path, bytes: metadata.len(), modified, changed: changed(metadata) }
}

fn nanoseconds(at: SystemTime) -> i64 {
    let since =
        at.duration_since(UNIX_EPOCH).map(|since| i64::try_from(since.as_nanos()).unwrap_or(i64::MAX));
    since.unwrap_or(0)
}

#[cfg(unix)]
fn changed(metadata: &Metadata) -> i64 {
    use std::os::unix::fs::MetadataExt;
    metadata.ctime().saturating_mul(1_000_000_000).saturating_add(metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn changed(_: &Metadata) -> i64 {
    0
}

/// Finds a file that lies in an allowed folder. Returns the folder, and the file's path from there without links.
fn find(file: &FileAttachment) -> Result<(PathBuf, PathBuf), Refusal> {
    if file.path.as_os_str().len() > MAX_PATH {
        return Err(Refusal::LongPath);
    }
    Allowed::of(&file.folders).resolve(&file.path, &file.folders.own)
}

/// The folders that attachments may come from.
struct Allowed {
    /// Without links.
    real: Vec<PathBuf>,
    /// By the names that paths may use for them.
    named: Vec<PathBuf>,
}

impl Allowed {
    fn of(folders: &Folders) -> Self {
        let real: Vec<PathBuf> = folders.all().filter_map(|folder| folder.canonicalize().ok()).collect();
        let absolute = folders.all().filter_map(|folder| std::path::absolute(folder).ok());
        let named = absolute.map(|folder| without_parents(&folder)).chain(real.iter().cloned()).collect();
        Self { real, named }
    }

    /// Returns the folder that the file at `path` is in, and its path from there, both without links. Looks at nothing
    /// but the allowed folders, what is above them, and the targets of links in them.
    fn resolve(&self, path: &Path, own: &Path) -> Result<(PathBuf, PathBuf), Refusal> {
        let (mut at, rest) = match path.strip_prefix(own) {
            Ok(rest) => (own.canonicalize()?, rest),
            Err(_) => (PathBuf::new(), path),
        };
        for component in rest.components() {
            match component {
                Component::Prefix(_) | Component::RootDir => at.push(component),
                Component::CurDir => {}
                // It has no links, so this is the folder above.
                Component::ParentDir => drop(at.pop()),
                Component::Normal(name) => {
                    let next = at.join(name);
                    if !self.named.iter().any(|folder| is_on_the_way(&next, folder)) {
                        return Err(Refusal::Outside);
                    }
                    at = next.canonicalize()?;
                }
            }
        }
        let within = |folder: &PathBuf| Some((folder.clone(), at.strip_prefix(folder).ok()?.to_owned()));
        self.real.iter().find_map(within).ok_or(Refusal::Outside)
    }
}

/// Returns whether `path` is in `folder`, is it, or is above it.
fn is_on_the_way(path: &Path, folder: &Path) -> bool {
    path.starts_with(folder) || folder.starts_with(path)
}

/// Returns an absolute path without its `..`, as it is written: no link is looked at.
fn without_parents(path: &Path) -> PathBuf {
    let mut written = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(written.pop()),
            Component::CurDir => {}
            Component::Prefix(_) | Component::RootDir | Component::Normal(_) => written.push(component),
        }
    }
    written
}

/// Opens `inside`, which has no links, from `folder`. What has become a link meanwhile is not followed, and a pipe
/// does not block.
fn open_beneath(folder: &Path, inside: &Path) -> io::Result<File> {
    let directory = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = openat(CWD, folder, directory, Mode::empty())?;
    let mut names = inside.components().peekable();
    while let Some(name) = names.next() {
        let flags = match names.peek() {
            Some(_) => directory | OFlags::NOFOLLOW,
            None => OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        };
        at = openat(&at, name.as_os_str(), flags, Mode::empty())?;
    }
    Ok(File::from(at))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;
    use crate::pipeline::attach::Folders;

    /// A folder of pictures beside a secret, as an item that names `path` from there would have it.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(place.0.path().join("photos/cats")).unwrap();
            fs::write(place.0.path().join("photos/cats/one.png"), "cat").unwrap();
            fs::write(place.0.path().join("secret.json"), "key").unwrap();
            place
        }

        fn attach(&self, path: &str, allowed: &[&str]) -> Result<String, String> {
            let mut folders = Folders::only(&self.0.path().join("photos"));
            folders.allowed = allowed.iter().map(|folder| self.0.path().join(folder)).collect();
            let Ok(Some(Attachment::File(file))) = Attachment::read(path, &folders) else {
                panic!("no file")
            };
            read(&file, &ProtectedFiles::default(), 10)
                .map(|(content, _)| String::from_utf8(content).unwrap())
                .map_err(|refusal| refusal.to_string())
        }
    }

    #[test]
    fn an_attachment_outside_every_allowed_folder_is_refused() {
        let place = Place::new();
        assert_eq!(place.attach("cats/one.png", &[]), Ok("cat".into()));
        assert_eq!(place.attach("cats/../cats/one.png", &[]), Ok("cat".into()));
        let absolute = place.0.path().join("secret.json");
        symlink(&absolute, place.0.path().join("photos/link.json")).unwrap();
        symlink(place.0.path(), place.0.path().join("photos/up")).unwrap();
        for path in ["../secret.json", absolute.to_str().unwrap(), "link.json", "up/secret.json"] {
            let refusal = place.attach(path, &[]).unwrap_err();
            assert!(refusal.contains("outside") && refusal.contains("[files]"), "{path}: {refusal}");
            assert_eq!(place.attach(path, &["."]), Ok("key".into()), "{path}");
        }
        // A folder whose name only begins like an allowed one.
        fs::create_dir(place.0.path().join("photos-private")).unwrap();
        fs::write(place.0.path().join("photos-private/a.txt"), "no").unwrap();
        assert!(place.attach("../photos-private/a.txt", &[]).unwrap_err().contains("outside"));
    }

    #[test]
    fn nothing_outside_the_allowed_folders_is_looked_at() {
        let place = Place::new();
        let photos = place.0.path().join("photos");
        symlink(place.0.path().join("away"), photos.join("up")).unwrap();
        fs::create_dir_all(place.0.path().join("away/deep")).unwrap();
        let absolute = |name: &str| place.0.path().join(name).to_str().unwrap().to_owned();
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
            let refusal = place.attach(&missing, &[]).unwrap_err();
            assert!(refusal.contains("outside"), "{missing}: {refusal}");
        }
        assert!(place.attach("none.json", &[]).unwrap_err().contains("No such file"));
        assert_eq!(place.attach(&absolute("photos/cats/one.png"), &[]), Ok("cat".into()));
        assert_eq!(place.attach("../photos/cats/../../photos/cats/one.png", &[]), Ok("cat".into()));
        let long = format!("{}a.png", "a/".repeat(3000));
        assert!(place.attach(&long, &[]).unwrap_err().contains("longer than 4096 bytes"));
    }

    #[test]
    fn an_allowed_folder_is_found_by_each_of_its_names() {
        let place = Place::new();
        fs::create_dir(place.0.path().join("real")).unwrap();
        fs::write(place.0.path().join("real/a.png"), "a").unwrap();
        symlink(place.0.path().join("real"), place.0.path().join("linked")).unwrap();
        let path = |name: &str| place.0.path().join(name).to_str().unwrap().to_owned();
        for allowed in ["linked", "photos/../linked"] {
            for named in ["../linked/a.png".to_owned(), path("linked/a.png"), path("real/a.png")] {
                assert_eq!(place.attach(&named, &[allowed]), Ok("a".into()), "{named} in {allowed}");
            }
        }
    }

    #[test]
    fn what_has_become_a_link_since_it_was_resolved_is_not_followed() {
        let place = Place::new();
        let photos = place.0.path().join("photos");
        symlink(place.0.path(), photos.join("swapped")).unwrap();
        symlink(place.0.path().join("secret.json"), photos.join("cats/two.png")).unwrap();
        assert!(open_beneath(&photos, Path::new("cats/one.png")).is_ok());
        assert!(open_beneath(&photos, Path::new("swapped/secret.json")).is_err());
        assert!(open_beneath(&photos, Path::new("cats/two.png")).is_err());
    }

    #[test]
    fn pipes_devices_and_directories_are_refused_and_never_waited_for() {
        let place = Place::new();
        let pipe = place.0.path().join("photos/pipe.png");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        fs::create_dir(place.0.path().join("photos/folder.png")).unwrap();
        for path in ["pipe.png", "folder.png"] {
            assert_eq!(place.attach(path, &[]).unwrap_err(), "it is no regular file", "{path}");
        }
        let (folders, none) = (Folders::only(Path::new("/dev")), ProtectedFiles::default());
        let Ok(Some(Attachment::File(mut file))) = Attachment::read("zero.txt", &folders) else { panic!() };
        file.path = "/dev/zero".into();
        assert_eq!(read(&file, &none, 10).unwrap_err().to_string(), "it is no regular file");
    }

    #[test]
    fn the_size_is_bounded_while_reading() {
        let place = Place::new();
        fs::write(place.0.path().join("photos/large.png"), "12345678901").unwrap();
        assert!(place.attach("large.png", &[]).unwrap_err().contains("50 MiB"));
        // A file of the system without a length.
        let (folders, none) = (Folders::only(Path::new("/proc/self")), ProtectedFiles::default());
        let Ok(Some(Attachment::File(mut file))) = Attachment::read("maps.txt", &folders) else { panic!() };
        file.path = "/proc/self/maps".into();
        assert!(matches!(read(&file, &none, 10), Err(Refusal::TooLarge)));
    }

    #[tokio::test]
    async fn an_attached_text_that_is_no_utf8_is_refused_before_it_is_sent() {
        let place = Place::new();
        let folders = Folders::only(&place.0.path().join("photos"));
        let load = async |path: &str| {
            let Ok(Some(one)) = Attachment::read(path, &folders) else { panic!("none") };
            load_all(&[one], &Arc::default()).await.map_err(|failure| (failure.class, failure.message))
        };
        for name in ["latin.txt", "latin.json", "latin.png"] {
            fs::write(place.0.path().join("photos").join(name), b"d\xeda").unwrap();
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
    async fn all_attachments_of_a_request_are_bounded_together() {
        let text = format!("data:image/png;base64,{}", "A".repeat(80 << 20));
        let Ok(Some(one)) = Attachment::read(&text, &Folders::only(Path::new("."))) else { panic!("none") };
        let none = Arc::default();
        assert!(load_all(std::slice::from_ref(&one), &none).await.is_ok());
        let failure = load_all(&[one.clone(), one], &none).await.unwrap_err();
        assert_eq!(failure.class, Class::TemplateError);
        assert!(failure.message.contains("100 MiB together"), "{}", failure.message);
    }
}
