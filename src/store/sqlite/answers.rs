//! The answer cache: answers by the fingerprint of everything that affects them.
//!
//! An answer is written in the transaction of its step. It is a copy, so that the cache has bounds of its own and does not
//! depend on how a run replaces its records. Deleting a run deletes the answers that its requests gave from the cache, too:
//! after that, no copy is left outside of runs that have reused them.
//!
//! A use of an answer is written in the transaction of the step that uses it. It changes the row only, because
//! `last_used_at` is rounded down to the hour.

use std::collections::{BTreeMap, HashSet};

use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, QueryBuilder, Row, Sqlite as Driver, SqliteConnection};

use crate::store::answer_cache::{CacheLimits, CachedAnswer, CachedTarget, PrunedAnswers};
use crate::store::error::Error;
use crate::store::record::{Record, StepRecord, StepState};
use crate::store::run::RunNumber;
use crate::types::{Attempt, Fingerprint, NanoUsd, error_chain};

use super::chunks::CHUNKS;
use super::database::Sqlite;
use super::row::{RowChecksum, RowError, as_json, fingerprint, from_json};

/// Milliseconds in an hour.
const HOUR: i64 = 60 * 60 * 1_000;

/// The most answers that are removed in one transaction, so that a run does not wait long for its commits.
const PRUNED_AT_ONCE: i64 = 1_000;

/// A row of `answers`.
pub(super) struct AnswerRow {
    pub(super) key: Fingerprint,
    pub(super) run: i64,
    pub(super) target: String,
    pub(super) simulated: bool,
    pub(super) created_at: i64,
    pub(super) cost: Option<i64>,
    pub(super) attempt: Box<str>,
    pub(super) answer: Box<str>,
}

impl AnswerRow {
    /// Returns the row of an answered step; `None` if its answer does not belong in the cache.
    fn of(record: &Record, step: &StepRecord, now: i64) -> Result<Option<Self>, serde_json::Error> {
        let is_own =
            step.state == StepState::Answered && step.restored_from.is_none() && step.reused.is_none();
        let Some((key, attempt)) = step.cache_key.filter(|_| is_own).zip(step.attempts.answered_attempt())
        else {
            return Ok(None);
        };
        Ok(Some(Self {
            key,
            run: record.run.0,
            target: attempt.target.to_string(),
            simulated: step.simulated,
            created_at: now,
            cost: attempt.cost.map(|cost| i64::try_from(cost.0).unwrap_or(i64::MAX)),
            attempt: as_json(attempt)?,
            answer: as_json(&step.answer)?,
        }))
    }

    /// Reads a row and verifies its checksum.
    fn read(row: &SqliteRow) -> Result<Self, RowError> {
        let read = Self {
            key: fingerprint(row.try_get("key")?)?,
            run: row.try_get("run")?,
            target: row.try_get("target")?,
            simulated: row.try_get("simulated")?,
            created_at: row.try_get("created_at")?,
            cost: row.try_get("cost")?,
            attempt: row.try_get::<&str, _>("attempt")?.into(),
            answer: row.try_get::<&str, _>("answer")?.into(),
        };
        if read.checksum() == row.try_get::<i64, _>("checksum")? { Ok(read) } else { Err(RowError::Checksum) }
    }

    pub(super) fn bytes(&self) -> i64 {
        i64::try_from(self.attempt.len() + self.answer.len()).unwrap_or(i64::MAX)
    }

    pub(super) fn checksum(&self) -> i64 {
        let mut sum = RowChecksum::default();
        let numbers =
            [self.run, i64::from(self.simulated), self.created_at, self.cost.unwrap_or(-1), self.bytes()];
        sum.numbers(&numbers);
        sum.bytes(Some(&self.key.0));
        sum.text(Some(&self.target));
        sum.text(Some(&self.attempt));
        sum.text(Some(&self.answer));
        sum.finish()
    }

    fn into_answer(self) -> Result<CachedAnswer, RowError> {
        let bytes = u64::try_from(self.bytes()).unwrap_or(0);
        let answered_by: Attempt = from_json(&self.attempt)?;
        Ok(CachedAnswer {
            key: self.key,
            answer: from_json(&self.answer)?,
            answered_by,
            simulated: self.simulated,
            bytes,
        })
    }
}

