-- Version 1. Times are in milliseconds since 1970, money in billionths of a US dollar.
CREATE TABLE runs (
    run      INTEGER PRIMARY KEY AUTOINCREMENT,
    identity TEXT    NOT NULL,  -- by what the same command finds it again
    name     TEXT    NOT NULL,  -- the pipeline's
    places   TEXT    NOT NULL,  -- JSON: the files
    pipeline TEXT    NOT NULL,  -- its text
    grounds  TEXT    NOT NULL,  -- JSON: what the answers depend on
    edition  INTEGER NOT NULL,  -- counts changes that make items be dealt with anew
    sessions INTEGER NOT NULL,  -- how often it has been at work
    state    TEXT    NOT NULL,
    begun    INTEGER NOT NULL,
    touched  INTEGER NOT NULL,
    outcome  TEXT    NOT NULL   -- JSON: what its last session told
) STRICT;
CREATE INDEX runs_identity ON runs (identity);

CREATE TABLE items (
    run      INTEGER NOT NULL,
    item     INTEGER NOT NULL,  -- in the order in which they were begun
    key      TEXT    NOT NULL,
    content  BLOB    NOT NULL,  -- fingerprint of all its fields
    line     INTEGER NOT NULL,  -- of the input
    input    TEXT,              -- JSON: its fields
    state    TEXT    NOT NULL,  -- open, completed, failed, skipped
    edition  INTEGER NOT NULL,
    step     TEXT,              -- that failed it
    failure  TEXT,              -- JSON
    took     INTEGER NOT NULL,  -- microseconds
    lives    INTEGER NOT NULL,
    seal     INTEGER NOT NULL,  -- over all of the above
    PRIMARY KEY (run, item)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX items_key ON items (run, key);

CREATE TABLE steps (
    run      INTEGER NOT NULL,
    item     INTEGER NOT NULL,
    session  INTEGER NOT NULL,
    step     TEXT    NOT NULL,
    state    TEXT    NOT NULL,  -- answered, failed, skipped, open
    shaped   BLOB,              -- fingerprint of everything that shaped the answer
    answer   TEXT,              -- JSON
    failure  TEXT,              -- JSON
    practice INTEGER NOT NULL,  -- whether the answer is made up
    trail    TEXT    NOT NULL,  -- JSON: every attempt
    calls    INTEGER NOT NULL,
    maybe    INTEGER NOT NULL,  -- failed calls that may have been charged
    input    INTEGER NOT NULL,  -- tokens
    cached   INTEGER NOT NULL,
    written  INTEGER NOT NULL,  -- to the provider's cache
    output   INTEGER NOT NULL,
    reasoned INTEGER NOT NULL,
    cost     INTEGER NOT NULL,  -- as far as it is known
    unknown  INTEGER NOT NULL,  -- calls of unknown cost
    seal     INTEGER NOT NULL,
    PRIMARY KEY (run, item, session, step)
) STRICT, WITHOUT ROWID;
