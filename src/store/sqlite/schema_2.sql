-- Version 2. What calls cost, by the UTC day on which that was written down. It outlives the run.
CREATE TABLE spending (
    day      INTEGER NOT NULL,  -- since 1970
    provider TEXT    NOT NULL,
    run      INTEGER NOT NULL,
    cost     INTEGER NOT NULL,
    perhaps  INTEGER NOT NULL,  -- of calls that may have been charged for, and nobody knows how much
    PRIMARY KEY (day, provider, run)
) STRICT, WITHOUT ROWID;
CREATE INDEX spending_run ON spending (run);

-- What version 1 knew: the money of each attempt, and when its run was last at work.
INSERT INTO spending
SELECT runs.touched / 86400000, substr(attempt.value ->> 'lane', 1, instr(attempt.value ->> 'lane', '/') - 1),
       steps.run, sum(attempt.value ->> 'cost'), 0
FROM steps JOIN runs ON runs.run = steps.run, json_each(steps.trail) AS attempt
WHERE attempt.value ->> 'cost' > 0
GROUP BY 1, 2, 3;
