//! Reads a key file, and refuses a file that contains more than a key.

use std::fs::{File, FileType};
use std::io::Read;
use std::path::Path;

use super::key_error::{KeyError, MAX_KEY_BYTES};

/// Reads the file at `path`. Symbolic links are followed, because mounted secrets use them.
pub(in crate::provider) fn read(path: &Path) -> Result<String, KeyError> {
    let not_a_file = |what| KeyError::NotAFile { path: path.to_owned(), what };
    let unreadable = |source| KeyError::File { path: path.to_owned(), source };
    if is_env_file(path) {
        return Err(KeyError::EnvFile { path: path.to_owned() });
    }
    // Checked before it is opened: opening a device may have side effects.
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if let Some(what) = describe(metadata.file_type()) {
        return Err(not_a_file(what));
    }
    let mut options = File::options();
    options.read(true);
    // The path may have been replaced since, and opening a named pipe blocks until its other end is open.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NONBLOCK);
    let file = options.open(path).map_err(unreadable)?;
    if let Some(what) = describe(file.metadata().map_err(unreadable)?.file_type()) {
        return Err(not_a_file(what));
    }
    let mut bytes = Vec::new();
    file.take(MAX_KEY_BYTES + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_KEY_BYTES {
        return Err(not_a_file("larger than 64 KiB"));
    }
    let text = String::from_utf8(bytes).map_err(|_| not_a_file("not text"))?;
    if is_assignment(text.trim()) {
        return Err(KeyError::EnvFile { path: path.to_owned() });
    }
    Ok(text)
}

/// Describes what is at a path instead of a regular file; `None` for a regular file.
fn describe(kind: FileType) -> Option<&'static str> {
    if kind.is_file() {
        return None;
    }
    if kind.is_dir() {
        return Some("a directory");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return Some("a named pipe");
        }
        if kind.is_socket() {
            return Some("a socket");
        }
    }
    Some("a device")
}

/// Returns whether a file is named like files of environment variables.
fn is_env_file(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_ascii_lowercase();
    name == ".env" || name.starts_with(".env.") || name.ends_with(".env")
}

/// Returns whether a text sets a variable, like the lines of such files. A key may end with equals signs, with
/// nothing after them.
fn is_assignment(text: &str) -> bool {
    let text = text.strip_prefix("export ").unwrap_or(text);
    let Some((name, value)) = text.split_once('=') else { return false };
    let is_name_character =
        |character: char| character.is_ascii_uppercase() || character.is_ascii_digit() || character == '_';
    name.len() >= 2 && name.chars().all(is_name_character) && value.chars().any(|character| character != '=')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(path: &Path) -> String {
        read(path).unwrap_err().to_string()
    }

    #[cfg(unix)]
    #[test]
    fn a_key_file_that_is_not_a_regular_file_is_refused_without_blocking() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let error = refusal(&pipe);
        assert!(error.contains("a named pipe") && error.contains("/pipe"), "{error}");
        assert!(refusal(folder.path()).contains("a directory"));
        assert!(refusal(Path::new("/dev/zero")).contains("/dev/zero is a device"));
    }

    #[test]
    fn a_key_file_that_is_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let large = folder.path().join("large");
        std::fs::write(&large, vec![b'k'; 70_000]).unwrap();
        assert!(refusal(&large).contains("larger than 64 KiB"));
    }

    #[test]
    fn a_file_of_variables_is_refused_as_a_key_file() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            (".env", "sk-1"),
            (".env.local", "sk-1"),
            ("prod.env", "sk-1"),
            ("key", "OPENAI_API_KEY=sk-1"),
            ("key", "export KEY='sk-1'\nOTHER=2\n"),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            let error = refusal(&path);
            assert!(
                error.contains("variable assignments") && error.contains(name) && !error.contains("sk-1"),
                "{error}"
            );
        }
        let path = folder.path().join("key");
        std::fs::write(&path, "QUJD==\n").unwrap();
        assert_eq!(read(&path).unwrap(), "QUJD==\n");
    }
}
