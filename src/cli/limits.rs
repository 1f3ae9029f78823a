//! Limits that the system sets for the process.

/// Lets the process open as many files as the hard limit allows: each connection, database and output takes some, and
/// shells and service managers often begin with 1,024 or fewer.
pub(super) fn raise_open_files() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let limit = getrlimit(Resource::Nofile);
        // Where it cannot be raised it stays as it was.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}
