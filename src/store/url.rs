//! The URL of a store, as the configuration's `[store] url` contains it.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::diagnostics::hide_likely_secrets;

use super::database_files::database_files;
use super::error::Error;
use super::store::Store;

/// The location of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// No store: `none`.
    None,
    /// An SQLite file: `sqlite:PATH`, relative to the working directory.
    Sqlite(PathBuf),
}

impl Default for StoreUrl {
    fn default() -> Self {
        if cfg!(feature = "sqlite") { Self::Sqlite("pointsman.db".into()) } else { Self::None }
    }
}

/// A text that is not the URL of a store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{said:?} is not a store: write {advice}")]
pub struct StoreUrlError {
    said: String,
    advice: String,
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            |advice: String| Err(StoreUrlError { said: hide_likely_secrets(text).into_owned(), advice });
        match text.trim().split_once(':') {
            None if text.trim() == "none" => Ok(Self::None),
            Some(("sqlite", path)) => {
                // As in other programs, the path may begin with two slashes.
                let path = path.strip_prefix("//").unwrap_or(path);
                match path {
                    "" | ":memory:" => wrong("\"sqlite:pointsman.db\"".into()),
                    path => Ok(Self::Sqlite(path.into())),
                }
            }
            Some((scheme, _)) if scheme.len() > 1 => {
                wrong("\"sqlite:PATH\" or \"none\"; other stores are not supported yet".into())
            }
            _ if text.trim().is_empty() => wrong("\"sqlite:pointsman.db\" or \"none\"".into()),
            _ => wrong(format!("\"sqlite:{}\"", hide_likely_secrets(text.trim()))),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => out.write_str("none"),
            Self::Sqlite(path) => write!(out, "sqlite:{}", path.display()),
        }
    }
}

impl Serialize for StoreUrl {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StoreUrl {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl StoreUrl {
    /// Returns the database file, if there is one.
    pub fn path(&self) -> Option<&std::path::Path> {
        match self {
            Self::None => None,
            Self::Sqlite(path) => Some(path),
        }
    }

    /// Returns the files of the store: the database and its journals.
    pub fn files(&self) -> Vec<PathBuf> {
        self.path().map(database_files).unwrap_or_default()
    }

    /// Returns the same store with an absolute path.
    ///
    /// # Errors
    /// If the working directory is unknown.
    pub fn absolute(&self) -> std::io::Result<Self> {
        match self {
            Self::None => Ok(Self::None),
            Self::Sqlite(path) => std::path::absolute(path).map(Self::Sqlite),
        }
    }

    /// Opens the store for reading, even if it cannot be written. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// As [`open`](Self::open), and if the store does not exist.
    pub async fn open_to_read(&self) -> Result<Option<Arc<dyn Store>>, Error> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(path) => Ok(Some(Arc::new(super::Sqlite::open_to_read(path).await?))),
            _ => self.open().await,
        }
    }

    /// Opens the store, and creates it if it does not exist. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// As [`Sqlite::open`](super::Sqlite::open), or if this build does not support such a store.
    pub async fn open(&self) -> Result<Option<Arc<dyn Store>>, Error> {
        match self {
            Self::None => Ok(None),
            #[cfg(feature = "sqlite")]
            Self::Sqlite(path) => Ok(Some(Arc::new(super::Sqlite::open(path).await?))),
            #[cfg(not(feature = "sqlite"))]
            Self::Sqlite(path) => {
                let why = "this build has no SQLite: build with the feature `sqlite`, or set \"none\"";
                Err(Error::Open { path: path.clone(), why: why.into() })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_store_is_read_and_shown_alike() {
        for text in ["none", "sqlite:pointsman.db", "sqlite:/var/lib/runs.db", "sqlite:a:b.db"] {
            assert_eq!(text.parse::<StoreUrl>().unwrap().to_string(), text);
        }
        let slashes: StoreUrl = "sqlite:///var/lib/runs.db".parse().unwrap();
        assert_eq!(slashes, StoreUrl::Sqlite("/var/lib/runs.db".into()));
    }

    #[test]
    fn what_names_none_is_refused_with_what_to_write() {
        let refused = |text: &str| text.parse::<StoreUrl>().unwrap_err().to_string();
        assert_eq!(refused("runs.db"), "\"runs.db\" is not a store: write \"sqlite:runs.db\"");
        assert_eq!(refused(""), "\"\" is not a store: write \"sqlite:pointsman.db\" or \"none\"");
        assert_eq!(refused("sqlite:"), "\"sqlite:\" is not a store: write \"sqlite:pointsman.db\"");
        assert!(refused("sqlite::memory:").ends_with("\"sqlite:pointsman.db\""));
        assert!(refused("postgres://localhost/runs").contains("other stores are not supported yet"));
        let with_password = refused("postgres://me:hunter2@h/db");
        assert!(with_password.starts_with("\"postgres://***@h/db\" is not a store"), "{with_password}");
        let key = "sk-live-0123456789";
        assert!(!refused(key).contains(key));
    }
}
