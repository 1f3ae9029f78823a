//! Writes records, many rows per statement, which makes a commit of a thousand records cheap.

use std::sync::{Arc, LazyLock};

use sqlx::error::BoxDynError;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, Connection, SqliteConnection};

use crate::chaos;
use crate::store::error::Error;
use crate::store::record::Record;
use crate::types::Day;

use super::answers::{AnswerChanges, AnswerRow, hour};
use super::chunks::CHUNKS;
use super::database::Sqlite;
use super::row::{ItemRow, StepRow};
use super::scope_spending::add_to_scopes;
use super::spending::add_records;

/// Replaces an existing row: a record contains everything that its session recorded. An item that has finished and is
/// processed again keeps its row until it finishes again, so that no line is lost if the session ends before that.
const REPLACE_ITEM: &str = " ON CONFLICT (run, item) DO UPDATE SET key = excluded.key, \
    content = excluded.content, line = excluded.line, input = excluded.input, state = excluded.state, \
    revision = excluded.revision, step = excluded.step, failure = excluded.failure, \
    duration_us = excluded.duration_us, incarnations = excluded.incarnations, session = excluded.session, \
    checksum = excluded.checksum \
    WHERE excluded.state <> 'open' OR items.state = 'open'";

const REPLACE_STEP: &str = " ON CONFLICT (run, item, session, step) DO UPDATE SET state = excluded.state, \
    answer_key = excluded.answer_key, answer = excluded.answer, failure = excluded.failure, \
    simulated = excluded.simulated, attempts = excluded.attempts, restored_from = excluded.restored_from, \
    files = excluded.files, calls = excluded.calls, possibly_charged = excluded.possibly_charged, \
    input = excluded.input, cached = excluded.cached, cache_write = excluded.cache_write, \
    output = excluded.output, reasoning = excluded.reasoning, cost = excluded.cost, \
    unknown_cost = excluded.unknown_cost, reused = excluded.reused, checksum = excluded.checksum";

/// A later answer to the same request takes the place of the earlier one. Its uses stay.
const REPLACE_ANSWER: &str = " ON CONFLICT (key) DO UPDATE SET run = excluded.run, target = excluded.target, \
    simulated = excluded.simulated, created_at = excluded.created_at, last_used_at = excluded.last_used_at, \
    cost = excluded.cost, bytes = excluded.bytes, checksum = excluded.checksum, attempt = excluded.attempt, \
    answer = excluded.answer";

impl Sqlite {
    pub(super) async fn write_records(&self, records: &[Record], now: i64) -> Result<(), Error> {
        let day = Day::at(now);
        // Before the lock: serializing answers is most of the work.
        let unfit = |error: serde_json::Error| self.unwritten(&sqlx::Error::Encode(Box::new(error)));
        let items: Vec<_> = records.iter().map(ItemRow::of).collect::<Result<_, _>>().map_err(unfit)?;
        let steps = records.iter().flat_map(|record| record.steps.iter().map(move |step| (record, step)));
        let steps: Vec<_> =
            steps.map(|(record, step)| StepRow::of(record, step)).collect::<Result<_, _>>().map_err(unfit)?;
        let answers = AnswerChanges::of(records, now).map_err(unfit)?;
        let failed = |error: sqlx::Error| self.unwritten(&error);
        let mut writer = self.writer().await?;
        // An immediate transaction: it reads before it writes, and no other process may write in between.
        let begun = Connection::begin_with(&mut *writer, "BEGIN IMMEDIATE").await;
        let mut change = begun.map_err(failed)?;
        chaos::point("store.write");
        let of_scopes = add_records(&mut change, records, day).await;
        let of_scopes = of_scopes.map_err(|error| self.spending_error(&error))?;
        let added = add_to_scopes(&mut change, day, of_scopes).await;
        added.map_err(|error| self.scope_spending_error(&error))?;
        insert(&mut change, items).await.map_err(failed)?;
        insert(&mut change, steps).await.map_err(failed)?;
        answers.write_uses(&mut change, now).await.map_err(failed)?;
        insert(&mut change, answers.new).await.map_err(failed)?;
        chaos::point("store.commit");
        self.identity.verify(&self.path).map_err(|error| self.lost(&error))?;
        change.commit().await.map_err(failed)
    }
}

/// A row that can be written.
trait Writable {
    /// Returns the statement for each size in [`CHUNKS`].
    fn statements() -> &'static Statements;

    /// Binds the values of its columns.
    fn bind(self, to: &mut SqliteArguments) -> Result<(), BoxDynError>;
}

/// Statements for one table. Their texts are long and constant.
struct Statements {
    texts: [Arc<str>; CHUNKS.len()],
    columns: usize,
}

