-- The last errand of each run: a transaction that moved units between it and the days. Where the word that
-- it was committed did not arrive, it is looked up here; SQLite always answers, and writes none.
CREATE TABLE errands (
    run_id BLOB NOT NULL PRIMARY KEY,
    name   BLOB, -- of the last one that was done, UUIDv7
    fence  BLOB  -- those named before are never done any more
);

-- The last errand that brought units, and how many.
ALTER TABLE leases ADD COLUMN errand BLOB;
ALTER TABLE leases ADD COLUMN brought BIGINT NOT NULL DEFAULT 0;
