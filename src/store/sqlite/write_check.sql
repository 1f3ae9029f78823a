-- One row, which is written to check that the file can be written. Beside the versions, as `calls`.
CREATE TABLE IF NOT EXISTS write_check (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    checked_at INTEGER NOT NULL,
    -- SQLite writes nothing if a row does not change.
    checks     INTEGER NOT NULL
) STRICT;
