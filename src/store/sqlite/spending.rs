//! Adds up the cost of calls by day, provider and run.
//!
//! A record replaces the earlier record of its session and step, so only the difference is added. The caller passes the
//! day.

use std::collections::{BTreeMap, HashMap};

use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, QueryBuilder, Row, Sqlite as Driver, SqliteConnection};

use crate::store::error::Error;
use crate::store::record::{Record, StepRecord};
use crate::store::run::RunNumber;
use crate::types::{AttemptLog, Day, NanoUsd, ProviderName, ScopeName, Spend};

use super::chunks::CHUNKS;
use super::database::Sqlite;
use super::row::{RowChecksum, RowError};
use super::scope_spending::{ByScope, add_to_scopes};

/// A step of an item in a session.
type StepKey<'a> = (i64, i64, i64, &'a str);

type ByProvider = BTreeMap<ProviderName, Spend>;

/// What a step cost in a session, as its record says.
struct StepCost<'a> {
    key: StepKey<'a>,
    /// The scope of the session; empty for none.
    scope: &'a ScopeName,
    cost: ByProvider,
}

/// Adds what the steps of `records` cost beyond their earlier records, and returns the part of each scope. Must be called
/// before the records are written.
pub(super) async fn add_records(
    change: &mut SqliteConnection,
    records: &[Record],
    day: Day,
) -> Result<ByScope, RowError> {
    let steps = records.iter().flat_map(|record| record.steps.iter().map(move |step| (record, step)));
    let priced: Vec<StepCost<'_>> = steps
        .map(|(record, step)| StepCost {
            key: step_key(record, step),
            scope: &record.scope,
            cost: Spend::by_provider(&step.attempts),
        })
        .filter(|step| !step.cost.is_empty())
        .collect();
    let mut known = recorded(change, &priced).await?;
    let mut more = BTreeMap::<(i64, ProviderName), Spend>::new();
    let mut of_scopes = ByScope::new();
    for StepCost { key, scope, cost } in priced {
        let before = known.insert(key, cost.clone()).unwrap_or_default();
        for (provider, now) in cost {
            let beyond = now.saturating_sub(before.get(&provider).copied().unwrap_or_default());
            if !scope.is_empty() {
                *of_scopes.entry((scope.clone(), key.0)).or_default() += beyond;
            }
            *more.entry((key.0, provider)).or_default() += beyond;
        }
    }
    add(change, day, more).await?;
    Ok(of_scopes)
}

fn step_key<'a>(record: &Record, step: &'a StepRecord) -> StepKey<'a> {
    (record.run.0, record.item.number.0, record.session, step.step.as_str())
}

/// Returns the recorded spend of those steps that have a record.
async fn recorded<'a>(
    change: &mut SqliteConnection,
    priced: &[StepCost<'a>],
) -> Result<HashMap<StepKey<'a>, ByProvider>, sqlx::Error> {
    let mut known = HashMap::new();
    let mut rest = priced;
    while let Some(size) = CHUNKS.into_iter().find(|size| *size <= rest.len()) {
        let (now, later) = rest.split_at(size);
        let columns = "run, item, session, step";
        let mut query = QueryBuilder::<Driver>::new(format!("SELECT {columns}, attempts FROM steps WHERE "));
        query.push(format!("({columns}) IN ("));
        query.push_values(now, |mut to, StepCost { key: (run, item, session, step), .. }| {
            to.push_bind(*run).push_bind(*item).push_bind(*session).push_bind((*step).to_owned());
        });
        query.push(")");
        for row in query.build().fetch_all(&mut *change).await? {
            let found = (row.try_get("run")?, row.try_get("item")?, row.try_get("session")?);
            let step: &str = row.try_get("step")?;
            let is_it =
                |StepCost { key, .. }: &&StepCost<'a>| (key.0, key.1, key.2) == found && key.3 == step;
            // A damaged row is reported when it is read. Its cost is then added a second time.
            let attempts: AttemptLog = serde_json::from_str(row.try_get("attempts")?).unwrap_or_default();
            if let Some(StepCost { key, .. }) = now.iter().find(is_it) {
                known.insert(*key, Spend::by_provider(&attempts));
            }
        }
        rest = later;
    }
    Ok(known)
}

