//! Adds up the cost of calls by day, scope and run, in addition to `spending`.
//!
//! A run without a scope has no rows. The caller passes the day.

use std::collections::BTreeMap;

use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, Sqlite as Driver, SqliteConnection};

use crate::store::error::Error;
use crate::types::{Day, NanoUsd, ScopeName, Spend};

use super::database::Sqlite;
use super::row::{RowChecksum, RowError};

/// The spend of each scope, by scope and run.
pub(super) type ByScope = BTreeMap<(ScopeName, i64), Spend>;

/// Adds to the spend of scopes.
pub(super) async fn add_to_scopes(
    change: &mut SqliteConnection,
    day: Day,
    more: ByScope,
) -> Result<(), RowError> {
    let query = "INSERT OR REPLACE INTO scope_spending (day, scope, run, cost, uncertain_cost, checksum) \
                 VALUES (?, ?, ?, ?, ?, ?)";
    for ((scope, run), booked) in more {
        if scope.is_empty() || booked == Spend::default() {
            continue;
        }
        let found = "SELECT * FROM scope_spending WHERE day = ? AND scope = ? AND run = ?";
        let found = sqlx::query(found).bind(day.0).bind(scope.as_str()).bind(run);
        let found = found.fetch_optional(&mut *change).await?;
        let before = found.as_ref().map(ScopeSpendingRow::read).transpose()?;
        let (cost, uncertain_cost) = before.map_or((0, 0), |before| (before.cost, before.uncertain_cost));
        let sum =
            |before: i64, more: NanoUsd| before.saturating_add(i64::try_from(more.0).unwrap_or(i64::MAX));
        let row = ScopeSpendingRow {
            day: day.0,
            scope: scope.as_str().to_owned(),
            run,
            cost: sum(cost, booked.cost),
            uncertain_cost: sum(uncertain_cost, booked.uncertain_cost),
        };
        let query = sqlx::query(query).bind(row.day).bind(&row.scope).bind(run);
        query.bind(row.cost).bind(row.uncertain_cost).bind(row.checksum()).execute(&mut *change).await?;
    }
    Ok(())
}

/// A row of `scope_spending`.
pub(super) struct ScopeSpendingRow {
    pub(super) day: i64,
    pub(super) scope: String,
    pub(super) run: i64,
    pub(super) cost: i64,
    pub(super) uncertain_cost: i64,
}

impl ScopeSpendingRow {
    /// Reads a row and verifies its checksum.
    pub(super) fn read(row: &SqliteRow) -> Result<Self, RowError> {
        let read = Self {
            day: row.try_get("day")?,
            scope: row.try_get("scope")?,
            run: row.try_get("run")?,
            cost: row.try_get("cost")?,
            uncertain_cost: row.try_get("uncertain_cost")?,
        };
        if read.checksum() == row.try_get::<i64, _>("checksum")? { Ok(read) } else { Err(RowError::Checksum) }
    }

    fn checksum(&self) -> i64 {
        let mut sum = RowChecksum::default();
        sum.numbers(&[self.day, self.run, self.cost, self.uncertain_cost]);
        sum.text(Some(&self.scope));
        sum.finish()
    }
}

impl Sqlite {
    /// Returns the spend of a day by scope, or that of one scope. Only the rows of that scope are then read and verified.
    pub(super) async fn scopes_booked_on(
        &self,
        day: Day,
        only: Option<&ScopeName>,
    ) -> Result<BTreeMap<ScopeName, Spend>, Error> {
        let failed = |error: sqlx::Error| self.unread(&error);
        let mut sums = BTreeMap::<ScopeName, Spend>::new();
        if !self.has_table("scope_spending").await? {
            return Ok(sums);
        }
        let mut query = QueryBuilder::<Driver>::new("SELECT * FROM scope_spending WHERE day = ");
        query.push_bind(day.0);
        if let Some(scope) = only {
            query.push(" AND scope = ").push_bind(scope.as_str().to_owned());
        }
        for row in query.build().fetch_all(&self.readers).await.map_err(failed)? {
            let row = ScopeSpendingRow::read(&row).map_err(|error| match error {
                RowError::Column(error) => self.unread(&error),
                error @ (RowError::Json(_) | RowError::Checksum | RowError::Word(_)) => {
                    self.scope_spending_error(&error)
                }
            })?;
            let amount = |money: i64| NanoUsd(u64::try_from(money).unwrap_or(0));
            let booked = Spend { cost: amount(row.cost), uncertain_cost: amount(row.uncertain_cost) };
            *sums.entry(ScopeName::from(row.scope)).or_default() += booked;
        }
        Ok(sums)
    }

    /// Returns the error of a row of `scope_spending`, or of the table.
    pub(super) fn scope_spending_error(&self, error: &RowError) -> Error {
        match error {
            RowError::Column(error) => self.unwritten(error),
            RowError::Json(_) | RowError::Checksum | RowError::Word(_) => {
                self.damaged(format!("a row of scope_spending: {error}"))
            }
        }
    }
}
