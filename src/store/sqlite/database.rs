//! The open database: its connections, and its errors.

use std::path::{Path, PathBuf};

use sqlx::Connection;
use sqlx::sqlite::{SqliteConnection, SqlitePool};
use tokio::sync::{Mutex, MutexGuard};

use crate::store::error::Error;

use super::advice;
use super::file_identity::FileIdentity;

/// A store in one SQLite file.
#[derive(Debug)]
pub struct Sqlite {
    pub(super) path: PathBuf,
    /// The same file without links, so that the lock of a run does not depend on the path.
    pub(super) real_path: PathBuf,
    pub(super) identity: FileIdentity,
    pub(super) writer: Mutex<SqliteConnection>,
    pub(super) readers: SqlitePool,
}

impl Sqlite {
    /// Returns the path of the database.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Closes the database and copies its journal into it. Dropping the store loses no data either.
    pub async fn close(self) {
        self.readers.close().await;
        // The next process reads what remains in the journal.
        drop(self.writer.into_inner().close().await);
    }

    pub(super) async fn writer(&self) -> MutexGuard<'_, SqliteConnection> {
        self.writer.lock().await
    }

    /// Returns whether the database has a table. A read-only database of an earlier version lacks the additional ones.
    pub(super) async fn has_table(&self, name: &'static str) -> Result<bool, Error> {
        let query = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?";
        let count = sqlx::query_scalar::<_, i64>(query).bind(name).fetch_one(&self.readers).await;
        Ok(count.map_err(|error| self.unread(&error))? > 0)
    }

    pub(super) fn unread(&self, error: &sqlx::Error) -> Error {
        advice::on_use(&self.path, "read", error)
    }

    pub(super) fn unwritten(&self, error: &sqlx::Error) -> Error {
        advice::on_use(&self.path, "write", error)
    }

    pub(super) fn lost(&self, error: &std::io::Error) -> Error {
        let why = format!(
            "{error}: it was moved or removed while the run was at work. Bring it back, with the files beside it \
             whose names begin alike, and start again"
        );
        Error::Io { path: self.path.clone(), doing: "write", why }
    }

    pub(super) fn damaged(&self, what: impl Into<String>) -> Error {
        Error::Damaged { path: self.path.clone(), what: what.into() }
    }
}
