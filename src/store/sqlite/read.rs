//! Reads items with their steps.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, QueryBuilder, Row, Sqlite as Driver};

use crate::store::error::Error;
use crate::store::record::{ItemNumber, KnownItem, KnownStep, StepState};
use crate::store::run::{RunNumber, Sums};
use crate::types::{ItemKey, MAX_CREDIBLE_TOKENS, NanoUsd, Spent, StepName, Tokens, Usage};

use super::Sqlite;
use super::row::{self, Odd};

/// Sums of what the steps of a run took. Rows of earlier versions can have counts that no model has. `sum` fails where
/// its result is too large for a column, and `total` does not; it is exact below 2^53.
static SUMS: LazyLock<String> = LazyLock::new(|| {
    let numbers = ["calls", "maybe", "input", "cached", "written", "output", "reasoned", "unknown"];
    let columns = numbers.map(|column| (column, MAX_CREDIBLE_TOKENS.0));
    let columns = columns.into_iter().chain([("cost", NanoUsd::MAX_CREDIBLE_COST.0)]);
    let sums =
        columns.map(|(column, most)| format!("CAST(total(min({column}, {most})) AS INTEGER) AS {column}"));
    format!("SELECT {} FROM steps WHERE run = ?", sums.collect::<Vec<_>>().join(", "))
});

impl Sqlite {
    pub(super) async fn items_of(
        &self,
        run: RunNumber,
        keys: &[ItemKey],
    ) -> Result<Vec<Option<KnownItem>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        // Left to itself SQLite looks through the whole run for them.
        let mut query = QueryBuilder::<Driver>::new("SELECT * FROM items INDEXED BY items_key WHERE run = ");
        query.push_bind(run.0).push(" AND key IN (");
        let mut places = query.separated(", ");
        for key in keys {
            places.push_bind(key.as_str().to_owned());
        }
        query.push(")");
        let mut reading = self.readers.acquire().await.map_err(|error| self.unread(&error))?;
        let rows = query.build().fetch_all(&mut *reading).await.map_err(|error| self.unread(&error))?;
        drop(reading);
        let known = self.with_steps(run, rows).await?;
        let mut known: HashMap<ItemKey, KnownItem> =
            known.into_iter().map(|item| (item.head.key.clone(), item)).collect();
        Ok(keys.iter().map(|key| known.remove(key)).collect())
    }

    pub(super) async fn items_after(
        &self,
        run: RunNumber,
        after: ItemNumber,
        most: u32,
    ) -> Result<Vec<KnownItem>, Error> {
        let query = "SELECT * FROM items WHERE run = ? AND item > ? ORDER BY item LIMIT ?";
        let query = sqlx::query(query).bind(run.0).bind(after.0).bind(most);
        let rows = query.fetch_all(&self.readers).await.map_err(|error| self.unread(&error))?;
        self.with_steps(run, rows).await
    }

    pub(super) async fn failed_after(
        &self,
        run: RunNumber,
        after: ItemNumber,
        most: u32,
    ) -> Result<Vec<KnownItem>, Error> {
        let query = "SELECT * FROM items INDEXED BY items_failed WHERE run = ? AND item > ? AND state = 'failed' \
                     ORDER BY item LIMIT ?";
        let query = sqlx::query(query).bind(run.0).bind(after.0).bind(most);
        let rows = query.fetch_all(&self.readers).await.map_err(|error| self.unread(&error))?;
        self.with_steps(run, rows).await
    }

    /// Reads these rows of `items`, and the steps of each.
    async fn with_steps(&self, run: RunNumber, rows: Vec<SqliteRow>) -> Result<Vec<KnownItem>, Error> {
        let mut items = Vec::with_capacity(rows.len());
        for row in &rows {
            let (head, settled) = row::item(row).map_err(|odd| self.odd(run, row, &odd))?;
            items.push(KnownItem { head, settled, steps: Vec::new() });
        }
        let mut steps = self.steps_of(run, &items).await?;
        for item in &mut items {
            item.steps = steps.remove(&item.head.number).unwrap_or_default();
            let number = item.head.number;
            recall(&mut item.steps)
                .map_err(|what| self.damaged(format!("item {number} of run {run}: {what}")))?;
            if let Some(settled) = item.settled.as_mut().filter(|settled| settled.session.is_none()) {
                settled.session = sole_session(&item.steps);
            }
        }
        Ok(items)
    }

    async fn steps_of(
        &self,
        run: RunNumber,
        items: &[KnownItem],
    ) -> Result<HashMap<ItemNumber, Vec<KnownStep>>, Error> {
        let mut steps: HashMap<ItemNumber, Vec<KnownStep>> = HashMap::with_capacity(items.len());
        if items.is_empty() {
            return Ok(steps);
        }
        let mut query = QueryBuilder::<Driver>::new("SELECT * FROM steps WHERE run = ");
        query.push_bind(run.0).push(" AND item IN (");
        let mut places = query.separated(", ");
        for item in items {
            places.push_bind(item.head.number.0);
        }
        // Not ordered here: to save itself the sorting SQLite would walk through the whole run.
        query.push(")");
        let mut reading = self.readers.acquire().await.map_err(|error| self.unread(&error))?;
        let rows = query.build().fetch_all(&mut *reading).await.map_err(|error| self.unread(&error))?;
        let mut read = Vec::with_capacity(rows.len());
        for row in &rows {
            let session: i64 = row.try_get("session").map_err(|error| self.unread(&error))?;
            let (item, record) = row::step(row).map_err(|odd| self.odd(run, row, &odd))?;
            let answered_by = match record.state {
                StepState::Answered => record.trail.answering().cloned(),
                StepState::Failed | StepState::Skipped | StepState::Open => None,
            };
            read.push((item, KnownStep { session, record, answered_by }));
        }
        read.sort_by_key(|(_, step)| step.session);
        for (item, step) in read {
            steps.entry(item).or_default().push(step);
        }
        Ok(steps)
    }

    pub(super) async fn sums_of(&self, run: RunNumber) -> Result<Sums, Error> {
        let query = "SELECT state, count(*) AS items FROM items WHERE run = ? GROUP BY state";
        let rows = sqlx::query(query).bind(run.0).fetch_all(&self.readers).await;
        let mut sums = self.by_state(run, &rows.map_err(|error| self.unread(&error))?)?;
        let row = sqlx::query(AssertSqlSafe(SUMS.as_str())).bind(run.0).fetch_one(&self.readers).await;
        sums.spent = row.and_then(|row| spent(&row)).map_err(|error| self.unread(&error))?;
        Ok(sums)
    }

    pub(super) async fn counts_of(&self, run: RunNumber, groups: &[(i64, i64)]) -> Result<Sums, Error> {
        // A cross join keeps its order: a search of the items for each group.
        let query = "SELECT state, count(*) AS items FROM json_each(?) AS part CROSS JOIN items WHERE run = ? AND item \
                     BETWEEN json_extract(part.value, '$[0]') AND json_extract(part.value, '$[1]') GROUP BY state";
        let groups = serde_json::json!(groups).to_string();
        let rows = sqlx::query(query).bind(groups).bind(run.0).fetch_all(&self.readers).await;
        self.by_state(run, &rows.map_err(|error| self.unread(&error))?)
    }

    fn by_state(&self, run: RunNumber, rows: &[SqliteRow]) -> Result<Sums, Error> {
        let mut sums = Sums::default();
        for row in rows {
            let read = || Ok((row.try_get::<&str, _>("state")?, row.try_get::<i64, _>("items")? as u64));
            let (state, items) = read().map_err(|error| self.unread(&error))?;
            match state {
                "completed" => sums.completed = items,
                "failed" => sums.failed = items,
                "skipped" => sums.skipped = items,
                "open" => sums.open = items,
                other => return Err(self.damaged(format!("items of run {run} are {other:?}"))),
            }
        }
        Ok(sums)
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

    /// Says which row is odd.
    fn odd(&self, run: RunNumber, row: &SqliteRow, odd: &Odd) -> Error {
        let item = row.try_get::<i64, _>("item").unwrap_or(0);
        self.damaged(format!("item {item} of run {run}: {odd}"))
    }
}

