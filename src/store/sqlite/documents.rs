//! Reads and writes documents.
//!
//! The caller passes the time.

use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, QueryBuilder, Row, Sqlite as Driver, SqliteConnection};

use crate::chaos;
use crate::store::document::{
    Document, DocumentKind, ExpectedVersion, MAX_DOCUMENT_BYTES, MAX_DOCUMENT_DEPTH, MAX_DOCUMENT_VERSIONS,
};
use crate::store::error::Error;

use super::database::Sqlite;
use super::row::{RowChecksum, RowError};

/// Expired documents that are removed in one transaction, so that other writes do not wait long.
const REMOVED_AT_ONCE: i64 = 500;

/// A new value of a document.
pub(in crate::store) struct DocumentChange<'a> {
    pub(in crate::store) kind: DocumentKind,
    pub(in crate::store) name: &'a str,
    pub(in crate::store) value: &'a Value,
    pub(in crate::store) by: &'a str,
    pub(in crate::store) expires_at: Option<i64>,
    pub(in crate::store) expected: ExpectedVersion,
    /// Whether it overwrites the latest version.
    pub(in crate::store) overwrites: bool,
}

/// A row of `documents`.
struct DocumentRow {
    kind: DocumentKind,
    name: String,
    version: i64,
    created_at: i64,
    created_by: String,
    expires_at: Option<i64>,
    /// JSON; `None` for a deletion.
    value: Option<String>,
}

impl DocumentRow {
    /// Reads a row of `kind` and verifies its checksum.
    fn read(kind: DocumentKind, row: &SqliteRow) -> Result<Self, RowError> {
        let read = Self {
            kind,
            name: row.try_get("name")?,
            version: row.try_get("version")?,
            created_at: row.try_get("created_at")?,
            created_by: row.try_get("created_by")?,
            expires_at: row.try_get("expires_at")?,
            value: row.try_get("value")?,
        };
        if read.checksum() == row.try_get::<i64, _>("checksum")? { Ok(read) } else { Err(RowError::Checksum) }
    }

    fn checksum(&self) -> i64 {
        let mut sum = RowChecksum::default();
        let expiry = [i64::from(self.expires_at.is_some()), self.expires_at.unwrap_or(0)];
        sum.numbers(&[self.version, self.created_at]);
        sum.numbers(&expiry);
        sum.text(Some(self.kind.as_str()));
        sum.text(Some(&self.name));
        sum.text(Some(&self.created_by));
        sum.text(self.value.as_deref());
        sum.finish()
    }

    /// Adds the row, or overwrites that of the same version.
    async fn write(&self, change: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let query = "INSERT INTO documents (kind, name, version, created_at, created_by, expires_at, checksum, value) \
                     VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (kind, name, version) DO UPDATE SET \
                     created_at = excluded.created_at, created_by = excluded.created_by, \
                     expires_at = excluded.expires_at, checksum = excluded.checksum, value = excluded.value";
        let query = sqlx::query(query).bind(self.kind.as_str()).bind(&self.name).bind(self.version);
        let query = query.bind(self.created_at).bind(&self.created_by).bind(self.expires_at);
        query.bind(self.checksum()).bind(self.value.as_deref()).execute(change).await.map(|_| ())
    }

    /// Converts the row.
    fn into_document(self) -> Result<Document, RowError> {
        Ok(Document {
            kind: self.kind,
            name: self.name,
            version: self.version,
            created_at: self.created_at,
            created_by: self.created_by,
            expires_at: self.expires_at,
            is_deleted: self.value.is_none(),
            value: self.value.as_deref().map_or(Ok(Value::Null), serde_json::from_str)?,
        })
    }
}

/// Reads the latest version of a document within a transaction.
async fn latest(
    connection: &mut SqliteConnection,
    kind: DocumentKind,
    name: &str,
) -> Result<Option<Document>, RowError> {
    let query = "SELECT * FROM documents WHERE kind = ? AND name = ? ORDER BY version DESC LIMIT 1";
    let row = sqlx::query(query).bind(kind.as_str()).bind(name).fetch_optional(connection).await?;
    row.map(|row| DocumentRow::read(kind, &row)?.into_document()).transpose()
}

