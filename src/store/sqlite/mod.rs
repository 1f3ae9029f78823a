//! The store in one SQLite file, in WAL mode.
//!
//! One connection writes, and every commit reaches the disk before it returns (`synchronous = FULL`): many
//! records a commit make that cheap. Two more read. The SQLite is the bundled one.

mod advice;
mod calls;
mod look;
mod place;
mod read;
mod row;
mod run_row;
mod runs;
mod spending;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::Value;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{ConnectOptions, Connection, Executor};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};

use crate::files;
use crate::types::{Booked, Day, ItemKey, LaneName, ProviderName, StepName};

use super::call_count::CallCount;
use super::error::Error;
use super::lock::RunLock;
use super::record::{ItemNumber, KnownItem, Record};
use super::run::{KnownRun, Outline, RunNumber, RunState, Sums};
use super::{Answer, MAX_WAIT, Session, Store, StoreUrl};
use place::Place;

/// The version of the schema, and what makes each from the one before.
const SCHEMA: [&str; 3] =
    [include_str!("schema.sql"), include_str!("schema_2.sql"), include_str!("schema_3.sql")];

/// What every version has beside them.
const CALLS: &str = include_str!("calls.sql");

/// Tells our files from those of others: the letters `Pntm`.
const APPLICATION: i64 = 0x506e_746d;

/// How long a write waits for another process that is writing.
const BUSY: Duration = MAX_WAIT;

/// How long to wait before a file is opened again that another process is making.
const BEGINNING: Duration = Duration::from_millis(10);

/// Connections that only read.
const READERS: u32 = 2;

/// A store in one SQLite file.
#[derive(Debug)]
pub struct Sqlite {
    path: PathBuf,
    /// The same file without links, so that a lock of its runs is the same by whatever path it was opened.
    real_path: PathBuf,
    place: Place,
    writer: Mutex<SqliteConnection>,
    readers: SqlitePool,
}

impl Sqlite {
    /// Opens the database at `path`, and makes it when there is none. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// When it cannot be opened, was made by a later version or by another program, or is damaged.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let path = path.to_path_buf();
        create_private(&path)?;
        let options = options(&path);
        let mut writer = connect(&options).await.map_err(|error| advice::on_open(&path, &error))?;
        let real_path = path.canonicalize().unwrap_or_else(|_| path.clone());
        migrate(&mut writer, &path, &real_path).await?;
        let pool = SqlitePoolOptions::new().max_connections(READERS).acquire_timeout(BUSY);
        let readers = pool.connect_lazy_with(options.pragma("query_only", "1"));
        let place = Place::of(&path);
        Ok(Self { path, real_path, place, writer: Mutex::new(writer), readers })
    }

    /// Returns where the database is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Closes the database, and folds its journal into it. One that is just dropped loses nothing either.
    pub async fn close(self) {
        self.readers.close().await;
        // What could not be folded in is read from the journal by whoever comes next.
        drop(self.writer.into_inner().close().await);
    }

    async fn writer(&self) -> MutexGuard<'_, SqliteConnection> {
        self.writer.lock().await
    }

    fn unread(&self, error: &sqlx::Error) -> Error {
        advice::on_use(&self.path, "read", error)
    }

    fn unwritten(&self, error: &sqlx::Error) -> Error {
        advice::on_use(&self.path, "write", error)
    }

    fn lost(&self, error: &std::io::Error) -> Error {
        let why = format!(
            "{error}: it was moved or removed while the run was at work. Bring it back, with the files beside it \
             whose names begin alike, and run the same command again"
        );
        Error::Io { path: self.path.clone(), doing: "write", why }
    }

    fn damaged(&self, what: impl Into<String>) -> Error {
        Error::Damaged { path: self.path.clone(), what: what.into() }
    }
}

