//! Counts the sent calls by ten minutes and target, for the daily limits.
//!
//! If the clock is set back, slots lie in the future: those of the next 24 hours count as if their calls had just been
//! sent. The caller passes the time.

use std::collections::BTreeMap;
use std::time::Duration;

use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, Row, SqliteConnection};

use crate::store::call_count::CallCount;
use crate::store::error::Error;
use crate::types::TargetName;

use super::database::Sqlite;
use super::row::{RowChecksum, RowError};

/// Milliseconds in a slot.
const SLOT: i64 = 10 * 60 * 1_000;

/// Slots in a day.
const DAY: i64 = 24 * 6;

/// Number of slots that are kept: a clock that is wrong for some days must not remove slots that count.
const KEPT: i64 = 30 * DAY;

/// A row of `calls`.
struct CallRow {
    slot: i64,
    provider: String,
    model: String,
    calls: i64,
}

impl CallRow {
    /// Reads a row and verifies its checksum.
    fn read(row: &SqliteRow) -> Result<Self, RowError> {
        let read = Self {
            slot: row.try_get("slot")?,
            provider: row.try_get("provider")?,
            model: row.try_get("model")?,
            calls: row.try_get("calls")?,
        };
        if read.checksum() == row.try_get::<i64, _>("checksum")? { Ok(read) } else { Err(RowError::Checksum) }
    }

    fn checksum(&self) -> i64 {
        let mut sum = RowChecksum::default();
        sum.numbers(&[self.slot, self.calls]);
        sum.text(Some(&self.provider));
        sum.text(Some(&self.model));
        sum.finish()
    }

    /// Returns the count, as of `now`.
    fn count(self, now: i64) -> CallCount {
        let age = now.saturating_sub(self.slot.saturating_mul(SLOT));
        CallCount {
            target: TargetName { provider: self.provider.into(), model: self.model.into() },
            age: Duration::from_millis(u64::try_from(age).unwrap_or(0)),
            calls: u64::try_from(self.calls).unwrap_or(0),
        }
    }
}

impl Sqlite {
    /// Counts calls that were sent before `now`, in milliseconds since 1970.
    pub(super) async fn count_calls_at(
        &self,
        calls: &BTreeMap<TargetName, u64>,
        now: i64,
    ) -> Result<(), Error> {
        let failed = |error: sqlx::Error| self.unwritten(&error);
        let slot = now.div_euclid(SLOT);
        let mut writer = self.writer().await?;
        // An immediate transaction: it reads before it writes, and no other process may write in between.
        let mut change = Connection::begin_with(&mut *writer, "BEGIN IMMEDIATE").await.map_err(failed)?;
        for (target, more) in calls {
            add(&mut change, slot, target, *more).await.map_err(|error| self.calls_error(&error))?;
        }
        let old = sqlx::query("DELETE FROM calls WHERE slot < ?").bind(slot.saturating_sub(KEPT));
        old.execute(&mut *change).await.map_err(failed)?;
        change.commit().await.map_err(failed)
    }

    /// Returns the calls of the 24 hours before `now`, including the whole slot in which these began.
    pub(super) async fn calls_of_day_at(&self, now: i64) -> Result<Vec<CallCount>, Error> {
        let slot = now.div_euclid(SLOT);
        let query = sqlx::query("SELECT * FROM calls WHERE slot BETWEEN ? AND ?");
        let query = query.bind(slot.saturating_sub(DAY + 1)).bind(slot.saturating_add(DAY));
        let rows = query.fetch_all(&self.readers).await.map_err(|error| self.unread(&error))?;
        let read = |row: &SqliteRow| CallRow::read(row).map(|row| row.count(now));
        rows.iter().map(read).collect::<Result<_, _>>().map_err(|error| self.calls_error(&error))
    }

    fn calls_error(&self, error: &RowError) -> Error {
        match error {
            RowError::Column(error) => self.unwritten(error),
            RowError::Json(_) | RowError::Checksum | RowError::Word(_) => {
                self.damaged(format!("a row of calls: {error}"))
            }
        }
    }
}

