-- How many rows a run had when a session last began or ended: a row that is missing has no checksum. Beside the versions,
-- as `calls`: an earlier program only adds rows to a run, so these counts stay lower bounds.
CREATE TABLE IF NOT EXISTS row_counts (
    run      INTEGER NOT NULL,
    items    INTEGER NOT NULL,
    steps    INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    PRIMARY KEY (run)
) STRICT, WITHOUT ROWID;