impl Statements {
    fn new(table: &str, columns: &str, replace: &str) -> Self {
        let number = columns.split(',').count();
        let row = format!("({})", vec!["?"; number].join(", "));
        let text = |size: usize| {
            let rows = vec![row.as_str(); size].join(", ");
            format!("INSERT INTO {table} ({columns}) VALUES {rows}{replace}").into()
        };
        Self { texts: CHUNKS.map(text), columns: number }
    }
}

/// Writes rows in order: a later row may replace an earlier one.
async fn insert<T: Writable>(change: &mut SqliteConnection, rows: Vec<T>) -> Result<(), sqlx::Error> {
    let statements = T::statements();
    let mut rows = rows.into_iter();
    for (size, text) in CHUNKS.into_iter().zip(&statements.texts) {
        while size <= rows.len() {
            let mut values = SqliteArguments::default();
            values.reserve(size * statements.columns, 0);
            for row in rows.by_ref().take(size) {
                row.bind(&mut values).map_err(sqlx::Error::Encode)?;
            }
            sqlx::query_with(AssertSqlSafe(text.clone()), values).execute(&mut *change).await?;
        }
    }
    Ok(())
}

impl Writable for ItemRow<'_> {
    fn statements() -> &'static Statements {
        const COLUMNS: &str = "run, item, key, content, line, input, state, revision, step, failure, duration_us, incarnations, \
             session, checksum";
        static STATEMENTS: LazyLock<Statements> =
            LazyLock::new(|| Statements::new("items", COLUMNS, REPLACE_ITEM));
        &STATEMENTS
    }

    fn bind(self, to: &mut SqliteArguments) -> Result<(), BoxDynError> {
        let checksum = self.checksum();
        to.add(self.run)?;
        to.add(self.head.number.0)?;
        to.add(self.head.key.as_str())?;
        to.add(self.head.content.0.as_slice())?;
        to.add(self.head.line as i64)?;
        to.add(self.head.input.clone())?;
        to.add(self.state)?;
        to.add(self.revision)?;
        to.add(self.step)?;
        to.add(self.failure.map(String::from))?;
        to.add(self.duration_us)?;
        to.add(self.incarnations)?;
        to.add(self.session)?;
        to.add(checksum)
    }
}

impl Writable for StepRow<'_> {
    fn statements() -> &'static Statements {
        const COLUMNS: &str = "run, item, session, step, state, answer_key, answer, failure, simulated, attempts, \
                               calls, possibly_charged, input, cached, cache_write, output, reasoning, cost, \
                               unknown_cost, restored_from, files, reused, checksum";
        static STATEMENTS: LazyLock<Statements> =
            LazyLock::new(|| Statements::new("steps", COLUMNS, REPLACE_STEP));
        &STATEMENTS
    }

    fn bind(self, to: &mut SqliteArguments) -> Result<(), BoxDynError> {
        let checksum = self.checksum();
        let numbers = self.numbers();
        to.add(self.run)?;
        to.add(self.item.0)?;
        to.add(self.session)?;
        to.add(self.step)?;
        to.add(self.state.as_str())?;
        to.add(self.answer_key.as_ref().map(|key| key.0.as_slice()))?;
        to.add(self.answer.map(String::from))?;
        to.add(self.failure.map(String::from))?;
        to.add(self.simulated)?;
        to.add(String::from(self.attempts))?;
        for number in numbers {
            to.add(number)?;
        }
        to.add(self.restored_from)?;
        to.add(self.files.map(String::from))?;
        to.add(self.reused.map(String::from))?;
        to.add(checksum)
    }
}

impl Writable for AnswerRow {
    fn statements() -> &'static Statements {
        const COLUMNS: &str = "key, run, target, simulated, created_at, last_used_at, hits, cost, bytes, checksum, attempt, \
                               answer";
        static STATEMENTS: LazyLock<Statements> =
            LazyLock::new(|| Statements::new("answers", COLUMNS, REPLACE_ANSWER));
        &STATEMENTS
    }

    fn bind(self, to: &mut SqliteArguments) -> Result<(), BoxDynError> {
        let bytes = self.bytes();
        let checksum = self.checksum();
        to.add(self.key.0.as_slice())?;
        to.add(self.run)?;
        to.add(self.target)?;
        to.add(self.simulated)?;
        to.add(self.created_at)?;
        to.add(hour(self.created_at))?;
        to.add(0_i64)?;
        to.add(self.cost)?;
        to.add(bytes)?;
        to.add(checksum)?;
        to.add(String::from(self.attempt))?;
        to.add(String::from(self.answer))
    }
}
