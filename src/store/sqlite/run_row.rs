//! The rows of runs: what is in each column, and the checksum over them.

use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use crate::store::run::{KnownRun, Outline, RunNumber, RunState};

use super::row::{Odd, Seal};

/// A row of `runs`.
pub(super) struct RunRow {
    pub(super) run: i64,
    pub(super) identity: String,
    pub(super) name: String,
    pub(super) places: String,
    pub(super) pipeline: String,
    pub(super) grounds: String,
    pub(super) edition: i64,
    pub(super) sessions: i64,
    pub(super) state: String,
    pub(super) begun: i64,
    pub(super) touched: i64,
    pub(super) outcome: String,
}

impl RunRow {
    /// Reads a row, without a look at its checksum.
    fn of(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            run: row.try_get("run")?,
            identity: row.try_get("identity")?,
            name: row.try_get("name")?,
            places: row.try_get("places")?,
            pipeline: row.try_get("pipeline")?,
            grounds: row.try_get("grounds")?,
            edition: row.try_get("edition")?,
            sessions: row.try_get("sessions")?,
            state: row.try_get("state")?,
            begun: row.try_get("begun")?,
            touched: row.try_get("touched")?,
            outcome: row.try_get("outcome")?,
        })
    }

    /// Reads a row that is what was written.
    pub(super) fn read(row: &SqliteRow) -> Result<Self, Odd> {
        let read = Self::of(row)?;
        if read.checksum() == row.try_get::<i64, _>("checksum")? { Ok(read) } else { Err(Odd::Seal) }
    }

    /// Reads the row of a run inside a change; `None` when there is no such run.
    pub(super) async fn find(change: &mut SqliteConnection, run: RunNumber) -> Result<Option<Self>, Odd> {
        let row = sqlx::query("SELECT * FROM runs WHERE run = ?").bind(run.0).fetch_optional(change).await?;
        row.as_ref().map(Self::read).transpose()
    }

    fn checksum(&self) -> i64 {
        let mut sum = Seal::default();
        sum.numbers(&[self.run, self.edition, self.sessions, self.begun, self.touched]);
        let texts = [
            &self.identity,
            &self.name,
            &self.places,
            &self.pipeline,
            &self.grounds,
            &self.state,
            &self.outcome,
        ];
        texts.into_iter().for_each(|text| sum.text(Some(text)));
        sum.close()
    }

    /// Takes over what a run is.
    pub(super) fn describe(&mut self, outline: &Outline) {
        self.name.clone_from(&outline.name);
        self.places = outline.places.to_string();
        self.pipeline.clone_from(&outline.pipeline);
        self.grounds = outline.grounds.to_string();
    }

    /// Writes every column of a row that is there.
    pub(super) async fn update(&self, change: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let query = "UPDATE runs SET identity = ?, name = ?, places = ?, pipeline = ?, grounds = ?, edition = ?, \
                     sessions = ?, state = ?, begun = ?, touched = ?, outcome = ?, checksum = ? WHERE run = ?";
        let query = sqlx::query(query)
            .bind(&self.identity)
            .bind(&self.name)
            .bind(&self.places)
            .bind(&self.pipeline)
            .bind(&self.grounds)
            .bind(self.edition)
            .bind(self.sessions)
            .bind(&self.state)
            .bind(self.begun)
            .bind(self.touched)
            .bind(&self.outcome)
            .bind(self.checksum())
            .bind(self.run);
        query.execute(change).await.map(|_| ())
    }

    /// Returns what it says.
    pub(super) fn known(self) -> Result<KnownRun, Odd> {
        let state = RunState::from_word(&self.state).ok_or_else(|| Odd::Word(self.state.as_str().into()))?;
        let json = |text: &str| serde_json::from_str::<Value>(text);
        Ok(KnownRun {
            number: RunNumber(self.run),
            outline: Outline {
                places: json(&self.places)?,
                grounds: json(&self.grounds)?,
                name: self.name,
                pipeline: self.pipeline,
            },
            outcome: json(&self.outcome)?,
            identity: self.identity,
            edition: self.edition,
            sessions: self.sessions,
            state,
            begun: self.begun,
            touched: self.touched,
        })
    }
}

/// Gives every row of an earlier version, which has none, its checksum.
pub(super) async fn add_checksums(change: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    for row in sqlx::query("SELECT * FROM runs").fetch_all(&mut *change).await? {
        RunRow::of(&row)?.update(change).await?;
    }
    Ok(())
}