async fn add(
    change: &mut SqliteConnection,
    slot: i64,
    target: &TargetName,
    more: u64,
) -> Result<(), RowError> {
    let provider = target.provider.as_str();
    let model = target.model.as_str();
    let found = "SELECT * FROM calls WHERE slot = ? AND provider = ? AND model = ?";
    let found = sqlx::query(found).bind(slot).bind(provider).bind(model);
    let found = found.fetch_optional(&mut *change).await?;
    let before = found.as_ref().map(CallRow::read).transpose()?.map_or(0, |row| row.calls);
    let calls = before.saturating_add(i64::try_from(more).unwrap_or(i64::MAX));
    let row = CallRow { slot, provider: provider.to_owned(), model: model.to_owned(), calls };
    let query =
        "INSERT OR REPLACE INTO calls (slot, provider, model, calls, checksum) VALUES (?, ?, ?, ?, ?)";
    let query = sqlx::query(query).bind(slot).bind(provider).bind(model);
    query.bind(calls).bind(row.checksum()).execute(&mut *change).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 6 * SLOT;

    /// 23:50 of some day.
    const LATE: i64 = 1_000 * DAY * SLOT - SLOT;

    fn calls(target: &str, calls: u64) -> BTreeMap<TargetName, u64> {
        BTreeMap::from([(target.parse().unwrap(), calls)])
    }

    async fn opened() -> (tempfile::TempDir, Sqlite) {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("a.db")).await.unwrap();
        (folder, store)
    }

    async fn sum(store: &Sqlite, now: i64) -> u64 {
        store.calls_of_day_at(now).await.unwrap().iter().map(|count| count.calls).sum()
    }

    #[tokio::test]
    async fn calls_are_counted_by_target_until_a_day_has_passed() {
        let (_folder, store) = opened().await;
        store.count_calls_at(&calls("a/m", 2), LATE).await.unwrap();
        store.count_calls_at(&calls("a/m", 3), LATE + SLOT - 1).await.unwrap();
        store.count_calls_at(&calls("a/n", 7), LATE + HOUR).await.unwrap();
        let count = |target: &str, age: i64, calls| CallCount {
            target: target.parse().unwrap(),
            age: Duration::from_millis(age.unsigned_abs()),
            calls,
        };
        let counted = store.calls_of_day_at(LATE + 2 * HOUR).await.unwrap();
        assert_eq!(counted, [count("a/m", 2 * HOUR, 5), count("a/n", HOUR, 7)]);
        assert_eq!(sum(&store, LATE + SLOT - 1 + 24 * HOUR).await, 12);
        assert_eq!(sum(&store, LATE + 2 * SLOT + 24 * HOUR).await, 7);
    }

    #[tokio::test]
    async fn a_clock_that_steps_back_over_midnight_forgets_no_calls() {
        let (_folder, store) = opened().await;
        let early = LATE + 2 * SLOT;
        store.count_calls_at(&calls("a/m", 4), LATE).await.unwrap();
        store.count_calls_at(&calls("a/m", 5), early).await.unwrap();
        let back = early - 3 * HOUR;
        assert_eq!(sum(&store, back).await, 9);
        let ages: Vec<_> =
            store.calls_of_day_at(back).await.unwrap().into_iter().map(|count| count.age).collect();
        assert_eq!(ages, [Duration::ZERO; 2]);
        store.count_calls_at(&calls("a/m", 1), back).await.unwrap();
        assert_eq!(sum(&store, back).await, 10);
        // A clock that was days ahead must not delay calls for days.
        assert_eq!(sum(&store, early - 40 * HOUR).await, 0);
    }

    #[tokio::test]
    async fn a_database_of_an_earlier_program_counts_from_its_next_opening() {
        let (folder, store) = opened().await;
        sqlx::query("DROP TABLE calls").execute(&mut *store.writer().await.unwrap()).await.unwrap();
        store.close().await;
        let store = Sqlite::open(&folder.path().join("a.db")).await.unwrap();
        assert_eq!(store.calls_of_day_at(LATE).await.unwrap(), []);
        store.count_calls_at(&calls("a/m", 4), LATE).await.unwrap();
        assert_eq!(sum(&store, LATE).await, 4);
    }

    #[tokio::test]
    async fn old_slots_are_removed_and_a_changed_one_is_refused() {
        let (folder, store) = opened().await;
        store.count_calls_at(&calls("a/m", 4), LATE).await.unwrap();
        store.count_calls_at(&calls("a/m", 5), LATE + 31 * 24 * HOUR).await.unwrap();
        assert_eq!(sum(&store, LATE).await, 0);
        sqlx::query("UPDATE calls SET calls = 1").execute(&mut *store.writer().await.unwrap()).await.unwrap();
        let refused = store.calls_of_day_at(LATE + 31 * 24 * HOUR).await.unwrap_err().to_string();
        assert!(refused.contains("is damaged") && refused.contains("a row of calls"), "{refused}");
        store.close().await;
        drop(folder);
    }
}
