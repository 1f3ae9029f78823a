//! Writes records, many rows a statement: that is what makes a commit of a thousand cheap.

use sqlx::{Connection, QueryBuilder, Sqlite as Driver, SqliteConnection};

use crate::chaos;
use crate::store::error::Error;
use crate::store::record::Record;
use crate::types::Day;

use super::Sqlite;
use super::row::{ItemRow, StepRow};
use super::spending::book_records;

/// Rows of a statement, largest first. Few sizes, so that each is prepared once.
pub(super) const CHUNKS: [usize; 3] = [32, 8, 1];

/// A row that is there already is replaced: a record says everything that its session knows. What has failed and is
/// asked again has failed until it settles anew.
const REPLACE_ITEM: &str = " ON CONFLICT (run, item) DO UPDATE SET key = excluded.key, \
    content = excluded.content, line = excluded.line, input = excluded.input, state = excluded.state, \
    edition = excluded.edition, step = excluded.step, failure = excluded.failure, took = excluded.took, \
    lives = excluded.lives, seal = excluded.seal \
    WHERE excluded.state <> 'open' OR items.state <> 'failed' OR items.content <> excluded.content";

const REPLACE_STEP: &str = " ON CONFLICT (run, item, session, step) DO UPDATE SET state = excluded.state, \
    shaped = excluded.shaped, answer = excluded.answer, failure = excluded.failure, \
    practice = excluded.practice, trail = excluded.trail, calls = excluded.calls, maybe = excluded.maybe, \
    input = excluded.input, cached = excluded.cached, written = excluded.written, output = excluded.output, \
    reasoned = excluded.reasoned, cost = excluded.cost, unknown = excluded.unknown, seal = excluded.seal";

impl Sqlite {
    pub(super) async fn write_records(&self, records: &[Record], day: Day) -> Result<(), Error> {
        // Before the lock: turning answers to text is most of the work.
        let unfit = |error: serde_json::Error| self.unwritten(&sqlx::Error::Encode(Box::new(error)));
        let items: Vec<_> = records.iter().map(ItemRow::of).collect::<Result<_, _>>().map_err(unfit)?;
        let steps = records.iter().flat_map(|record| record.steps.iter().map(move |step| (record, step)));
        let steps: Vec<_> =
            steps.map(|(record, step)| StepRow::of(record, step)).collect::<Result<_, _>>().map_err(unfit)?;
        let failed = |error: sqlx::Error| self.unwritten(&error);
        let mut writer = self.writer().await;
        // At once: it reads before it writes, and must not find then that another process has written meanwhile.
        let begun = Connection::begin_with(&mut *writer, "BEGIN IMMEDIATE").await;
        let mut change = begun.map_err(failed)?;
        chaos::point("store.write");
        book_records(&mut change, records, day).await.map_err(failed)?;
        insert(&mut change, &items, push_items).await.map_err(failed)?;
        insert(&mut change, &steps, push_steps).await.map_err(failed)?;
        chaos::point("store.commit");
        self.place.holds(&self.path).map_err(|error| self.lost(&error))?;
        change.commit().await.map_err(failed)
    }
}

async fn insert<T>(
    change: &mut SqliteConnection,
    mut rows: &[T],
    push: impl for<'a> Fn(&'a [T]) -> QueryBuilder<Driver>,
) -> Result<(), sqlx::Error> {
    while let Some(size) = CHUNKS.into_iter().find(|size| *size <= rows.len()) {
        let (now, later) = rows.split_at(size);
        push(now).build().execute(&mut *change).await?;
        rows = later;
    }
    Ok(())
}

fn push_items(rows: &[ItemRow<'_>]) -> QueryBuilder<Driver> {
    let columns = "run, item, key, content, line, input, state, edition, step, failure, took, lives, seal";
    let mut query = QueryBuilder::new(format!("INSERT INTO items ({columns}) "));
    query.push_values(rows, |mut to, row| {
        to.push_bind(row.run)
            .push_bind(row.head.number.0)
            .push_bind(row.head.key.as_str().to_owned())
            .push_bind(row.head.content.0.to_vec())
            .push_bind(row.head.line as i64)
            .push_bind(row.head.input.as_deref().map(str::to_owned))
            .push_bind(row.state.to_owned())
            .push_bind(row.edition)
            .push_bind(row.step.map(str::to_owned))
            .push_bind(row.failure.as_deref().map(str::to_owned))
            .push_bind(row.took)
            .push_bind(row.lives)
            .push_bind(row.seal());
    });
    query.push(REPLACE_ITEM);
    query
}

fn push_steps(rows: &[StepRow<'_>]) -> QueryBuilder<Driver> {
    let columns = "run, item, session, step, state, shaped, answer, failure, practice, trail, calls, maybe, \
                   input, cached, written, output, reasoned, cost, unknown, seal";
    let mut query = QueryBuilder::new(format!("INSERT INTO steps ({columns}) "));
    query.push_values(rows, |mut to, row| {
        to.push_bind(row.run)
            .push_bind(row.item.0)
            .push_bind(row.session)
            .push_bind(row.step.to_owned())
            .push_bind(row.state.as_str())
            .push_bind(row.shaped.map(|shaped| shaped.0.to_vec()))
            .push_bind(row.answer.as_deref().map(str::to_owned))
            .push_bind(row.failure.as_deref().map(str::to_owned))
            .push_bind(row.practice)
            .push_bind(row.trail.to_string());
        for number in row.numbers() {
            to.push_bind(number);
        }
        to.push_bind(row.seal());
    });
    query.push(REPLACE_STEP);
    query
}
