//! The schema of the database, and its migration from earlier versions.

use std::path::Path;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Executor};

use crate::store::error::Error;
use crate::store::lock::RunLock;
use crate::store::run::RunNumber;

use super::{advice, run_row, spending};

/// The scripts that bring the schema from each version to the next.
pub(super) const SCHEMA: [&str; 4] = [
    include_str!("schema.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
];

/// The table that every version has in addition.
const CALLS: &str = include_str!("calls.sql");

/// Marks our database files: the letters `Pntm`.
pub(super) const APPLICATION_ID: i64 = 0x506e_746d;

/// Migrates the schema to the latest version, or rejects a file that is not ours.
pub(super) async fn migrate(
    writer: &mut SqliteConnection,
    path: &Path,
    real_path: &Path,
) -> Result<(), Error> {
    let failed = |error: sqlx::Error| advice::on_open(path, &error);
    let mut change = writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    let number = async |change: &mut SqliteConnection, sql: &'static str| {
        sqlx::query_scalar::<_, i64>(sql).fetch_one(change).await
    };
    let found = number(&mut change, "PRAGMA user_version").await.map_err(failed)?;
    let application = number(&mut change, "PRAGMA application_id").await.map_err(failed)?;
    let tables = number(&mut change, "SELECT count(*) FROM sqlite_schema").await.map_err(failed)?;
    if application != APPLICATION_ID && (tables > 0 || application != 0) {
        return Err(Error::NotOurs { path: path.to_owned() });
    }
    let known = SCHEMA.len() as i64;
    if found > known {
        return Err(Error::NewerSchema { path: path.to_owned(), found, known });
    }
    if (1..known).contains(&found) {
        let runs = sqlx::query_scalar("SELECT run FROM runs").fetch_all(&mut *change).await;
        // A process of the earlier version would write rows that the new schema does not accept. Number 0 is the lock
        // of a run that is being created.
        let mut runs = runs.map_err(failed)?.into_iter().map(RunNumber).chain([RunNumber(0)]);
        if let Some(run) = runs.find(|run| RunLock::is_taken(real_path, *run)) {
            return Err(Error::InUseByOlderVersion { path: path.to_owned(), found, known, run });
        }
    }
    let missing = SCHEMA.iter().skip(usize::try_from(found).unwrap_or(0));
    for script in missing {
        change.execute(*script).await.map_err(failed)?;
    }
    change.execute(CALLS).await.map_err(failed)?;
    if found < known {
        run_row::migrate(&mut change, found).await.map_err(failed)?;
        if found < run_row::FIRST_WITH_CHECKSUMS {
            spending::add_checksums(&mut change).await.map_err(failed)?;
        }
        let stamp = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {known}");
        change.execute(sqlx::AssertSqlSafe(stamp)).await.map_err(failed)?;
    }
    change.commit().await.map_err(failed)
}
