//! The rows of runs: the columns, and the checksum over them.

use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use crate::store::run::{RunMetadata, RunNumber, RunState, StoredRun};

use super::row::{RowChecksum, RowError};

/// A row of `runs`.
pub(super) struct RunRow {
    pub(super) run: i64,
    pub(super) identity: String,
    pub(super) name: String,
    pub(super) command: String,
    pub(super) pipeline: String,
    pub(super) manifest: String,
    pub(super) revision: i64,
    pub(super) sessions: i64,
    pub(super) state: String,
    pub(super) created_at: i64,
    pub(super) updated_at: i64,
    pub(super) outcome: String,
}

impl RunRow {
    /// Reads a row without verifying its checksum.
    fn from_row(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            run: row.try_get("run")?,
            identity: row.try_get("identity")?,
            name: row.try_get("name")?,
            command: row.try_get("command")?,
            pipeline: row.try_get("pipeline")?,
            manifest: row.try_get("manifest")?,
            revision: row.try_get("revision")?,
            sessions: row.try_get("sessions")?,
            state: row.try_get("state")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
            outcome: row.try_get("outcome")?,
        })
    }

    /// Reads a row and verifies its checksum.
    pub(super) fn read(row: &SqliteRow) -> Result<Self, RowError> {
        let read = Self::from_row(row)?;
        if read.checksum() == row.try_get::<i64, _>("checksum")? { Ok(read) } else { Err(RowError::Checksum) }
    }

    /// Reads the row of a run within a transaction; `None` if there is no such run.
    pub(super) async fn find(
        change: &mut SqliteConnection,
        run: RunNumber,
    ) -> Result<Option<Self>, RowError> {
        let row = sqlx::query("SELECT * FROM runs WHERE run = ?").bind(run.0).fetch_optional(change).await?;
        row.as_ref().map(Self::read).transpose()
    }

    fn checksum(&self) -> i64 {
        let mut sum = RowChecksum::default();
        sum.numbers(&[self.run, self.revision, self.sessions, self.created_at, self.updated_at]);
        let texts = [
            &self.identity,
            &self.name,
            &self.command,
            &self.pipeline,
            &self.manifest,
            &self.state,
            &self.outcome,
        ];
        texts.into_iter().for_each(|text| sum.text(Some(text)));
        sum.finish()
    }

    /// Sets the description of the run.
    pub(super) fn describe(&mut self, metadata: &RunMetadata) {
        self.name.clone_from(&metadata.name);
        self.command = metadata.command.to_string();
        self.pipeline.clone_from(&metadata.pipeline);
        self.manifest = metadata.manifest.to_string();
    }

    /// Writes every column of an existing row.
    pub(super) async fn update(&self, change: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let query = "UPDATE runs SET identity = ?, name = ?, command = ?, pipeline = ?, manifest = ?, revision = ?, \
                     sessions = ?, state = ?, created_at = ?, updated_at = ?, outcome = ?, checksum = ? WHERE run = ?";
        let query = sqlx::query(query)
            .bind(&self.identity)
            .bind(&self.name)
            .bind(&self.command)
            .bind(&self.pipeline)
            .bind(&self.manifest)
            .bind(self.revision)
            .bind(self.sessions)
            .bind(&self.state)
            .bind(self.created_at)
            .bind(self.updated_at)
            .bind(&self.outcome)
            .bind(self.checksum())
            .bind(self.run);
        query.execute(change).await.map(|_| ())
    }

    /// Converts the row.
    pub(super) fn into_stored(self) -> Result<StoredRun, RowError> {
        let state = RunState::parse(&self.state).ok_or_else(|| RowError::Word(self.state.as_str().into()))?;
        let json = |text: &str| serde_json::from_str::<Value>(text);
        Ok(StoredRun {
            number: RunNumber(self.run),
            metadata: RunMetadata {
                command: json(&self.command)?,
                manifest: json(&self.manifest)?,
                name: self.name,
                pipeline: self.pipeline,
            },
            outcome: json(&self.outcome)?,
            identity: self.identity,
            revision: self.revision,
            sessions: self.sessions,
            state,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

/// Migrates the rows of an earlier schema version: the words of states, and checksums if there were none.
pub(super) async fn migrate(change: &mut SqliteConnection, from_version: i64) -> Result<(), sqlx::Error> {
    for row in sqlx::query("SELECT * FROM runs").fetch_all(&mut *change).await? {
        let read = match RunRow::read(&row) {
            // A damaged row keeps its checksum, so that reading it reports the damage.
            Err(RowError::Checksum) if from_version >= FIRST_WITH_CHECKSUMS => continue,
            Err(RowError::Column(error)) => return Err(error),
            Ok(_) | Err(RowError::Checksum | RowError::Json(_) | RowError::Word(_)) => {
                RunRow::from_row(&row)?
            }
        };
        RunRow { state: renamed_state(&read.state).to_owned(), ..read }.update(change).await?;
    }
    Ok(())
}

/// The first schema version with checksums in rows of runs and spending.
pub(super) const FIRST_WITH_CHECKSUMS: i64 = 3;

/// Returns the current word for a state that versions before 4 wrote.
fn renamed_state(word: &str) -> &str {
    match word {
        "open" => "running",
        "complete" => "completed",
        "broken" => "io_error",
        other => other,
    }
}