async fn add(
    change: &mut SqliteConnection,
    day: Day,
    more: BTreeMap<(i64, ProviderName), Spend>,
) -> Result<(), RowError> {
    let query = "INSERT OR REPLACE INTO spending (day, provider, run, cost, uncertain_cost, checksum) \
                 VALUES (?, ?, ?, ?, ?, ?)";
    for ((run, provider), booked) in more {
        if booked == Spend::default() {
            continue;
        }
        let found = "SELECT * FROM spending WHERE day = ? AND provider = ? AND run = ?";
        let found = sqlx::query(found).bind(day.0).bind(provider.as_str()).bind(run);
        let found = found.fetch_optional(&mut *change).await?;
        let before = found.as_ref().map(SpendingRow::read).transpose()?;
        let (cost, uncertain_cost) = before.map_or((0, 0), |before| (before.cost, before.uncertain_cost));
        let sum =
            |before: i64, more: NanoUsd| before.saturating_add(i64::try_from(more.0).unwrap_or(i64::MAX));
        let row = SpendingRow {
            day: day.0,
            provider: provider.as_str().to_owned(),
            run,
            cost: sum(cost, booked.cost),
            uncertain_cost: sum(uncertain_cost, booked.uncertain_cost),
        };
        let query = sqlx::query(query).bind(row.day).bind(&row.provider).bind(run);
        query.bind(row.cost).bind(row.uncertain_cost).bind(row.checksum()).execute(&mut *change).await?;
    }
    Ok(())
}

/// A row of `spending`.
pub(super) struct SpendingRow {
    pub(super) day: i64,
    pub(super) provider: String,
    pub(super) run: i64,
    pub(super) cost: i64,
    pub(super) uncertain_cost: i64,
}

impl SpendingRow {
    /// Reads a row without verifying its checksum.
    fn of(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            day: row.try_get("day")?,
            provider: row.try_get("provider")?,
            run: row.try_get("run")?,
            cost: row.try_get("cost")?,
            uncertain_cost: row.try_get("uncertain_cost")?,
        })
    }

    /// Reads a row and verifies its checksum.
    pub(super) fn read(row: &SqliteRow) -> Result<Self, RowError> {
        let read = Self::of(row)?;
        if read.checksum() == row.try_get::<i64, _>("checksum")? { Ok(read) } else { Err(RowError::Checksum) }
    }

    fn checksum(&self) -> i64 {
        let mut sum = RowChecksum::default();
        sum.numbers(&[self.day, self.run, self.cost, self.uncertain_cost]);
        sum.text(Some(&self.provider));
        sum.finish()
    }
}

/// Adds checksums to the rows of an earlier version.
pub(super) async fn add_checksums(change: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    let query = "UPDATE spending SET checksum = ? WHERE day = ? AND provider = ? AND run = ?";
    for row in sqlx::query("SELECT * FROM spending").fetch_all(&mut *change).await? {
        let row = SpendingRow::of(&row)?;
        let query = sqlx::query(query).bind(row.checksum()).bind(row.day).bind(&row.provider).bind(row.run);
        query.execute(&mut *change).await?;
    }
    Ok(())
}

impl Sqlite {
    pub(super) async fn booked_on(&self, day: Day) -> Result<ByProvider, Error> {
        self.booked("day", day.0).await
    }

    pub(super) async fn booked_by(&self, run: RunNumber) -> Result<ByProvider, Error> {
        self.booked("run", run.0).await
    }

    async fn booked(&self, column: &'static str, is: i64) -> Result<ByProvider, Error> {
        let mut query = QueryBuilder::<Driver>::new("SELECT * FROM spending WHERE ");
        query.push(column).push(" = ").push_bind(is);
        let rows = query.build().fetch_all(&self.readers).await.map_err(|error| self.unread(&error))?;
        let mut sums = ByProvider::new();
        for row in rows {
            let row = SpendingRow::read(&row).map_err(|error| self.spending_error(&error))?;
            let amount = |money: i64| NanoUsd(u64::try_from(money).unwrap_or(0));
            let booked = Spend { cost: amount(row.cost), uncertain_cost: amount(row.uncertain_cost) };
            *sums.entry(ProviderName::from(row.provider.as_str())).or_default() += booked;
        }
        Ok(sums)
    }

    pub(super) async fn book_more(
        &self,
        run: RunNumber,
        scope: &ScopeName,
        day: Day,
        spent: &ByProvider,
    ) -> Result<(), Error> {
        let failed = |error: sqlx::Error| self.unwritten(&error);
        let of_scope = ByScope::from([((scope.clone(), run.0), spent.values().copied().sum())]);
        let more = spent.iter().map(|(provider, booked)| ((run.0, provider.clone()), *booked)).collect();
        let mut writer = self.writer().await?;
        // An immediate transaction: it reads before it writes, and no other process may write in between.
        let mut change = Connection::begin_with(&mut *writer, "BEGIN IMMEDIATE").await.map_err(failed)?;
        add(&mut change, day, more).await.map_err(|error| self.spending_error(&error))?;
        let added = add_to_scopes(&mut change, day, of_scope).await;
        added.map_err(|error| self.scope_spending_error(&error))?;
        change.commit().await.map_err(failed)
    }

    /// Returns the error of a row of `spending`, or of the table.
    pub(super) fn spending_error(&self, error: &RowError) -> Error {
        match error {
            RowError::Column(error) => self.unwritten(error),
            RowError::Json(_) | RowError::Checksum | RowError::Word(_) => {
                self.damaged(format!("a row of spending: {error}"))
            }
        }
    }
}
