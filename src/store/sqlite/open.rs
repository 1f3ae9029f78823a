//! Opens a database for reading and writing, and creates it if it does not exist.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use sqlx::sqlite::SqlitePoolOptions;
use tokio::sync::Mutex;

use crate::files;
use crate::store::error::Error;

use super::connection::{MAX_BUSY_WAIT, READ_CONNECTIONS, connect, options};
use super::database::Sqlite;
use super::file_identity::FileIdentity;
use super::{advice, schema};

impl Sqlite {
    /// Opens the database at `path`, and creates it if it does not exist. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// If it cannot be opened, was created by a later version or by another program, or is damaged.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let path = path.to_path_buf();
        create_private(&path)?;
        refuse_other_file(&path)?;
        let options = options(&path);
        let mut writer = connect(&options).await.map_err(|error| advice::on_open(&path, &error))?;
        let real_path = path.canonicalize().unwrap_or_else(|_| path.clone());
        schema::migrate(&mut writer, &path, &real_path).await?;
        // A database that was removed is not created again.
        let writer_options = options.clone().create_if_missing(false);
        let pool = SqlitePoolOptions::new().max_connections(READ_CONNECTIONS).acquire_timeout(MAX_BUSY_WAIT);
        let readers = pool.connect_lazy_with(options.pragma("query_only", "1"));
        let place = FileIdentity::of(&path);
        let writer = Mutex::new(writer);
        Ok(Self { path, real_path, identity: place, writer, writer_options, readers })
    }
}

/// Refuses a file that is not a database. SQLite takes a file of a few bytes for an empty database and overwrites it. A file
/// of 0 bytes is new.
fn refuse_other_file(path: &Path) -> Result<(), Error> {
    const MAGIC: [u8; 16] = *b"SQLite format 3\0";
    // Opening a pipe would wait for its writer.
    let has_content = fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() > 0);
    if !has_content {
        return Ok(());
    }
    let mut start = Vec::with_capacity(MAGIC.len());
    let read = File::open(path).and_then(|file| file.take(MAGIC.len() as u64).read_to_end(&mut start));
    match read {
        Ok(_) if start != MAGIC => Err(advice::not_a_database(path)),
        // SQLite reports an error again, with advice.
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Creates the file, readable only by its owner, if it does not exist. SQLite creates its other files with the same mode.
fn create_private(path: &Path) -> Result<(), Error> {
    if path.exists() {
        return Ok(());
    }
    match files::open_or_create(path, false) {
        // SQLite would create the target of the link.
        Err(error) if path.is_symlink() => Err(Error::Open { path: path.to_owned(), why: error.to_string() }),
        // SQLite reports other errors again, with advice.
        Ok(_) | Err(_) => Ok(()),
    }
}
