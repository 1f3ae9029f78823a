//! Reads and writes runs as a whole.

use jiff::Timestamp;
use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row};

use crate::store::Session;
use crate::store::error::Error;
use crate::store::lock::RunLock;
use crate::store::record::ItemNumber;
use crate::store::run::{KnownRun, Outline, RunNumber, RunState};

use super::Sqlite;

impl Sqlite {
    pub(super) async fn all_runs(&self) -> Result<Vec<KnownRun>, Error> {
        let rows = sqlx::query("SELECT * FROM runs ORDER BY run DESC").fetch_all(&self.readers).await;
        rows.map_err(|error| self.unread(&error))?.iter().map(|row| self.known(row)).collect()
    }

    pub(super) async fn one_run(&self, run: RunNumber) -> Result<KnownRun, Error> {
        let row = sqlx::query("SELECT * FROM runs WHERE run = ?").bind(run.0);
        let row = row.fetch_optional(&self.readers).await.map_err(|error| self.unread(&error))?;
        self.known(&row.ok_or(Error::NoRun(run))?)
    }

    pub(super) async fn find_run(&self, identity: &str) -> Result<Option<KnownRun>, Error> {
        let row =
            sqlx::query("SELECT * FROM runs WHERE identity = ? ORDER BY run DESC LIMIT 1").bind(identity);
        let row = row.fetch_optional(&self.readers).await.map_err(|error| self.unread(&error))?;
        row.map(|row| self.known(&row)).transpose()
    }

    pub(super) async fn create_run(&self, identity: &str, outline: &Outline) -> Result<RunNumber, Error> {
        let now = now();
        let query = "INSERT INTO runs (identity, name, places, pipeline, grounds, edition, sessions, state, \
                     begun, touched, outcome) VALUES (?, ?, ?, ?, ?, 1, 0, ?, ?, ?, 'null') RETURNING run";
        let query = sqlx::query_scalar::<_, i64>(query)
            .bind(identity)
            .bind(&outline.name)
            .bind(outline.places.to_string())
            .bind(&outline.pipeline)
            .bind(outline.grounds.to_string())
            .bind(RunState::Open.as_str())
            .bind(now)
            .bind(now);
        let run = query.fetch_one(&mut *self.writer().await).await;
        run.map(RunNumber).map_err(|error| self.unwritten(&error))
    }

    pub(super) async fn begin_session(
        &self,
        run: RunNumber,
        outline: Option<&Outline>,
        anew: bool,
    ) -> Result<Session, Error> {
        let failed = |error: sqlx::Error| self.unwritten(&error);
        let mut writer = self.writer().await;
        let mut change = Connection::begin(&mut *writer).await.map_err(failed)?;
        if let Some(outline) = outline {
            let query = "UPDATE runs SET name = ?, places = ?, pipeline = ?, grounds = ? WHERE run = ?";
            let query = sqlx::query(query)
                .bind(&outline.name)
                .bind(outline.places.to_string())
                .bind(&outline.pipeline)
                .bind(outline.grounds.to_string())
                .bind(run.0);
            query.execute(&mut *change).await.map_err(failed)?;
        }
        let query = "UPDATE runs SET sessions = sessions + 1, edition = edition + ?, state = ?, touched = ? \
                     WHERE run = ? RETURNING sessions, edition";
        let query = sqlx::query_as::<_, (i64, i64)>(query)
            .bind(anew)
            .bind(RunState::Open.as_str())
            .bind(now())
            .bind(run.0);
        let begun = query.fetch_optional(&mut *change).await.map_err(failed)?;
        let (session, edition) = begun.ok_or(Error::NoRun(run))?;
        let last = sqlx::query_scalar("SELECT coalesce(max(item), 0) FROM items WHERE run = ?").bind(run.0);
        let last_item = ItemNumber(last.fetch_one(&mut *change).await.map_err(failed)?);
        change.commit().await.map_err(failed)?;
        Ok(Session { session, edition, last_item })
    }

