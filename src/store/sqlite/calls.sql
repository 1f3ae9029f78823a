-- Calls that left, for the limits of a day. They outlive the run. Beside the versions: nothing else depends on this
-- table, and an earlier program that does not know it uses the file as before.
CREATE TABLE IF NOT EXISTS calls (
    slot     INTEGER NOT NULL,  -- ten minutes, since 1970
    provider TEXT    NOT NULL,
    model    TEXT    NOT NULL,
    calls    INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (slot, provider, model)
) STRICT, WITHOUT ROWID;
