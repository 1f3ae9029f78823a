//! Opens a database that cannot be written, to read it.
//!
//! In WAL mode a reader, too, needs a journal and its index beside the database. Where neither can be made, SQLite
//! reads the file alone, which is right only while there is no journal.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use tokio::sync::Mutex;

use crate::store::error::Error;

use super::place::Place;
use super::{APPLICATION, BUSY, READERS, SCHEMA, Sqlite, advice};

impl Sqlite {
    /// Opens the database at `path` to read it; one that cannot be written, too, because it, its directory or its file
    /// system is read-only. What is written to such a store fails.
    ///
    /// # Errors
    /// As [`open`](Self::open), and when there is none.
    pub async fn open_to_read(path: &Path) -> Result<Self, Error> {
        // Nothing is written by opening it.
        if File::options().write(true).open(path).is_ok() {
            match Self::open(path).await {
                Err(Error::Open { .. } | Error::Io { .. }) => {}
                ended => return ended,
            }
        }
        Self::open_read_only(path).await
    }

    /// Opens the database at `path`, and writes neither to it nor beside it.
    pub(super) async fn open_read_only(path: &Path) -> Result<Self, Error> {
        let path = path.to_path_buf();
        let failed = |error: sqlx::Error| advice::on_open(&path, &error);
        let has_journal = fs::metadata(journal(&path)).is_ok_and(|journal| journal.len() > 0);
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .read_only(true)
            .immutable(!has_journal)
            .busy_timeout(BUSY)
            .disable_statement_logging();
        let mut reader = options.connect().await.map_err(failed)?;
        let number = async |reader: &mut _, sql: &'static str| {
            sqlx::query_scalar::<_, i64>(sql).fetch_one(reader).await
        };
        let application = number(&mut reader, "PRAGMA application_id").await.map_err(failed)?;
        let found = number(&mut reader, "PRAGMA user_version").await.map_err(failed)?;
        let known = SCHEMA.len() as i64;
        if application != APPLICATION {
            return Err(Error::Foreign { path });
        }
        if found > known {
            return Err(Error::Newer { path, found, known });
        }
        if found < known {
            return Err(Error::Older { path, found, known });
        }
        let readers = SqlitePoolOptions::new().max_connections(READERS).acquire_timeout(BUSY);
        let readers = readers.connect_lazy_with(options);
        let place = Place::of(&path);
        let real_path = path.canonicalize().unwrap_or_else(|_| path.clone());
        Ok(Self { path, real_path, place, writer: Mutex::new(reader), readers })
    }
}

fn journal(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}
