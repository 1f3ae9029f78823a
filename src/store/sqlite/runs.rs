//! Reads and writes runs as a whole.

use std::time::Duration;

use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{ConnectOptions, Connection, SqliteConnection};

use crate::clock;
use crate::store::error::Error;
use crate::store::lock::RunLock;
use crate::store::record::ItemNumber;
use crate::store::run::{RunMetadata, RunNumber, RunState, StoredRun};
use crate::store::store::Session;

use super::answers;
use super::connection::options;
use super::database::Sqlite;
use super::row::RowError;
use super::run_row::RunRow;

impl Sqlite {
    pub(super) async fn all_runs(&self) -> Result<Vec<StoredRun>, Error> {
        let rows = sqlx::query("SELECT * FROM runs ORDER BY run DESC").fetch_all(&self.readers).await;
        rows.map_err(|error| self.unread(&error))?.iter().map(|row| self.known(row)).collect()
    }

    pub(super) async fn one_run(&self, run: RunNumber) -> Result<StoredRun, Error> {
        let row = sqlx::query("SELECT * FROM runs WHERE run = ?").bind(run.0);
        let row = row.fetch_optional(&self.readers).await.map_err(|error| self.unread(&error))?;
        self.known(&row.ok_or(Error::NoRun(run))?)
    }

    pub(super) async fn find_run(&self, identity: &str) -> Result<Option<StoredRun>, Error> {
        let row =
            sqlx::query("SELECT * FROM runs WHERE identity = ? ORDER BY run DESC LIMIT 1").bind(identity);
        let row = row.fetch_optional(&self.readers).await.map_err(|error| self.unread(&error))?;
        row.map(|row| self.known(&row)).transpose()
    }

    pub(super) async fn create_run(
        &self,
        identity: &str,
        metadata: &RunMetadata,
    ) -> Result<RunNumber, Error> {
        let failed = |error: sqlx::Error| self.unwritten(&error);
        let now = now();
        let query = "INSERT INTO runs (identity, name, command, pipeline, manifest, revision, sessions, state, \
                     created_at, updated_at, outcome) VALUES (?, '', '', '', '', 1, 0, ?, ?, ?, 'null') RETURNING run";
        let query = sqlx::query_scalar::<_, i64>(query)
            .bind(identity)
            .bind(RunState::Running.as_str())
            .bind(now)
            .bind(now);
        let mut writer = self.writer().await?;
        let mut change = Connection::begin(&mut *writer).await.map_err(failed)?;
        let run = query.fetch_one(&mut *change).await.map_err(failed)?;
        let mut row = RunRow {
            run,
            identity: identity.to_owned(),
            name: String::new(),
            command: String::new(),
            pipeline: String::new(),
            manifest: String::new(),
            revision: 1,
            sessions: 0,
            state: RunState::Running.as_str().to_owned(),
            created_at: now,
            updated_at: now,
            outcome: Value::Null.to_string(),
        };
        row.describe(metadata);
        // The checksum includes the number, which is known only now.
        row.update(&mut change).await.map_err(failed)?;
        change.commit().await.map_err(failed)?;
        Ok(RunNumber(run))
    }

    pub(super) async fn begin_session(
        &self,
        run: RunNumber,
        metadata: Option<&RunMetadata>,
        new_revision: bool,
    ) -> Result<Session, Error> {
        let failed = |error: sqlx::Error| self.unwritten(&error);
        let mut writer = self.writer().await?;
        let mut change = Connection::begin_with(&mut *writer, "BEGIN IMMEDIATE").await.map_err(failed)?;
        let mut row = self.row_of(&mut change, run).await?;
        if let Some(metadata) = metadata {
            row.describe(metadata);
        }
        row.sessions += 1;
        row.revision += i64::from(new_revision);
        RunState::Running.as_str().clone_into(&mut row.state);
        row.updated_at = now();
        row.update(&mut change).await.map_err(failed)?;
        let last = sqlx::query_scalar("SELECT coalesce(max(item), 0) FROM items WHERE run = ?").bind(run.0);
        let last_item = ItemNumber(last.fetch_one(&mut *change).await.map_err(failed)?);
        // The rows of a session that crashed are counted here.
        self.record_rows(&mut change, run).await?;
        change.commit().await.map_err(failed)?;
        Ok(Session { number: row.sessions, revision: row.revision, last_item })
    }

    pub(super) async fn touch_run(
        &self,
        run: RunNumber,
        state: RunState,
        outcome: &Value,
    ) -> Result<(), Error> {
        let failed = |error: sqlx::Error| self.unwritten(&error);
        let mut writer = self.writer().await?;
        let mut change = Connection::begin_with(&mut *writer, "BEGIN IMMEDIATE").await.map_err(failed)?;
        let mut row = self.row_of(&mut change, run).await?;
        // The user may have cancelled it since the session last checked. A completed run cannot be cancelled.
        if row.state != RunState::Cancelled.as_str() || state == RunState::Completed {
            state.as_str().clone_into(&mut row.state);
        }
        row.outcome = outcome.to_string();
        row.updated_at = now();
        row.update(&mut change).await.map_err(failed)?;
        self.record_rows(&mut change, run).await?;
        change.commit().await.map_err(failed)
    }

    pub(super) async fn note_outcome(&self, run: RunNumber, outcome: &Value) -> Result<(), Error> {
        self.change_run(run, |row| row.outcome = outcome.to_string()).await
    }

