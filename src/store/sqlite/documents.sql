-- Documents of a daemon: its pipelines, tokens and idempotency keys, with their history. Beside the versions, as `calls`: an
-- earlier program does not read them.
CREATE TABLE IF NOT EXISTS documents (
    kind       TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    version    INTEGER NOT NULL,  -- from 1
    created_at INTEGER NOT NULL,
    created_by TEXT    NOT NULL,
    expires_at INTEGER,
    checksum   INTEGER NOT NULL,
    value      TEXT,              -- JSON; NULL if this version is the deletion of the document
    PRIMARY KEY (kind, name, version)
) STRICT;
CREATE INDEX IF NOT EXISTS documents_expiry ON documents (kind, expires_at) WHERE expires_at IS NOT NULL;
