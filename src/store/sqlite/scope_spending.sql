-- What the calls of a scope cost, by the UTC day on which that was recorded. It outlives the run. Beside the versions, as
-- `calls`: an earlier program does not know the scope of a run and only adds to `spending`.
CREATE TABLE IF NOT EXISTS scope_spending (
    day            INTEGER NOT NULL,  -- since 1970
    scope          TEXT    NOT NULL,
    run            INTEGER NOT NULL,
    cost           INTEGER NOT NULL,
    uncertain_cost INTEGER NOT NULL,  -- of calls that may have been charged with an unknown cost
    checksum       INTEGER NOT NULL,
    PRIMARY KEY (day, scope, run)
) STRICT, WITHOUT ROWID;