/// Gives each record whose answer was recalled the answer, from the session that has it.
fn recall(steps: &mut [KnownStep]) -> Result<(), String> {
    for at in 0..steps.len() {
        let KnownStep { record, .. } = &steps[at];
        let Some(session) = record.recalled else { continue };
        let is_it = |step: &&KnownStep| {
            step.session == session
                && step.record.step == record.step
                && step.record.recalled.is_none()
                && step.record.state == StepState::Answered
        };
        let Some(original) = steps.iter().find(is_it) else {
            return Err(format!("the answer of step {} that session {session} had is gone", record.step));
        };
        let answer = original.record.answer.clone();
        let answered_by = original.answered_by.clone();
        steps[at].record.answer = answer;
        steps[at].answered_by = answered_by;
    }
    Ok(())
}

/// Returns the session that wrote all of these records, if one did.
fn sole_session(steps: &[KnownStep]) -> Option<i64> {
    let first = steps.first()?.session;
    steps.iter().all(|step| step.session == first).then_some(first)
}

fn spent(row: &SqliteRow) -> Result<Spent, sqlx::Error> {
    let sum = |column: &str| -> Result<u64, sqlx::Error> {
        Ok(row.try_get::<Option<i64>, _>(column)?.unwrap_or(0) as u64)
    };
    let tokens = Usage {
        input: Tokens(sum("input")?),
        cached: Tokens(sum("cached")?),
        cache_write: Tokens(sum("written")?),
        output: Tokens(sum("output")?),
        reasoning: Tokens(sum("reasoned")?),
    };
    Ok(Spent {
        calls: sum("calls")?,
        maybe_charged: sum("maybe")?,
        tokens,
        cost: NanoUsd(sum("cost")?),
        unknown: sum("unknown")?,
    })
}
