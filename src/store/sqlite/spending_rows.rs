//! Reads the recorded spend of a range of days.

use futures_util::TryStreamExt;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use crate::store::error::Error;
use crate::store::run::RunNumber;
use crate::store::spending::{ScopeSpendingRow, SpendingRow};
use crate::types::{Day, NanoUsd, Spend};

use super::database::Sqlite;
use super::row::RowError;
use super::{scope_spending, spending};

/// The name of a run is read without the rest of its row, which may be large, and therefore without its checksum.
const SPENDING: &str = "SELECT spending.*, runs.name AS pipeline FROM spending LEFT JOIN runs ON runs.run = spending.run \
                        WHERE day BETWEEN ? AND ? ORDER BY day, provider, spending.run LIMIT ?";

const SCOPE_SPENDING: &str = "SELECT scope_spending.*, runs.name AS pipeline FROM scope_spending \
                              LEFT JOIN runs ON runs.run = scope_spending.run \
                              WHERE day BETWEEN ? AND ? ORDER BY day, scope, scope_spending.run LIMIT ?";

impl Sqlite {
    /// Returns the spend of the days from `from` to `to`, or an error if these are more than `max` rows.
    pub(in crate::store) async fn spending_rows(
        &self,
        from: Day,
        to: Day,
        max: u32,
    ) -> Result<Vec<SpendingRow>, Error> {
        let read = |row: &SqliteRow| {
            let stored = spending::SpendingRow::read(row)?;
            Ok(SpendingRow {
                day: Day(stored.day),
                provider: stored.provider.as_str().into(),
                run: RunNumber(stored.run),
                pipeline: row.try_get("pipeline")?,
                spend: spend(stored.cost, stored.uncertain_cost),
            })
        };
        self.rows_of_days("spending", SPENDING, [from, to], max, read).await
    }

    /// Returns the spend of scopes of the days from `from` to `to`, or an error if these are more than `max` rows.
    pub(in crate::store) async fn scope_spending_rows(
        &self,
        from: Day,
        to: Day,
        max: u32,
    ) -> Result<Vec<ScopeSpendingRow>, Error> {
        if !self.has_table("scope_spending").await? {
            return Ok(Vec::new());
        }
        let read = |row: &SqliteRow| {
            let stored = scope_spending::ScopeSpendingRow::read(row)?;
            Ok(ScopeSpendingRow {
                day: Day(stored.day),
                scope: stored.scope.as_str().into(),
                run: RunNumber(stored.run),
                pipeline: row.try_get("pipeline")?,
                spend: spend(stored.cost, stored.uncertain_cost),
            })
        };
        self.rows_of_days("scope_spending", SCOPE_SPENDING, [from, to], max, read).await
    }

    async fn rows_of_days<T>(
        &self,
        table: &'static str,
        query: &'static str,
        [from, to]: [Day; 2],
        max: u32,
        read: impl Fn(&SqliteRow) -> Result<T, RowError>,
    ) -> Result<Vec<T>, Error> {
        let query = sqlx::query(query).bind(from.0).bind(to.0).bind(i64::from(max) + 1);
        let mut rows = query.fetch(&self.readers);
        let mut found = Vec::new();
        while let Some(row) = rows.try_next().await.map_err(|error| self.unread(&error))? {
            if found.len() >= max as usize {
                return Err(Error::TooMuchSpending { max });
            }
            found.push(read(&row).map_err(|error| match error {
                RowError::Column(error) => self.unread(&error),
                RowError::Json(_) | RowError::Checksum | RowError::Word(_) => {
                    self.damaged(format!("a row of {table}: {error}"))
                }
            })?);
        }
        Ok(found)
    }
}

fn spend(cost: i64, uncertain_cost: i64) -> Spend {
    let amount = |money: i64| NanoUsd(u64::try_from(money).unwrap_or(0));
    Spend { cost: amount(cost), uncertain_cost: amount(uncertain_cost) }
}
