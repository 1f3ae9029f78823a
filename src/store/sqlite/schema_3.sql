-- Version 3. A line is made of the records of one session; rows of runs and spending have a checksum, too.
ALTER TABLE items ADD COLUMN session INTEGER;   -- that settled it
ALTER TABLE steps ADD COLUMN recalled INTEGER;  -- the earlier session that has the answer
ALTER TABLE steps ADD COLUMN files TEXT;        -- JSON: the files that were attached, as they were
ALTER TABLE runs ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
ALTER TABLE spending ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0;
CREATE INDEX items_failed ON items (run, item) WHERE state = 'failed';
