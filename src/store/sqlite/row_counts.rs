//! The numbers of a run's rows.
//!
//! A checksum detects a changed row, but not a missing one. Rows of a run are only added until the run is deleted.
//! Therefore the rows are counted when a session begins and ends, and a run that has fewer later is damaged. The table of
//! items is also compared with its indexes, which detects a page that lost its rows after a crash.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use crate::store::error::Error;
use crate::store::run::RunNumber;

use super::database::Sqlite;
use super::row::{RowChecksum, RowError};

/// The numbers of a run's rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct RowCounts {
    items: i64,
    steps: i64,
}

impl RowCounts {
    async fn count(connection: &mut SqliteConnection, run: RunNumber) -> Result<Self, sqlx::Error> {
        // The state is in the table only, so SQLite does not count the rows of an index instead.
        let items = "SELECT count(+state) FROM items WHERE run = ?";
        Ok(Self {
            items: number(connection, items, run).await?,
            steps: number(connection, "SELECT count(*) FROM steps WHERE run = ?", run).await?,
        })
    }

    /// Reads a row and verifies its checksum.
    fn read(row: &SqliteRow) -> Result<Self, RowError> {
        let run = RunNumber(row.try_get("run")?);
        let read = Self { items: row.try_get("items")?, steps: row.try_get("steps")? };
        let checksum: i64 = row.try_get("checksum")?;
        if read.checksum(run) == checksum { Ok(read) } else { Err(RowError::Checksum) }
    }

    fn checksum(self, run: RunNumber) -> i64 {
        let mut checksum = RowChecksum::default();
        checksum.numbers(&[run.0, self.items, self.steps]);
        checksum.finish()
    }
}

async fn number(
    connection: &mut SqliteConnection,
    query: &'static str,
    run: RunNumber,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar::<_, i64>(query).bind(run.0).fetch_one(connection).await
}

impl Sqlite {
    /// Fails if rows of a run are missing, as far as that is known.
    pub(super) async fn verify_rows_of(&self, run: RunNumber) -> Result<(), Error> {
        let failed = |error: sqlx::Error| self.unread(&error);
        // One snapshot: a session may add rows in the meantime.
        let mut snapshot = self.readers.begin().await.map_err(failed)?;
        let recorded = self.recorded_rows(&mut snapshot, run).await?.unwrap_or_default();
        let found = RowCounts::count(&mut snapshot, run).await.map_err(failed)?;
        let tables = [("items", found.items, recorded.items), ("steps", found.steps, recorded.steps)];
        for (table, rows, stored) in tables {
            if rows < stored {
                let what = format!("run {run} has {rows} rows of {table}, but {stored} were stored");
                return Err(self.damaged(what));
            }
        }
        let failed_items = "SELECT coalesce(sum(state = 'failed'), 0) FROM items WHERE run = ?";
        let failed_items = number(&mut snapshot, failed_items, run).await.map_err(failed)?;
        let indexes = [
            ("items_key", "SELECT count(*) FROM items INDEXED BY items_key WHERE run = ?", found.items),
            (
                "items_failed",
                "SELECT count(*) FROM items INDEXED BY items_failed WHERE run = ? AND state = 'failed'",
                failed_items,
            ),
        ];
        for (index, query, rows) in indexes {
            let entries = number(&mut snapshot, query, run).await.map_err(failed)?;
            if entries != rows {
                return Err(self.damaged(format!(
                    "the index {index} has {entries} entries of run {run}, but the table has {rows} rows"
                )));
            }
        }
        snapshot.commit().await.map_err(failed)
    }

    /// Records the numbers of a run's rows within a transaction.
    pub(super) async fn record_rows(
        &self,
        change: &mut SqliteConnection,
        run: RunNumber,
    ) -> Result<(), Error> {
        let failed = |error: sqlx::Error| self.unwritten(&error);
        let recorded = self.recorded_rows(change, run).await?.unwrap_or_default();
        let found = RowCounts::count(change, run).await.map_err(failed)?;
        // If rows are missing, the counts keep the evidence.
        let counts =
            RowCounts { items: found.items.max(recorded.items), steps: found.steps.max(recorded.steps) };
        let query = "INSERT OR REPLACE INTO row_counts (run, items, steps, checksum) VALUES (?, ?, ?, ?)";
        let query = sqlx::query(query).bind(run.0).bind(counts.items).bind(counts.steps);
        query.bind(counts.checksum(run)).execute(change).await.map(|_| ()).map_err(failed)
    }

    /// Returns the recorded numbers of a run's rows; `None` if only an earlier version wrote the run.
    async fn recorded_rows(
        &self,
        connection: &mut SqliteConnection,
        run: RunNumber,
    ) -> Result<Option<RowCounts>, Error> {
        let failed = |error: sqlx::Error| self.unread(&error);
        // A read-only database of an earlier version does not have the table.
        let table = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'row_counts'";
        let tables = sqlx::query_scalar::<_, i64>(table).fetch_one(&mut *connection).await.map_err(failed)?;
        if tables == 0 {
            return Ok(None);
        }
        let row = sqlx::query("SELECT * FROM row_counts WHERE run = ?").bind(run.0);
        let row = row.fetch_optional(connection).await.map_err(failed)?;
        let read = row.as_ref().map(RowCounts::read).transpose();
        read.map_err(|error| match error {
            RowError::Column(error) => self.unread(&error),
            RowError::Json(_) | RowError::Checksum | RowError::Word(_) => {
                self.damaged(format!("a row of row_counts: {error}"))
            }
        })
    }
}
