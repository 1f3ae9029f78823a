//! Checks that the database can be written.

use sqlx::Connection;

use crate::store::error::Error;

use super::database::Sqlite;

impl Sqlite {
    /// Commits a change of one row. A rollback would not write to the disk.
    pub(super) async fn write_check(&self, now: i64) -> Result<(), Error> {
        let failed = |error: sqlx::Error| self.unwritten(&error);
        let mut writer = self.writer().await?;
        let mut change = Connection::begin_with(&mut *writer, "BEGIN IMMEDIATE").await.map_err(failed)?;
        let query = "INSERT INTO write_check (id, checked_at, checks) VALUES (1, ?, 1) \
                     ON CONFLICT (id) DO UPDATE SET checked_at = excluded.checked_at, checks = checks + 1";
        sqlx::query(query).bind(now).execute(&mut *change).await.map_err(failed)?;
        self.identity.verify(&self.path).map_err(|error| self.lost(&error))?;
        change.commit().await.map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[tokio::test]
    async fn each_check_writes_to_the_journal_and_leaves_one_row() {
        let folder = tempfile::tempdir().unwrap();
        let store = Sqlite::open(&folder.path().join("a.db")).await.unwrap();
        for now in [5, 5, 6] {
            store.fold_journal().await.unwrap();
            let journal = || fs::metadata(folder.path().join("a.db-wal")).map_or(0, |journal| journal.len());
            assert_eq!(journal(), 0);
            store.write_check(now).await.unwrap();
            assert!(journal() > 0);
            let rows = sqlx::query_scalar::<_, i64>("SELECT checked_at FROM write_check");
            assert_eq!(rows.fetch_all(&store.readers).await.unwrap(), [now]);
        }
    }

    #[tokio::test]
    async fn a_database_that_is_read_only_or_was_removed_fails_the_check() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.db");
        let store = Sqlite::open(&path).await.unwrap();
        store.write_check(5).await.unwrap();
        let reader = Sqlite::open_read_only(&path).await.unwrap();
        let refused = reader.write_check(6).await.unwrap_err().to_string();
        assert!(refused.contains("cannot write the database") && refused.contains("readonly"), "{refused}");
        reader.close().await;
        fs::rename(&path, folder.path().join("b.db")).unwrap();
        let refused = store.write_check(7).await.unwrap_err().to_string();
        assert!(refused.contains("it was moved or removed"), "{refused}");
        fs::rename(folder.path().join("b.db"), &path).unwrap();
        store.write_check(8).await.unwrap();
    }
}
