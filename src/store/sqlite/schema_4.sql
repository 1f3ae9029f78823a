-- Version 4. Columns have the names of what they hold.
ALTER TABLE runs RENAME COLUMN places TO command;         -- JSON: the files and options of the command
ALTER TABLE runs RENAME COLUMN grounds TO manifest;       -- JSON: what the answers depend on
ALTER TABLE runs RENAME COLUMN edition TO revision;       -- counts changes after which items are processed again
ALTER TABLE runs RENAME COLUMN begun TO created_at;
ALTER TABLE runs RENAME COLUMN touched TO updated_at;

ALTER TABLE items RENAME COLUMN edition TO revision;
ALTER TABLE items RENAME COLUMN took TO duration_us;
ALTER TABLE items RENAME COLUMN lives TO incarnations;    -- actors that processed it
ALTER TABLE items RENAME COLUMN seal TO checksum;

ALTER TABLE steps RENAME COLUMN shaped TO answer_key;     -- fingerprint of everything that shaped the answer
ALTER TABLE steps RENAME COLUMN practice TO simulated;    -- whether the simulator answered
ALTER TABLE steps RENAME COLUMN trail TO attempts;        -- JSON: the attempt log
ALTER TABLE steps RENAME COLUMN maybe TO possibly_charged; -- failed calls that may have been charged
ALTER TABLE steps RENAME COLUMN written TO cache_write;   -- tokens
ALTER TABLE steps RENAME COLUMN reasoned TO reasoning;    -- tokens
ALTER TABLE steps RENAME COLUMN unknown TO unknown_cost;  -- calls of unknown cost
ALTER TABLE steps RENAME COLUMN recalled TO restored_from; -- the earlier session that has the answer
ALTER TABLE steps RENAME COLUMN seal TO checksum;

ALTER TABLE spending RENAME COLUMN perhaps TO uncertain_cost;
