//! Connections to the database file.

use std::path::Path;
use std::time::Duration;

use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use tokio::time::{Instant, sleep};

use crate::store::store::MAX_LOCK_WAIT;

use super::advice;

/// How long a write waits for another process that is writing.
pub(super) const MAX_BUSY_WAIT: Duration = MAX_LOCK_WAIT;

/// Interval between attempts to open a file that another process is creating.
const OPEN_RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Number of connections that only read.
pub(super) const READ_CONNECTIONS: u32 = 2;

/// Connects to a file that other processes may be creating at the same time.
pub(super) async fn connect(options: &SqliteConnectOptions) -> sqlx::Result<SqliteConnection> {
    let end = Instant::now() + MAX_BUSY_WAIT;
    loop {
        match options.connect().await {
            // When SQLite switches a file to WAL mode it does not wait for a lock: it fails at once
            // (<https://www.sqlite.org/rescode.html#busy>).
            Err(error) if advice::is_busy(&error) && Instant::now() < end => sleep(OPEN_RETRY_INTERVAL).await,
            ended => return ended,
        }
    }
}

/// Returns the options of a connection to the database at `path`.
pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(MAX_BUSY_WAIT)
        .statement_cache_capacity(64)
        // 16 MB of pages for each connection. The journal is copied at the same size and truncated if it grew larger.
        .pragma("cache_size", "-16384")
        .pragma("journal_size_limit", "67108864")
        .pragma("wal_autocheckpoint", "4000")
        .disable_statement_logging()
}