impl Sqlite {
    /// Writes a version of a document, at `now`.
    pub(in crate::store) async fn write_document(
        &self,
        change: DocumentChange<'_>,
        now: i64,
    ) -> Result<Document, Error> {
        let DocumentChange { kind, name, value, by, expires_at, expected, overwrites } = change;
        // Before the lock: serializing a large document takes a while.
        let text = json_text(kind, name, value)?;
        let failed = |error: sqlx::Error| self.unwritten(&error);
        let mut writer = self.writer().await?;
        // An immediate transaction: it reads before it writes, and no other process may write in between.
        let mut change = Connection::begin_with(&mut *writer, "BEGIN IMMEDIATE").await.map_err(failed)?;
        let found =
            latest(&mut change, kind, name).await.map_err(|error| self.document_error(kind, &error))?;
        if !expected.is_met_by(found.as_ref(), now) {
            let found = found.filter(|found| !found.is_deleted).map(|found| found.version);
            return Err(Error::VersionConflict { kind, name: name.to_owned(), found });
        }
        let version = match found {
            Some(found) if overwrites && !found.is_deleted => found.version,
            Some(found) => found.version + 1,
            None => 1,
        };
        let row = DocumentRow {
            kind,
            name: name.to_owned(),
            version,
            created_at: now,
            created_by: by.to_owned(),
            expires_at,
            value: Some(text),
        };
        row.write(&mut change).await.map_err(failed)?;
        chaos::point("store.document");
        self.identity.verify(&self.path).map_err(|error| self.lost(&error))?;
        change.commit().await.map_err(failed)?;
        Ok(Document {
            kind,
            name: row.name,
            version,
            created_at: now,
            created_by: row.created_by,
            expires_at,
            value: value.clone(),
            is_deleted: false,
        })
    }

    /// Writes the deletion of a document, at `now`.
    pub(in crate::store) async fn delete_document_at(
        &self,
        kind: DocumentKind,
        name: &str,
        by: &str,
        now: i64,
    ) -> Result<bool, Error> {
        let failed = |error: sqlx::Error| self.unwritten(&error);
        let mut writer = self.writer().await?;
        let mut change = Connection::begin_with(&mut *writer, "BEGIN IMMEDIATE").await.map_err(failed)?;
        let found =
            latest(&mut change, kind, name).await.map_err(|error| self.document_error(kind, &error))?;
        let Some(found) = found.filter(|found| !found.is_deleted) else { return Ok(false) };
        let row = DocumentRow {
            kind,
            name: found.name,
            version: found.version + 1,
            created_at: now,
            created_by: by.to_owned(),
            expires_at: None,
            value: None,
        };
        row.write(&mut change).await.map_err(failed)?;
        self.identity.verify(&self.path).map_err(|error| self.lost(&error))?;
        change.commit().await.map_err(failed)?;
        Ok(true)
    }

    pub(super) async fn document_at(
        &self,
        kind: DocumentKind,
        name: &str,
        now: i64,
    ) -> Result<Option<Document>, Error> {
        if !self.has_table("documents").await? {
            return Ok(None);
        }
        let mut reading = self.readers.acquire().await.map_err(|error| self.unread(&error))?;
        let found = latest(&mut reading, kind, name).await;
        let found = found.map_err(|error| self.unread_document(kind, &error))?;
        Ok(found.filter(|found| found.exists(now)))
    }

    pub(super) async fn one_document_version(
        &self,
        kind: DocumentKind,
        name: &str,
        version: i64,
    ) -> Result<Option<Document>, Error> {
        let mut query = QueryBuilder::<Driver>::new("SELECT * FROM documents WHERE kind = ");
        query.push_bind(kind.as_str()).push(" AND name = ").push_bind(name);
        query.push(" AND version = ").push_bind(version);
        Ok(self.documents_of(kind, query).await?.pop())
    }

    pub(super) async fn all_document_versions(
        &self,
        kind: DocumentKind,
        name: &str,
    ) -> Result<Vec<Document>, Error> {
        let mut query = QueryBuilder::<Driver>::new("SELECT * FROM documents WHERE kind = ");
        query.push_bind(kind.as_str()).push(" AND name = ").push_bind(name);
        query.push(" ORDER BY version DESC LIMIT ").push_bind(MAX_DOCUMENT_VERSIONS);
        self.documents_of(kind, query).await
    }

    pub(super) async fn documents_after(
        &self,
        kind: DocumentKind,
        after: Option<&str>,
        max: u32,
    ) -> Result<Vec<Document>, Error> {
        let mut query = QueryBuilder::<Driver>::new("SELECT * FROM documents WHERE kind = ");
        query.push_bind(kind.as_str());
        if let Some(after) = after {
            query.push(" AND name > ").push_bind(after);
        }
        query.push(
            " AND value IS NOT NULL AND NOT EXISTS (SELECT 1 FROM documents AS later WHERE \
             later.kind = documents.kind AND later.name = documents.name AND later.version > documents.version) \
             ORDER BY name LIMIT ",
        );
        query.push_bind(max);
        self.documents_of(kind, query).await
    }

