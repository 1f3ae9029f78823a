//! What can go wrong with a store, with advice.

use std::path::PathBuf;

use super::run::RunNumber;

/// What a store could not do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file or its directory cannot be used.
    #[error("cannot open the database {}: {why}", path.display())]
    Open {
        /// The database.
        path: PathBuf,
        /// What the system says, with advice.
        why: String,
    },
    /// The lock file of a run cannot be used.
    #[error("cannot use the lock file {}: {why}", path.display())]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system says, with advice.
        why: String,
    },
    /// It was made by a later version.
    #[error(
        "the database {} has schema version {found}, and this program knows {known} at most: use the version of \
         pointsman that wrote it, or another file in [store] url", path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// It was made by an earlier version, and cannot be written.
    #[error(
        "the database {} has schema version {found}, this program reads {known}, and it is read-only: copy it to where \
         it can be written, and name the copy with --store sqlite:FILE", path.display()
    )]
    Older {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// It is to be brought to a later schema version, and a process of an earlier one works with it.
    #[error(
        "the database {} has schema version {found} and cannot be brought to version {known} now: {} is being worked \
         on by an earlier version of pointsman. Wait until it has ended, or stop it, then run the same command again",
        path.display(), name(*run)
    )]
    EarlierAtWork {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
        /// The run that is at work.
        run: RunNumber,
    },
    /// It is a database of something else.
    #[error("{} is a database of another program: name another file in [store] url", path.display())]
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// What was read is not what was written.
    #[error(
        "the database {} is damaged: {what}. Nothing in it was changed. Restore it from a copy, or begin anew \
         with another file in [store] url", path.display()
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What is wrong, and where.
        what: String,
    },
    /// What is kept of a run was written by a version that keeps something else.
    #[error(
        "what the answers of run {run} depend on cannot be read: {why}. Use the version of pointsman that began it, or \
         begin a new run (--new)"
    )]
    Manifest {
        /// The run.
        run: RunNumber,
        /// What is wrong.
        why: String,
    },
    /// It could not be read or written.
    #[error("cannot {doing} the database {}: {why}", path.display())]
    Io {
        /// The database.
        path: PathBuf,
        /// `read` or `write`.
        doing: &'static str,
        /// What the system says, with advice.
        why: String,
    },
    /// Another process is at work on the run.
    #[error("{} is being worked on by {who}: wait until it has ended, or stop it", name(*run))]
    Busy {
        /// The run.
        run: RunNumber,
        /// The process, as far as it is known.
        who: String,
    },
    /// There is no such run.
    #[error("there is no run {0} in this database; `pointsman runs` lists them")]
    NoRun(RunNumber),
}

/// Names a run; one that is just beginning has no number.
fn name(run: RunNumber) -> String {
    if run == RunNumber(0) { "a new run".to_owned() } else { format!("run {run}") }
}
