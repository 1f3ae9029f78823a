//! Reads items with their steps.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, QueryBuilder, Row, Sqlite as Driver};

use crate::store::error::Error;
use crate::store::record::{ItemNumber, StepState, StoredItem, StoredStep};
use crate::store::run::{RunNumber, RunTotals};
use crate::types::{ItemKey, MAX_CREDIBLE_TOKENS, NanoUsd, StepName, Tokens, Usage, UsageTotals};

use super::database::Sqlite;
use super::row::{self, RowError};

/// The totals of a run's steps. Rows of earlier versions may contain impossible counts. `sum` fails if its result
/// overflows; `total` does not, and is exact below 2^53.
static SUMS: LazyLock<String> = LazyLock::new(|| {
    let numbers = [
        "calls",
        "possibly_charged",
        "input",
        "cached",
        "cache_write",
        "output",
        "reasoning",
        "unknown_cost",
    ];
    let columns = numbers.map(|column| (column, MAX_CREDIBLE_TOKENS.0));
    let columns = columns.into_iter().chain([("cost", NanoUsd::MAX_CREDIBLE_COST.0)]);
    let totals =
        columns.map(|(column, most)| format!("CAST(total(min({column}, {most})) AS INTEGER) AS {column}"));
    format!("SELECT {} FROM steps WHERE run = ?", totals.collect::<Vec<_>>().join(", "))
});

impl Sqlite {
    pub(super) async fn items_of(
        &self,
        run: RunNumber,
        keys: &[ItemKey],
    ) -> Result<Vec<Option<StoredItem>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        // Without the hint SQLite would scan the whole run.
        let mut query = QueryBuilder::<Driver>::new("SELECT * FROM items INDEXED BY items_key WHERE run = ");
        query.push_bind(run.0).push(" AND key IN (");
        let mut list = query.separated(", ");
        for key in keys {
            list.push_bind(key.as_str().to_owned());
        }
        query.push(")");
        let mut reading = self.readers.acquire().await.map_err(|error| self.unread(&error))?;
        let rows = query.build().fetch_all(&mut *reading).await.map_err(|error| self.unread(&error))?;
        drop(reading);
        let items = self.with_steps(run, rows).await?;
        let mut items: HashMap<ItemKey, StoredItem> =
            items.into_iter().map(|item| (item.head.key.clone(), item)).collect();
        Ok(keys.iter().map(|key| items.remove(key)).collect())
    }

    pub(super) async fn items_after(
        &self,
        run: RunNumber,
        after: ItemNumber,
        max: u32,
    ) -> Result<Vec<StoredItem>, Error> {
        let query = "SELECT * FROM items WHERE run = ? AND item > ? ORDER BY item LIMIT ?";
        let query = sqlx::query(query).bind(run.0).bind(after.0).bind(max);
        let rows = query.fetch_all(&self.readers).await.map_err(|error| self.unread(&error))?;
        self.with_steps(run, rows).await
    }

    pub(super) async fn failed_after(
        &self,
        run: RunNumber,
        after: ItemNumber,
        max: u32,
    ) -> Result<Vec<StoredItem>, Error> {
        let query = "SELECT * FROM items INDEXED BY items_failed WHERE run = ? AND item > ? AND state = 'failed' \
                     ORDER BY item LIMIT ?";
        let query = sqlx::query(query).bind(run.0).bind(after.0).bind(max);
        let rows = query.fetch_all(&self.readers).await.map_err(|error| self.unread(&error))?;
        self.with_steps(run, rows).await
    }

    /// Reads rows of `items`, and the steps of each.
    async fn with_steps(&self, run: RunNumber, rows: Vec<SqliteRow>) -> Result<Vec<StoredItem>, Error> {
        let mut items = Vec::with_capacity(rows.len());
        for row in &rows {
            let (head, outcome) = row::item(row).map_err(|error| self.row_error(run, row, &error))?;
            items.push(StoredItem { head, outcome, steps: Vec::new() });
        }
        let mut steps = self.steps_of(run, &items).await?;
        for item in &mut items {
            item.steps = steps.remove(&item.head.number).unwrap_or_default();
            let number = item.head.number;
            restore_answers(&mut item.steps)
                .map_err(|what| self.damaged(format!("item {number} of run {run}: {what}")))?;
            if let Some(outcome) = item.outcome.as_mut().filter(|outcome| outcome.session.is_none()) {
                outcome.session = sole_session(&item.steps);
            }
        }
        Ok(items)
    }

    async fn steps_of(
        &self,
        run: RunNumber,
        items: &[StoredItem],
    ) -> Result<HashMap<ItemNumber, Vec<StoredStep>>, Error> {
        let mut steps: HashMap<ItemNumber, Vec<StoredStep>> = HashMap::with_capacity(items.len());
        if items.is_empty() {
            return Ok(steps);
        }
        let mut query = QueryBuilder::<Driver>::new("SELECT * FROM steps WHERE run = ");
        query.push_bind(run.0).push(" AND item IN (");
        let mut list = query.separated(", ");
        for item in items {
            list.push_bind(item.head.number.0);
        }
        // Not ordered in SQL: to avoid a sort SQLite would scan the whole run.
        query.push(")");
        let mut reading = self.readers.acquire().await.map_err(|error| self.unread(&error))?;
        let rows = query.build().fetch_all(&mut *reading).await.map_err(|error| self.unread(&error))?;
        let mut read = Vec::with_capacity(rows.len());
        for row in &rows {
            let session: i64 = row.try_get("session").map_err(|error| self.unread(&error))?;
            let (item, record) = row::step(row).map_err(|error| self.row_error(run, row, &error))?;
            let answered_by = match record.state {
                StepState::Answered => record.answered_by().cloned(),
                StepState::Failed | StepState::Skipped | StepState::Open => None,
            };
            read.push((item, StoredStep { session, record, answered_by }));
        }
        read.sort_by_key(|(_, step)| step.session);
        for (item, step) in read {
            steps.entry(item).or_default().push(step);
        }
        Ok(steps)
    }

    pub(super) async fn totals_of(&self, run: RunNumber) -> Result<RunTotals, Error> {
        let query = "SELECT state, count(*) AS items FROM items WHERE run = ? GROUP BY state";
        let rows = sqlx::query(query).bind(run.0).fetch_all(&self.readers).await;
        let mut totals = self.by_state(run, &rows.map_err(|error| self.unread(&error))?)?;
        let row = sqlx::query(AssertSqlSafe(SUMS.as_str())).bind(run.0).fetch_one(&self.readers).await;
        totals.usage = row.and_then(|row| spent(&row)).map_err(|error| self.unread(&error))?;
        Ok(totals)
    }

    pub(super) async fn counts_of(&self, run: RunNumber, groups: &[(i64, i64)]) -> Result<RunTotals, Error> {
        // A cross join keeps its order: one index search per range.
        let query = "SELECT state, count(*) AS items FROM json_each(?) AS part CROSS JOIN items WHERE run = ? AND item \
                     BETWEEN json_extract(part.value, '$[0]') AND json_extract(part.value, '$[1]') GROUP BY state";
        let groups = serde_json::json!(groups).to_string();
        let rows = sqlx::query(query).bind(groups).bind(run.0).fetch_all(&self.readers).await;
        self.by_state(run, &rows.map_err(|error| self.unread(&error))?)
    }

    fn by_state(&self, run: RunNumber, rows: &[SqliteRow]) -> Result<RunTotals, Error> {
        let mut totals = RunTotals::default();
        for row in rows {
            let read = || Ok((row.try_get::<&str, _>("state")?, row.try_get::<i64, _>("items")? as u64));
            let (state, items) = read().map_err(|error| self.unread(&error))?;
            match state {
                "completed" => totals.completed = items,
                "failed" => totals.failed = items,
                "skipped" => totals.skipped = items,
                "open" => totals.open = items,
                other => return Err(self.damaged(format!("items of run {run} are {other:?}"))),
            }
        }
        Ok(totals)
    }

    pub(super) async fn answers_of(&self, run: RunNumber) -> Result<BTreeMap<StepName, u64>, Error> {
        let query = "SELECT step, count(DISTINCT item) AS items FROM steps \
                     WHERE run = ? AND state = 'answered' GROUP BY step";
        let rows = sqlx::query(query).bind(run.0).fetch_all(&self.readers).await;
        let count = |row: &SqliteRow| {
            Ok((row.try_get::<&str, _>("step")?.into(), row.try_get::<i64, _>("items")? as u64))
        };
        let counts = rows.and_then(|rows| rows.iter().map(count).collect());
        counts.map_err(|error| self.unread(&error))
    }

    /// Returns an error that names the row.
    fn row_error(&self, run: RunNumber, row: &SqliteRow, error: &RowError) -> Error {
        let item = row.try_get::<i64, _>("item").unwrap_or(0);
        self.damaged(format!("item {item} of run {run}: {error}"))
    }
}

