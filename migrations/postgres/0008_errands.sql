-- The last errand of each run: a transaction that moved units between it and the days. Where the word that
-- it was committed did not arrive, it is looked up here.
CREATE TABLE errands (
    run_id UUID NOT NULL PRIMARY KEY,
    name   UUID, -- of the last one that was done, UUIDv7
    fence  UUID  -- those named before are never done any more
);

-- The last errand that brought units, and how many.
ALTER TABLE leases ADD COLUMN errand UUID;
ALTER TABLE leases ADD COLUMN brought BIGINT NOT NULL DEFAULT 0;