/// Creates the file for its owner alone if there is none. SQLite gives the files beside it the same mode.
fn create_private(path: &Path) -> Result<(), Error> {
    if path.exists() {
        return Ok(());
    }
    match files::open_or_create(path, false) {
        // SQLite would create the file that the link leads to.
        Err(error) if path.is_symlink() => Err(Error::Open { path: path.to_owned(), why: error.to_string() }),
        // Where another error is met SQLite meets it too, and its error has the advice.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Connects, however many begin with a new file at once.
async fn connect(options: &SqliteConnectOptions) -> sqlx::Result<SqliteConnection> {
    let end = Instant::now() + BUSY;
    loop {
        match options.connect().await {
            // To make a file a WAL one, SQLite does not wait for others as it does to write: it refuses at once
            // (<https://www.sqlite.org/rescode.html#busy>).
            Err(error) if advice::is_busy(&error) && Instant::now() < end => sleep(BEGINNING).await,
            ended => return ended,
        }
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY)
        .statement_cache_capacity(64)
        // 16 MB of pages each; a journal of as much is folded in, and one that grew beyond gives its room back.
        .pragma("cache_size", "-16384")
        .pragma("journal_size_limit", "67108864")
        .pragma("wal_autocheckpoint", "4000")
        .disable_statement_logging()
}

/// Brings the schema to the newest version, or refuses a file that is not ours.
async fn migrate(writer: &mut SqliteConnection, path: &Path, real_path: &Path) -> Result<(), Error> {
    let failed = |error: sqlx::Error| advice::on_open(path, &error);
    let mut change = writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    let number = async |change: &mut SqliteConnection, sql: &'static str| {
        sqlx::query_scalar::<_, i64>(sql).fetch_one(change).await
    };
    let found = number(&mut change, "PRAGMA user_version").await.map_err(failed)?;
    let application = number(&mut change, "PRAGMA application_id").await.map_err(failed)?;
    let tables = number(&mut change, "SELECT count(*) FROM sqlite_schema").await.map_err(failed)?;
    if application != APPLICATION && (tables > 0 || application != 0) {
        return Err(Error::Foreign { path: path.to_owned() });
    }
    let known = SCHEMA.len() as i64;
    if found > known {
        return Err(Error::Newer { path: path.to_owned(), found, known });
    }
    if (1..known).contains(&found) {
        let runs = sqlx::query_scalar("SELECT run FROM runs").fetch_all(&mut *change).await;
        // A process of the earlier version writes rows as that version does: without what the new schema needs.
        // Number 0 is that of a run that it is about to make.
        let mut runs = runs.map_err(failed)?.into_iter().map(RunNumber).chain([RunNumber(0)]);
        if let Some(run) = runs.find(|run| RunLock::is_taken(real_path, *run)) {
            return Err(Error::EarlierAtWork { path: path.to_owned(), found, known, run });
        }
    }
    let missing = SCHEMA.iter().skip(usize::try_from(found).unwrap_or(0));
    for script in missing {
        change.execute(*script).await.map_err(failed)?;
    }
    change.execute(CALLS).await.map_err(failed)?;
    if found < known {
        run_row::add_checksums(&mut change).await.map_err(failed)?;
        spending::add_checksums(&mut change).await.map_err(failed)?;
        let stamp = format!("PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {known}");
        change.execute(sqlx::AssertSqlSafe(stamp)).await.map_err(failed)?;
    }
    change.commit().await.map_err(failed)
}

impl Store for Sqlite {
    fn runs(&self) -> Answer<'_, Vec<KnownRun>> {
        self.all_runs().boxed()
    }

    fn run(&self, run: RunNumber) -> Answer<'_, KnownRun> {
        self.one_run(run).boxed()
    }

    fn state(&self, run: RunNumber) -> Answer<'_, RunState> {
        self.state_of(run).boxed()
    }

    fn set(&self, run: RunNumber, state: RunState) -> Answer<'_, ()> {
        self.set_state(run, state).boxed()
    }

    fn find<'a>(&'a self, identity: &'a str) -> Answer<'a, Option<KnownRun>> {
        self.find_run(identity).boxed()
    }

    fn create<'a>(&'a self, identity: &'a str, outline: &'a Outline) -> Answer<'a, RunNumber> {
        self.create_run(identity, outline).boxed()
    }

    fn lock(&self, run: RunNumber) -> Result<RunLock, Error> {
        RunLock::take(&self.real_path, run)
    }

    fn files(&self, run: RunNumber) -> Vec<PathBuf> {
        let mut files = StoreUrl::Sqlite(self.real_path.clone()).files();
        files.push(RunLock::file(&self.real_path, run));
        files
    }

    fn is_at_work(&self, run: RunNumber) -> bool {
        RunLock::is_taken(&self.real_path, run)
    }

    fn begin<'a>(&'a self, run: RunNumber, outline: Option<&'a Outline>, anew: bool) -> Answer<'a, Session> {
        self.begin_session(run, outline, anew).boxed()
    }

    fn touch<'a>(&'a self, run: RunNumber, state: RunState, outcome: &'a Value) -> Answer<'a, ()> {
        self.touch_run(run, state, outcome).boxed()
    }

    fn note<'a>(&'a self, run: RunNumber, outcome: &'a Value) -> Answer<'a, ()> {
        self.note_outcome(run, outcome).boxed()
    }

    fn write<'a>(&'a self, records: &'a [Record]) -> Answer<'a, ()> {
        self.write_records(records, Day::at(runs::now())).boxed()
    }

    fn look_up<'a>(&'a self, run: RunNumber, keys: &'a [ItemKey]) -> Answer<'a, Vec<Option<KnownItem>>> {
        self.items_of(run, keys).boxed()
    }

    fn items(&self, run: RunNumber, after: ItemNumber, most: u32) -> Answer<'_, Vec<KnownItem>> {
        self.items_after(run, after, most).boxed()
    }

    fn failed(&self, run: RunNumber, after: ItemNumber, most: u32) -> Answer<'_, Vec<KnownItem>> {
        self.failed_after(run, after, most).boxed()
    }

    fn sums(&self, run: RunNumber) -> Answer<'_, Sums> {
        self.sums_of(run).boxed()
    }

    fn counts<'a>(&'a self, run: RunNumber, groups: &'a [(i64, i64)]) -> Answer<'a, Sums> {
        self.counts_of(run, groups).boxed()
    }

    fn spent_on(&self, day: Day) -> Answer<'_, BTreeMap<ProviderName, Booked>> {
        self.booked_on(day).boxed()
    }

    fn spent_by(&self, run: RunNumber) -> Answer<'_, BTreeMap<ProviderName, Booked>> {
        self.booked_by(run).boxed()
    }

    fn book<'a>(
        &'a self,
        run: RunNumber,
        day: Day,
        spent: &'a BTreeMap<ProviderName, Booked>,
    ) -> Answer<'a, ()> {
        self.book_more(run, day, spent).boxed()
    }

    fn count_calls<'a>(&'a self, calls: &'a BTreeMap<LaneName, u64>) -> Answer<'a, ()> {
        self.count_calls_at(calls, runs::now()).boxed()
    }

    fn calls_of_day(&self) -> Answer<'_, Vec<CallCount>> {
        self.calls_of_day_at(runs::now()).boxed()
    }

    fn fold(&self) -> Answer<'_, ()> {
        self.fold_journal().boxed()
    }

    fn answers(&self, run: RunNumber) -> Answer<'_, BTreeMap<StepName, u64>> {
        self.answers_of(run).boxed()
    }

    fn forget<'a>(&'a self, runs: &'a [RunNumber]) -> Answer<'a, ()> {
        self.forget_runs(runs).boxed()
    }

    fn shrink(&self) -> Answer<'_, ()> {
        self.shrink_file().boxed()
    }
}
