-- Version 5. Answers are reused across items and runs.
ALTER TABLE steps ADD COLUMN reused TEXT;  -- JSON: the attempt, of another item or run, that gave the answer

CREATE TABLE answers (
    key          BLOB    NOT NULL,  -- fingerprint of everything that affects the answer
    run          INTEGER NOT NULL,  -- whose request gave it
    target       TEXT    NOT NULL,
    simulated    INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    last_used_at INTEGER NOT NULL,  -- rounded down to the hour, so that few uses change the index
    hits         INTEGER NOT NULL,
    cost         INTEGER,           -- of the attempt; NULL if it is unknown
    bytes        INTEGER NOT NULL,  -- of the attempt and the answer
    checksum     INTEGER NOT NULL,  -- without last_used_at and hits
    attempt      TEXT    NOT NULL,  -- JSON: the attempt that gave the answer
    answer       TEXT    NOT NULL,  -- JSON
    PRIMARY KEY (key)
) STRICT;
CREATE INDEX answers_used ON answers (last_used_at, bytes);
CREATE INDEX answers_run ON answers (run);