/// The changes of the cache that records make: new answers, and uses of older ones.
#[derive(Default)]
pub(super) struct AnswerChanges {
    pub(super) new: Vec<AnswerRow>,
    uses: BTreeMap<Fingerprint, i64>,
}

impl AnswerChanges {
    /// Returns the changes that `records` make at `now`, in milliseconds since 1970.
    ///
    /// # Errors
    /// If an answer cannot be written as JSON.
    pub(super) fn of(records: &[Record], now: i64) -> Result<Self, serde_json::Error> {
        let mut changes = Self::default();
        for (record, step) in
            records.iter().flat_map(|record| record.steps.iter().map(move |step| (record, step)))
        {
            match step.cache_key.filter(|_| step.reused.is_some()) {
                Some(used) => *changes.uses.entry(used).or_default() += 1,
                None => changes.new.extend(AnswerRow::of(record, step, now)?),
            }
        }
        Ok(changes)
    }

    /// Writes the uses within a transaction.
    pub(super) async fn write_uses(
        &self,
        change: &mut SqliteConnection,
        now: i64,
    ) -> Result<(), sqlx::Error> {
        let mut by_number = BTreeMap::<i64, Vec<Fingerprint>>::new();
        for (key, uses) in &self.uses {
            by_number.entry(*uses).or_default().push(*key);
        }
        for (uses, keys) in by_number {
            let mut rest = keys.as_slice();
            while let Some(size) = CHUNKS.into_iter().find(|size| *size <= rest.len()) {
                let (now_used, later) = rest.split_at(size);
                let mut query = QueryBuilder::<Driver>::new("UPDATE answers SET hits = hits + ");
                query.push_bind(uses).push(", last_used_at = max(last_used_at, ").push_bind(hour(now));
                query.push(") WHERE key IN (");
                let mut list = query.separated(", ");
                for key in now_used {
                    list.push_bind(key.0.to_vec());
                }
                query.push(")");
                query.build().execute(&mut *change).await?;
                rest = later;
            }
        }
        Ok(())
    }
}

/// Rounds a time down to the hour.
pub(super) fn hour(milliseconds: i64) -> i64 {
    milliseconds - milliseconds.rem_euclid(HOUR)
}

/// Deletes the answers that the requests of a run gave, within a transaction.
pub(super) async fn delete_of_run(change: &mut SqliteConnection, run: RunNumber) -> Result<(), sqlx::Error> {
    let query = sqlx::query("DELETE FROM answers WHERE run = ?").bind(run.0);
    query.execute(change).await.map(|_| ())
}

impl Sqlite {
    /// Returns the answers with these keys, in any order, except those that are damaged.
    pub(super) async fn answers_by_key(&self, keys: &[Fingerprint]) -> Result<Vec<CachedAnswer>, Error> {
        let failed = |error: sqlx::Error| self.unread(&error);
        let mut found = Vec::new();
        let mut known = HashSet::new();
        let keys: Vec<_> = keys.iter().filter(|key| known.insert(**key)).collect();
        let mut rest = keys.as_slice();
        while let Some(size) = CHUNKS.into_iter().find(|size| *size <= rest.len()) {
            let (now, later) = rest.split_at(size);
            let mut query = QueryBuilder::<Driver>::new("SELECT * FROM answers WHERE key IN (");
            let mut list = query.separated(", ");
            for key in now {
                list.push_bind(key.0.to_vec());
            }
            query.push(")");
            for row in query.build().fetch_all(&self.readers).await.map_err(failed)? {
                match AnswerRow::read(&row).and_then(AnswerRow::into_answer) {
                    Ok(answer) => found.push(answer),
                    // Its request is sent again. The others are what was written.
                    Err(error) => {
                        let error = error_chain(&self.answer_error(&error));
                        tracing::warn!(error, "a stored answer is damaged and is not used");
                    }
                }
            }
            rest = later;
        }
        Ok(found)
    }