/// Copies restored answers from the records of the sessions that have them.
fn restore_answers(steps: &mut [StoredStep]) -> Result<(), String> {
    for at in 0..steps.len() {
        let StoredStep { record, .. } = &steps[at];
        let Some(session) = record.restored_from else { continue };
        let is_it = |step: &&StoredStep| {
            step.session == session
                && step.record.step == record.step
                && step.record.restored_from.is_none()
                && step.record.state == StepState::Answered
        };
        let Some(original) = steps.iter().find(is_it) else {
            return Err(format!("the answer of step {} of session {session} is missing", record.step));
        };
        let answer = original.record.answer.clone();
        let answered_by = original.answered_by.clone();
        steps[at].record.answer = answer;
        steps[at].answered_by = answered_by;
    }
    Ok(())
}

/// Returns the session of all these records, if it is the same.
fn sole_session(steps: &[StoredStep]) -> Option<i64> {
    let first = steps.first()?.session;
    steps.iter().all(|step| step.session == first).then_some(first)
}

fn spent(row: &SqliteRow) -> Result<UsageTotals, sqlx::Error> {
    let sum = |column: &str| -> Result<u64, sqlx::Error> {
        Ok(row.try_get::<Option<i64>, _>(column)?.unwrap_or(0) as u64)
    };
    let tokens = Usage {
        input: Tokens(sum("input")?),
        cached: Tokens(sum("cached")?),
        cache_write: Tokens(sum("cache_write")?),
        // The sums do not distinguish it; the attempts of each step do.
        cache_write_1h: Tokens(0),
        output: Tokens(sum("output")?),
        reasoning: Tokens(sum("reasoning")?),
    };
    Ok(UsageTotals {
        calls: sum("calls")?,
        possibly_charged: sum("possibly_charged")?,
        tokens,
        cost: NanoUsd(sum("cost")?),
        calls_of_unknown_cost: sum("unknown_cost")?,
    })
}