    /// Reads the documents that a query finds.
    async fn documents_of(
        &self,
        kind: DocumentKind,
        mut query: QueryBuilder<Driver>,
    ) -> Result<Vec<Document>, Error> {
        if !self.has_table("documents").await? {
            return Ok(Vec::new());
        }
        let rows = query.build().fetch_all(&self.readers).await.map_err(|error| self.unread(&error))?;
        let read = |row: &SqliteRow| DocumentRow::read(kind, row)?.into_document();
        rows.iter().map(|row| read(row).map_err(|error| self.unread_document(kind, &error))).collect()
    }

    pub(super) async fn forget_document(&self, kind: DocumentKind, name: &str) -> Result<bool, Error> {
        let query = "DELETE FROM documents WHERE kind = ? AND name = ?";
        let mut writer = self.writer().await?;
        let gone = sqlx::query(query).bind(kind.as_str()).bind(name).execute(&mut *writer).await;
        Ok(gone.map_err(|error| self.unwritten(&error))?.rows_affected() > 0)
    }

    pub(super) async fn forget_expired(&self, kind: DocumentKind, now: i64) -> Result<u64, Error> {
        let mut removed = 0;
        loop {
            let some = self.forget_some_expired(kind, now).await?;
            removed += some;
            if some == 0 {
                return Ok(removed);
            }
        }
    }

    /// Removes some of the documents that have expired, and returns their number.
    async fn forget_some_expired(&self, kind: DocumentKind, now: i64) -> Result<u64, Error> {
        let failed = |error: sqlx::Error| self.unwritten(&error);
        let mut writer = self.writer().await?;
        let mut change = Connection::begin_with(&mut *writer, "BEGIN IMMEDIATE").await.map_err(failed)?;
        let query = "SELECT name FROM documents INDEXED BY documents_expiry WHERE kind = ? AND expires_at <= ? \
                     AND NOT EXISTS (SELECT 1 FROM documents AS later WHERE later.kind = documents.kind \
                     AND later.name = documents.name AND later.version > documents.version) LIMIT ?";
        let query = sqlx::query_scalar::<_, String>(query).bind(kind.as_str()).bind(now);
        let names = query.bind(REMOVED_AT_ONCE).fetch_all(&mut *change).await.map_err(failed)?;
        for name in &names {
            let query = sqlx::query("DELETE FROM documents WHERE kind = ? AND name = ?");
            query.bind(kind.as_str()).bind(name).execute(&mut *change).await.map_err(failed)?;
        }
        change.commit().await.map_err(failed)?;
        Ok(names.len() as u64)
    }

    /// Returns the error of a row of `documents` that a write has read.
    fn document_error(&self, kind: DocumentKind, error: &RowError) -> Error {
        match error {
            RowError::Column(error) => self.unwritten(error),
            RowError::Json(_) | RowError::Checksum | RowError::Word(_) => {
                self.damaged(format!("a row of documents, of a {kind}: {error}"))
            }
        }
    }

    /// Returns the error of a row of `documents` that was only read.
    fn unread_document(&self, kind: DocumentKind, error: &RowError) -> Error {
        match error {
            RowError::Column(error) => self.unread(error),
            RowError::Json(_) | RowError::Checksum | RowError::Word(_) => self.document_error(kind, error),
        }
    }
}

/// Returns the JSON text of a document, if it can be stored and read again.
fn json_text(kind: DocumentKind, name: &str, value: &Value) -> Result<String, Error> {
    if is_deeper_than(value, MAX_DOCUMENT_DEPTH) {
        return Err(Error::DocumentTooDeep { kind, name: name.to_owned() });
    }
    let text = value.to_string();
    if text.len() > MAX_DOCUMENT_BYTES {
        let bytes = text.len();
        return Err(Error::DocumentTooLarge { kind, name: name.to_owned(), bytes, max: MAX_DOCUMENT_BYTES });
    }
    Ok(text)
}

/// Returns whether arrays and objects are nested in more than `levels` levels.
fn is_deeper_than(value: &Value, levels: usize) -> bool {
    let is_inner_deeper = |inner: &Value| is_deeper_than(inner, levels - 1);
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        Value::Array(_) | Value::Object(_) if levels == 0 => true,
        Value::Array(values) => values.iter().any(is_inner_deeper),
        Value::Object(fields) => fields.values().any(is_inner_deeper),
    }
}
