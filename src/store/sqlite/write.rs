//! Writes records, many rows a statement: that is what makes a commit of a thousand cheap.

use std::sync::{Arc, LazyLock};

use sqlx::error::BoxDynError;
use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, Connection, SqliteConnection};

use crate::chaos;
use crate::store::error::Error;
use crate::store::record::Record;
use crate::types::Day;

use super::Sqlite;
use super::row::{ItemRow, StepRow};
use super::spending::book_records;

/// Rows of a statement, largest first. Each half of the one before: so any number of rows takes few statements, each of
/// which goes to the database's thread and back, and each size is prepared once.
pub(super) const CHUNKS: [usize; 8] = [128, 64, 32, 16, 8, 4, 2, 1];

/// A row that is there already is replaced: a record says everything that its session knows. An item that has settled
/// and is asked again stays as it settled, with its content of then, until it settles again: a session that ends
/// before takes no line away.
const REPLACE_ITEM: &str = " ON CONFLICT (run, item) DO UPDATE SET key = excluded.key, \
    content = excluded.content, line = excluded.line, input = excluded.input, state = excluded.state, \
    edition = excluded.edition, step = excluded.step, failure = excluded.failure, took = excluded.took, \
    lives = excluded.lives, session = excluded.session, seal = excluded.seal \
    WHERE excluded.state <> 'open' OR items.state = 'open'";

const REPLACE_STEP: &str = " ON CONFLICT (run, item, session, step) DO UPDATE SET state = excluded.state, \
    shaped = excluded.shaped, answer = excluded.answer, failure = excluded.failure, \
    practice = excluded.practice, trail = excluded.trail, recalled = excluded.recalled, \
    files = excluded.files, calls = excluded.calls, maybe = excluded.maybe, \
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
        book_records(&mut change, records, day).await.map_err(|odd| self.odd_spending(&odd))?;
        insert(&mut change, items).await.map_err(failed)?;
        insert(&mut change, steps).await.map_err(failed)?;
        chaos::point("store.commit");
        self.place.holds(&self.path).map_err(|error| self.lost(&error))?;
        change.commit().await.map_err(failed)
    }
}

/// A row that can be written.
trait Writable {
    /// The statement for each size of [`CHUNKS`].
    fn statements() -> &'static Statements;

    /// Adds the values of its columns.
    fn bind(self, to: &mut SqliteArguments) -> Result<(), BoxDynError>;
}

/// Statements for one table. Their texts are long, and the same each time.
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

/// Writes rows in their order: a later one may replace an earlier.
async fn insert<T: Writable>(change: &mut SqliteConnection, rows: Vec<T>) -> Result<(), sqlx::Error> {
    let (statements, mut rows) = (T::statements(), rows.into_iter());
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
        const COLUMNS: &str =
            "run, item, key, content, line, input, state, edition, step, failure, took, lives, session, seal";
        static STATEMENTS: LazyLock<Statements> =
            LazyLock::new(|| Statements::new("items", COLUMNS, REPLACE_ITEM));
        &STATEMENTS
    }

    fn bind(self, to: &mut SqliteArguments) -> Result<(), BoxDynError> {
        let seal = self.seal();
        to.add(self.run)?;
        to.add(self.head.number.0)?;
        to.add(self.head.key.as_str())?;
        to.add(self.head.content.0.as_slice())?;
        to.add(self.head.line as i64)?;
        to.add(self.head.input.clone())?;
        to.add(self.state)?;
        to.add(self.edition)?;
        to.add(self.step)?;
        to.add(self.failure.map(String::from))?;
        to.add(self.took)?;
        to.add(self.lives)?;
        to.add(self.session)?;
        to.add(seal)
    }
}

impl Writable for StepRow<'_> {
    fn statements() -> &'static Statements {
        const COLUMNS: &str = "run, item, session, step, state, shaped, answer, failure, practice, trail, calls, \
                               maybe, input, cached, written, output, reasoned, cost, unknown, recalled, files, \
                               seal";
        static STATEMENTS: LazyLock<Statements> =
            LazyLock::new(|| Statements::new("steps", COLUMNS, REPLACE_STEP));
        &STATEMENTS
    }

    fn bind(self, to: &mut SqliteArguments) -> Result<(), BoxDynError> {
        let (seal, numbers) = (self.seal(), self.numbers());
        to.add(self.run)?;
        to.add(self.item.0)?;
        to.add(self.session)?;
        to.add(self.step)?;
        to.add(self.state.as_str())?;
        to.add(self.shaped.as_ref().map(|shaped| shaped.0.as_slice()))?;
        to.add(self.answer.map(String::from))?;
        to.add(self.failure.map(String::from))?;
        to.add(self.practice)?;
        to.add(String::from(self.trail))?;
        for number in numbers {
            to.add(number)?;
        }
        to.add(self.recalled)?;
        to.add(self.files.map(String::from))?;
        to.add(seal)
    }
}