    pub(super) async fn state_of(&self, run: RunNumber) -> Result<RunState, Error> {
        // Read twice a second for every run in progress. The other columns may be large, and a checksum covers them all.
        let state = sqlx::query_scalar::<_, String>("SELECT state FROM runs WHERE run = ?").bind(run.0);
        let state = state.fetch_optional(&self.readers).await.map_err(|error| self.unread(&error))?;
        let state = state.ok_or(Error::NoRun(run))?;
        RunState::parse(&state).ok_or_else(|| self.run_error(&RowError::Word(state.into())))
    }

    pub(super) async fn set_state(&self, run: RunNumber, state: RunState) -> Result<(), Error> {
        self.change_run(run, |row| {
            state.as_str().clone_into(&mut row.state);
            row.updated_at = now();
        })
        .await
    }

    pub(super) async fn set_identity(&self, run: RunNumber, identity: &str) -> Result<(), Error> {
        self.change_run(run, |row| {
            identity.clone_into(&mut row.identity);
            row.updated_at = now();
        })
        .await
    }

    /// Changes the row of a run.
    async fn change_run(&self, run: RunNumber, change: impl FnOnce(&mut RunRow)) -> Result<(), Error> {
        let failed = |error: sqlx::Error| self.unwritten(&error);
        let mut writer = self.writer().await?;
        // An immediate transaction: it reads before it writes, and no other process may write in between.
        let mut begun = Connection::begin_with(&mut *writer, "BEGIN IMMEDIATE").await.map_err(failed)?;
        let mut row = self.row_of(&mut begun, run).await?;
        change(&mut row);
        row.update(&mut begun).await.map_err(failed)?;
        begun.commit().await.map_err(failed)
    }

    async fn row_of(&self, change: &mut SqliteConnection, run: RunNumber) -> Result<RunRow, Error> {
        let found = RunRow::find(change, run).await;
        found.map_err(|error| self.run_error(&error))?.ok_or(Error::NoRun(run))
    }

    fn run_error(&self, error: &RowError) -> Error {
        match error {
            RowError::Column(error) => self.unread(error),
            RowError::Json(_) | RowError::Checksum | RowError::Word(_) => {
                self.damaged(format!("a row of runs: {error}"))
            }
        }
    }

    pub(super) async fn forget_runs(&self, runs: &[RunNumber]) -> Result<(), Error> {
        let failed = |error: sqlx::Error| self.unwritten(&error);
        let mut writer = self.writer().await?;
        let mut change = Connection::begin(&mut *writer).await.map_err(failed)?;
        for run in runs {
            for table in [
                "DELETE FROM steps WHERE run = ?",
                "DELETE FROM items WHERE run = ?",
                "DELETE FROM row_counts WHERE run = ?",
            ] {
                sqlx::query(table).bind(run.0).execute(&mut *change).await.map_err(failed)?;
            }
            answers::delete_of_run(&mut change, *run).await.map_err(failed)?;
            let gone = sqlx::query("DELETE FROM runs WHERE run = ?").bind(run.0).execute(&mut *change).await;
            if gone.map_err(failed)?.rows_affected() == 0 {
                return Err(Error::NoRun(*run));
            }
        }
        change.commit().await.map_err(failed)
    }

    pub(super) async fn shrink_file(&self) -> Result<(), Error> {
        let failed = |error: sqlx::Error| self.unwritten(&error);
        let mut writer = self.writer().await?;
        let left =
            sqlx::query_scalar("SELECT run FROM runs").fetch_all(&mut *writer).await.map_err(failed)?;
        // A run in progress would have to wait for as long as that takes. The space is reused in any case, so a failure
        // here does not mean that the runs were not deleted.
        if !left.into_iter().any(|run| RunLock::is_taken(&self.real_path, RunNumber(run))) {
            drop(sqlx::query("VACUUM").execute(&mut *writer).await);
            // The deleted data is still in the journal, where it could be read, until the journal is copied.
            drop(sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut *writer).await);
        }
        Ok(())
    }

    /// Empties the journal. While others read or write, it empties as much as they allow.
    pub(super) async fn fold_journal(&self) -> Result<(), Error> {
        let failed = |error: sqlx::Error| self.unwritten(&error);
        // This process writes nothing in the meantime.
        let _writer = self.writer.lock().await;
        // A checkpoint that waits for another process would delay every commit of this process. Therefore it has its own
        // connection, so that the busy timeout of the writer does not change, even if this future is dropped.
        let options = options(&self.path).create_if_missing(false).busy_timeout(Duration::ZERO);
        let mut folder = options.connect().await.map_err(failed)?;
        sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut folder).await.map_err(failed)?;
        folder.close().await.map_err(failed)
    }

    pub(super) fn known(&self, row: &SqliteRow) -> Result<StoredRun, Error> {
        RunRow::read(row).and_then(RunRow::into_stored).map_err(|error| self.run_error(&error))
    }
}

pub(super) fn now() -> i64 {
    clock::milliseconds()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn a_fold_that_is_dropped_half_way_leaves_the_writer_waiting_for_others() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("a.db")).await.unwrap();
        for most in 1..12 {
            let mut fold = Box::pin(store.fold_journal());
            let mut polls = 0;
            let done = poll_fn(|context| {
                polls += 1;
                if polls > most { Poll::Ready(None) } else { fold.as_mut().poll(context).map(Some) }
            });
            // A dropped checkpoint may still run and delay the next.
            drop(done.await);
            drop(fold);
            let mut writer = store.writer().await.unwrap();
            let waits = sqlx::query_scalar::<_, i64>("PRAGMA busy_timeout").fetch_one(&mut *writer).await;
            assert_eq!(waits.unwrap(), 30_000, "dropped after {most} polls");
        }
    }
}
