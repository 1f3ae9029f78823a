//! Where a store is, as it is written in `[store] url` and `--store`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Store;
use super::error::Error;

/// Where runs are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// Nowhere: `none`.
    None,
    /// In an SQLite file: `sqlite:PATH`, from the working directory.
    Sqlite(PathBuf),
}

impl Default for StoreUrl {
    fn default() -> Self {
        if cfg!(feature = "sqlite") { Self::Sqlite("pointsman.db".into()) } else { Self::None }
    }
}

/// A text that names no store.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{said:?} names no store: it is written {advice}")]
pub struct StoreUrlError {
    said: String,
    advice: String,
}

impl FromStr for StoreUrl {
    type Err = StoreUrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |advice: String| Err(StoreUrlError { said: text.to_owned(), advice });
        match text.trim().split_once(':') {
            None if text.trim() == "none" => Ok(Self::None),
            Some(("sqlite", path)) => {
                // As in other programs, two slashes may stand before the path.
                let path = path.strip_prefix("//").unwrap_or(path);
                match path {
                    "" | ":memory:" => wrong("\"sqlite:pointsman.db\"".into()),
                    path => Ok(Self::Sqlite(path.into())),
                }
            }
            Some((scheme, _)) if scheme.len() > 1 => {
                wrong("\"sqlite:PATH\" or \"none\"; no other store is there yet".into())
            }
            _ if text.trim().is_empty() => wrong("\"sqlite:pointsman.db\" or \"none\"".into()),
            _ => wrong(format!("\"sqlite:{}\"", text.trim())),
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
    /// Returns the file that the store is in, if it is one.
    pub fn path(&self) -> Option<&std::path::Path> {
        match self {
            Self::None => None,
            Self::Sqlite(path) => Some(path),
        }
    }

    /// Returns the files that the store is in: the database, and its journals while they are there.
    pub fn files(&self) -> Vec<PathBuf> {
        let Some(path) = self.path() else { return Vec::new() };
        let beside = ["-wal", "-shm", "-journal"].map(|end| {
            let mut name = path.as_os_str().to_owned();
            name.push(end);
            PathBuf::from(name)
        });
        std::iter::once(path.to_owned()).chain(beside).collect()
    }

    /// Returns the same store, named from anywhere.
    ///
    /// # Errors
    /// When the working directory is not known.
    pub fn absolute(&self) -> std::io::Result<Self> {
        match self {
            Self::None => Ok(Self::None),
            Self::Sqlite(path) => std::path::absolute(path).map(Self::Sqlite),
        }
    }

    /// Opens the store to read it, also where it cannot be written. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when there is none.
    pub async fn open_to_read(&self) -> Result<Option<Arc<dyn Store>>, Error> {
        match self {
            #[cfg(feature = "sqlite")]
            Self::Sqlite(path) => Ok(Some(Arc::new(super::Sqlite::open_to_read(path).await?))),
            _ => self.open().await,
        }
    }

    /// Opens the store, and makes it when there is none. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// As [`Sqlite::open`](super::Sqlite::open), or when this build cannot open such a store.
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
        assert_eq!(refused("runs.db"), "\"runs.db\" names no store: it is written \"sqlite:runs.db\"");
        assert_eq!(refused(""), "\"\" names no store: it is written \"sqlite:pointsman.db\" or \"none\"");
        assert_eq!(refused("sqlite:"), "\"sqlite:\" names no store: it is written \"sqlite:pointsman.db\"");
        assert!(refused("sqlite::memory:").ends_with("\"sqlite:pointsman.db\""));
        assert!(refused("postgres://localhost/runs").contains("no other store is there yet"));
    }
}
