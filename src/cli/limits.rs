//! Operating-system limits of the process.

/// Raises the limit on open files to the hard limit: each connection, database and output takes some, and shells
/// and service managers often start with 1,024 or fewer.
pub(super) fn raise_open_files() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        // If the limit cannot be raised, it stays as it was.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}
