//! The open database: its connections, and its errors.

use std::path::{Path, PathBuf};

use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool};
use tokio::sync::{Mutex, MutexGuard};

use crate::store::error::Error;

use super::advice;
use super::connection::connect;
use super::file_identity::FileIdentity;

/// A store in one SQLite file.
#[derive(Debug)]
pub struct Sqlite {
    pub(super) path: PathBuf,
    /// The same file without links, so that the lock of a run does not depend on the path.
    pub(super) real_path: PathBuf,
    pub(super) identity: FileIdentity,
    pub(super) writer: Mutex<SqliteConnection>,
    /// How the writer connects.
    pub(super) writer_options: SqliteConnectOptions,
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

    /// Returns the connection that writes, and replaces it first if its last transaction has not ended.
    ///
    /// On a full disk, SQLite may roll a transaction back by itself. The driver's own rollback then fails, the driver
    /// counts the transaction as open forever, and the connection refuses every later one.
    ///
    /// # Errors
    /// If it cannot be replaced. The next call tries again.
    pub(super) async fn writer(&self) -> Result<MutexGuard<'_, SqliteConnection>, Error> {
        let mut writer = self.writer.lock().await;
        if has_open_transaction(&mut writer).await {
            // The path must not lead to another file.
            self.identity.verify(&self.path).map_err(|error| self.lost(&error))?;
            let fresh = connect(&self.writer_options).await.map_err(|error| self.unwritten(&error))?;
            let failed = std::mem::replace(&mut *writer, fresh);
            tracing::warn!(path = %self.path.display(), "connection replaced after a failed transaction");
            // Its transaction is lost in any case.
            drop(failed.close().await);
        }
        Ok(writer)
    }

    /// Executes a statement on the connection that writes.
    #[cfg(test)]
    pub(crate) async fn execute(&self, sql: &str) {
        let mut writer = self.writer().await.unwrap();
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut *writer).await.unwrap();
    }

    /// Makes SQLite roll back each transaction of this connection with such a change, such as `INSERT ON items`.
    #[cfg(test)]
    pub(crate) async fn roll_back(&self, change: &str) {
        let trigger = format!(
            "CREATE TEMP TRIGGER roll_back BEFORE {change} BEGIN SELECT RAISE(ROLLBACK, 'no space'); END"
        );
        self.execute(&trigger).await;
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

/// Returns whether a transaction of this connection has not ended, although none is in use.
async fn has_open_transaction(connection: &mut SqliteConnection) -> bool {
    if !connection.is_in_transaction() {
        return false;
    }
    // The rollback of a dropped transaction may be waiting in the queue of the connection. The ping waits behind it.
    let has_answered = connection.ping().await.is_ok();
    !has_answered || connection.is_in_transaction()
}
