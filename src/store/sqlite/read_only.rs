//! Opens a database that cannot be written, for reading.
//!
//! In WAL mode a reader also needs the journal and its index beside the database. If neither can be created, SQLite
//! reads the file alone, which is correct only if there is no journal.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use tokio::sync::Mutex;

use crate::store::error::Error;

use super::advice;
use super::connection::{MAX_BUSY_WAIT, READ_CONNECTIONS};
use super::database::Sqlite;
use super::file_identity::FileIdentity;
use super::schema::{self, APPLICATION_ID, SCHEMA};

impl Sqlite {
    /// Opens the database at `path` for reading, even if the file, its directory or its file system is read-only. Writes
    /// to such a store fail.
    ///
    /// # Errors
    /// As [`open`](Self::open), and if the file does not exist or is empty.
    pub async fn open_to_read(path: &Path) -> Result<Self, Error> {
        // A command that only reads does not write a schema into an empty file.
        if fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() == 0) {
            let why = "it is empty: no runs are stored in it".to_owned();
            return Err(Error::Open { path: path.to_owned(), why });
        }
        // Opening the file writes nothing.
        if File::options().write(true).open(path).is_ok() {
            match Self::open(path).await {
                Err(Error::Open { .. } | Error::Io { .. }) => {}
                ended => return ended,
            }
        }
        Self::open_read_only(path).await
    }

    /// Opens the database at `path` without writing to it or beside it.
    pub(in crate::store) async fn open_read_only(path: &Path) -> Result<Self, Error> {
        let path = path.to_path_buf();
        let failed = |error: sqlx::Error| advice::on_open(&path, &error);
        let has_journal = fs::metadata(journal(&path)).is_ok_and(|journal| journal.len() > 0);
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .read_only(true)
            .immutable(!has_journal)
            .busy_timeout(MAX_BUSY_WAIT)
            .disable_statement_logging();
        let mut reader = options.connect().await.map_err(failed)?;
        let number = async |reader: &mut _, sql: &'static str| {
            sqlx::query_scalar::<_, i64>(sql).fetch_one(reader).await
        };
        let application = number(&mut reader, "PRAGMA application_id").await.map_err(failed)?;
        let found = number(&mut reader, "PRAGMA user_version").await.map_err(failed)?;
        let known = SCHEMA.len() as i64;
        if application != APPLICATION_ID {
            return Err(Error::NotOurs { path });
        }
        if found > known {
            return Err(Error::NewerSchema { path, found, known });
        }
        if found < known {
            return Err(Error::OlderSchema { path, found, known });
        }
        schema::verify(&mut reader, &path).await?;
        let readers =
            SqlitePoolOptions::new().max_connections(READ_CONNECTIONS).acquire_timeout(MAX_BUSY_WAIT);
        let readers = readers.connect_lazy_with(options.clone());
        let place = FileIdentity::of(&path);
        let real_path = path.canonicalize().unwrap_or_else(|_| path.clone());
        let writer = Mutex::new(reader);
        Ok(Self { path, real_path, identity: place, writer, writer_options: options, readers })
    }
}

fn journal(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_empty_file_is_a_new_database_only_for_a_writer() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        fs::write(&path, "").unwrap();
        let refused = Sqlite::open_to_read(&path).await.unwrap_err();
        assert!(refused.to_string().ends_with("it is empty: no runs are stored in it"), "{refused}");
        assert_eq!(fs::metadata(&path).unwrap().len(), 0);
        let names: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["a.db"]);
        Sqlite::open(&path).await.unwrap().close().await;
        Sqlite::open_to_read(&path).await.unwrap().close().await;
    }
}