    /// Returns what the cache contains, by target.
    pub(super) async fn answers_by_target(&self) -> Result<Vec<CachedTarget>, Error> {
        let failed = |error: sqlx::Error| self.unread(&error);
        let query = "SELECT target, count(*) AS entries, sum(bytes) AS bytes, CAST(total(hits) AS INTEGER) AS hits, \
                     CAST(total(cost) AS INTEGER) AS cost, min(created_at) AS oldest_at, \
                     max(last_used_at) AS last_used_at FROM answers GROUP BY target ORDER BY target";
        let rows = sqlx::query(query).fetch_all(&self.readers).await.map_err(failed)?;
        let read = |row: &SqliteRow| -> Result<CachedTarget, sqlx::Error> {
            let number =
                |column: &str| row.try_get::<i64, _>(column).map(|number| u64::try_from(number).unwrap_or(0));
            Ok(CachedTarget {
                target: row.try_get("target")?,
                entries: number("entries")?,
                bytes: number("bytes")?,
                hits: number("hits")?,
                cost: NanoUsd(number("cost")?),
                oldest_at: row.try_get("oldest_at")?,
                last_used_at: row.try_get("last_used_at")?,
            })
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)
    }

    /// Removes answers until the cache is within `limits` at `now`, in milliseconds since 1970.
    pub(super) async fn prune_answers(&self, limits: CacheLimits, now: i64) -> Result<PrunedAnswers, Error> {
        let mut pruned = PrunedAnswers::default();
        if let Some(age) = limits.max_age {
            let age = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
            // What is younger stays, although the time of the last use is rounded down.
            let before = now.saturating_sub(age).saturating_sub(HOUR);
            let old = "SELECT rowid, bytes FROM answers WHERE last_used_at < ? ORDER BY last_used_at, bytes LIMIT ?";
            loop {
                let rows = sqlx::query(old).bind(before).bind(PRUNED_AT_ONCE).fetch_all(&self.readers).await;
                let rows = rows.map_err(|error| self.unread(&error))?;
                if !self.remove_answers(&rows, None, &mut pruned).await? {
                    break;
                }
            }
        }
        if let Some(max_bytes) = limits.max_bytes {
            let total = sqlx::query_scalar::<_, Option<i64>>("SELECT sum(bytes) FROM answers");
            let total = total.fetch_one(&self.readers).await.map_err(|error| self.unread(&error))?;
            let total = u64::try_from(total.unwrap_or(0)).unwrap_or(0);
            let mut excess = total.saturating_sub(max_bytes);
            let oldest = "SELECT rowid, bytes FROM answers ORDER BY last_used_at, bytes LIMIT ?";
            while excess > 0 {
                let rows = sqlx::query(oldest).bind(PRUNED_AT_ONCE).fetch_all(&self.readers).await;
                let rows = rows.map_err(|error| self.unread(&error))?;
                let before = pruned.bytes;
                if !self.remove_answers(&rows, Some(excess), &mut pruned).await? {
                    break;
                }
                excess = excess.saturating_sub(pruned.bytes - before);
            }
        }
        Ok(pruned)
    }

    /// Removes these rows in their order, until at least `enough` bytes are removed. Returns whether any was removed.
    async fn remove_answers(
        &self,
        rows: &[SqliteRow],
        enough: Option<u64>,
        pruned: &mut PrunedAnswers,
    ) -> Result<bool, Error> {
        let failed = |error: sqlx::Error| self.unwritten(&error);
        let mut removed = PrunedAnswers::default();
        let mut writer = self.writer().await?;
        let mut change = Connection::begin_with(&mut *writer, "BEGIN IMMEDIATE").await.map_err(failed)?;
        for row in rows {
            if enough.is_some_and(|enough| removed.bytes >= enough) {
                break;
            }
            let number: i64 = row.try_get("rowid").map_err(failed)?;
            let bytes: i64 = row.try_get("bytes").map_err(failed)?;
            let gone =
                sqlx::query("DELETE FROM answers WHERE rowid = ?").bind(number).execute(&mut *change).await;
            if gone.map_err(failed)?.rows_affected() > 0 {
                removed.entries += 1;
                removed.bytes += u64::try_from(bytes).unwrap_or(0);
            }
        }
        change.commit().await.map_err(failed)?;
        pruned.entries += removed.entries;
        pruned.bytes += removed.bytes;
        Ok(removed.entries > 0)
    }

    fn answer_error(&self, error: &RowError) -> Error {
        match error {
            RowError::Column(error) => self.unread(error),
            RowError::Json(_) | RowError::Checksum | RowError::Word(_) => {
                self.damaged(format!("a row of answers: {error}"))
            }
        }
    }
}