    pub(super) async fn touch_run(
        &self,
        run: RunNumber,
        state: RunState,
        outcome: &Value,
    ) -> Result<(), Error> {
        let query = sqlx::query("UPDATE runs SET state = ?, outcome = ?, touched = ? WHERE run = ?")
            .bind(state.as_str())
            .bind(outcome.to_string())
            .bind(now())
            .bind(run.0);
        let done = query.execute(&mut *self.writer().await).await.map_err(|error| self.unwritten(&error))?;
        if done.rows_affected() == 0 { Err(Error::NoRun(run)) } else { Ok(()) }
    }

    pub(super) async fn state_of(&self, run: RunNumber) -> Result<RunState, Error> {
        let row = sqlx::query_scalar::<_, String>("SELECT state FROM runs WHERE run = ?").bind(run.0);
        let word = row.fetch_optional(&self.readers).await.map_err(|error| self.unread(&error))?;
        let word = word.ok_or(Error::NoRun(run))?;
        RunState::from_word(&word).ok_or_else(|| self.damaged(format!("the state of run {run}: {word:?}")))
    }

    pub(super) async fn set_state(&self, run: RunNumber, state: RunState) -> Result<(), Error> {
        let query = sqlx::query("UPDATE runs SET state = ?, touched = ? WHERE run = ?")
            .bind(state.as_str())
            .bind(now())
            .bind(run.0);
        let done = query.execute(&mut *self.writer().await).await.map_err(|error| self.unwritten(&error))?;
        if done.rows_affected() == 0 { Err(Error::NoRun(run)) } else { Ok(()) }
    }

    pub(super) async fn forget_runs(&self, runs: &[RunNumber]) -> Result<(), Error> {
        let failed = |error: sqlx::Error| self.unwritten(&error);
        let mut writer = self.writer().await;
        let mut change = Connection::begin(&mut *writer).await.map_err(failed)?;
        for run in runs {
            for table in ["DELETE FROM steps WHERE run = ?", "DELETE FROM items WHERE run = ?"] {
                sqlx::query(table).bind(run.0).execute(&mut *change).await.map_err(failed)?;
            }
            let gone = sqlx::query("DELETE FROM runs WHERE run = ?").bind(run.0).execute(&mut *change).await;
            if gone.map_err(failed)?.rows_affected() == 0 {
                return Err(Error::NoRun(*run));
            }
        }
        change.commit().await.map_err(failed)?;
        let left =
            sqlx::query_scalar("SELECT run FROM runs").fetch_all(&mut *writer).await.map_err(failed)?;
        // Whoever is at work would have to wait for as long as that takes. The room is used again anyhow, so that
        // it could not be given back is no reason to say that they are not gone.
        if !left.into_iter().any(|run| RunLock::is_taken(&self.real_path, RunNumber(run))) {
            drop(sqlx::query("VACUUM").execute(&mut *writer).await);
            // What was there is in the journal still, to be read by anybody, until that is folded in.
            drop(sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut *writer).await);
        }
        Ok(())
    }

    fn known(&self, row: &SqliteRow) -> Result<KnownRun, Error> {
        let read = || -> Result<KnownRun, Box<dyn std::error::Error + Send + Sync>> {
            let state: &str = row.try_get("state")?;
            let json = |column: &str| -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
                Ok(serde_json::from_str(row.try_get(column)?)?)
            };
            Ok(KnownRun {
                number: RunNumber(row.try_get("run")?),
                identity: row.try_get("identity")?,
                outline: Outline {
                    name: row.try_get("name")?,
                    places: json("places")?,
                    pipeline: row.try_get("pipeline")?,
                    grounds: json("grounds")?,
                },
                edition: row.try_get("edition")?,
                sessions: row.try_get("sessions")?,
                state: RunState::from_word(state).ok_or_else(|| format!("an unknown state: {state}"))?,
                begun: row.try_get("begun")?,
                touched: row.try_get("touched")?,
                outcome: json("outcome")?,
            })
        };
        read().map_err(|odd| self.damaged(format!("a row of runs: {odd}")))
    }
}

pub(super) fn now() -> i64 {
    Timestamp::now().as_millisecond()
}
