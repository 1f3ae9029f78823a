//! The schema of the database, and its migration from earlier versions.

use std::collections::HashSet;
use std::path::Path;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Executor, Row};

use crate::store::error::Error;
use crate::store::lock::RunLock;
use crate::store::run::RunNumber;

use super::{advice, run_row, spending};

/// The scripts that bring the schema from each version to the next.
pub(super) const SCHEMA: [&str; 5] = [
    include_str!("schema.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
    include_str!("schema_5.sql"),
];

/// The table that every version has in addition.
const CALLS: &str = include_str!("calls.sql");

/// Another table that every version has in addition.
const ROW_COUNTS: &str = include_str!("row_counts.sql");

/// Another table that every version has in addition.
const SCOPE_SPENDING: &str = include_str!("scope_spending.sql");

/// Another table that every version has in addition.
const DOCUMENTS: &str = include_str!("documents.sql");

/// Another table that every version has in addition.
const WRITE_CHECK: &str = include_str!("write_check.sql");

/// The tables of the latest version.
const TABLES: [&str; 10] = [
    "runs",
    "items",
    "steps",
    "answers",
    "spending",
    "calls",
    "row_counts",
    "scope_spending",
    "documents",
    "write_check",
];

/// The indexes of the latest version.
const INDEXES: [&str; 6] =
    ["runs_identity", "items_key", "items_failed", "spending_run", "answers_used", "answers_run"];

/// The tables that a read-only database of the latest version may lack, because an earlier program wrote it.
const ADDITIONAL_TABLES: [&str; 5] = ["calls", "row_counts", "scope_spending", "documents", "write_check"];

/// The indexes of these tables.
const ADDITIONAL_INDEXES: [&str; 1] = ["documents_expiry"];

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
    for script in [CALLS, ROW_COUNTS, SCOPE_SPENDING, DOCUMENTS, WRITE_CHECK] {
        change.execute(script).await.map_err(failed)?;
    }
    if found < known {
        run_row::migrate(&mut change, found).await.map_err(failed)?;
        if found < run_row::FIRST_WITH_CHECKSUMS {
            spending::add_checksums(&mut change).await.map_err(failed)?;
        }
        let stamp = format!("PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {known}");
        change.execute(sqlx::AssertSqlSafe(stamp)).await.map_err(failed)?;
    }
    verify(&mut change, path).await?;
    change.commit().await.map_err(failed)
}

/// Rejects a database of the latest version whose schema differs from what the scripts create. A trigger or a view could
/// change what is read and written. A further table changes nothing: a later version may have added it.
pub(super) async fn verify(connection: &mut SqliteConnection, path: &Path) -> Result<(), Error> {
    let failed = |error: sqlx::Error| advice::on_open(path, &error);
    let damaged = |what: String| Error::Damaged { path: path.to_owned(), what };
    let rows = sqlx::query("SELECT type, name, tbl_name FROM sqlite_schema").fetch_all(connection).await;
    let mut found = HashSet::new();
    for row in rows.map_err(failed)? {
        let text = |column: &str| row.try_get::<String, _>(column).map_err(failed);
        let kind = text("type")?;
        let name = text("name")?;
        let table = text("tbl_name")?;
        let is_ours = match kind.as_str() {
            "table" => true,
            "index" => {
                let is_of_our_table = TABLES.contains(&table.as_str());
                let is_known =
                    INDEXES.contains(&name.as_str()) || ADDITIONAL_INDEXES.contains(&name.as_str());
                !is_of_our_table || is_known || name.starts_with("sqlite_")
            }
            // A trigger or a view.
            _ => false,
        };
        if !is_ours {
            return Err(damaged(format!("it has the {kind} {name:?}, which this program did not create")));
        }
        found.insert((kind, name));
    }
    let tables = TABLES.iter().filter(|table| !ADDITIONAL_TABLES.contains(table));
    let tables = tables.map(|table| ("table", *table));
    let indexes = INDEXES.iter().map(|index| ("index", *index));
    for (kind, name) in tables.chain(indexes) {
        if !found.contains(&(kind.to_owned(), name.to_owned())) {
            return Err(damaged(format!("the {kind} {name} is missing")));
        }
    }
    Ok(())
}
