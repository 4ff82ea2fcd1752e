-- Conversations taken several at a time, and who holds them.

-- Units that were taken by a run which lost track of them: a power failure, a node that never came back.
-- granted = charged + what runs hold + forfeited, at every moment.
ALTER TABLE quota ADD COLUMN forfeited BIGINT NOT NULL DEFAULT 0;

-- What an earlier version had in flight when it was stopped the hard way.
UPDATE quota SET forfeited = granted - charged WHERE granted > charged;

-- A run of the gateway, from its start to its orderly end; then its row goes.
CREATE TABLE runs (
    id         UUID   NOT NULL PRIMARY KEY, -- UUIDv7
    node       TEXT   NOT NULL, -- the data folder's name for itself
    boot       TEXT   NOT NULL, -- of the machine; as long as it is the same, what was written to a file is there
    started_at BIGINT NOT NULL,
    beat_at    BIGINT NOT NULL  -- when it last said that it is alive
);

-- Units of a day that a run holds: free, in use, or used with the row still on its way here.
CREATE TABLE leases (
    run_id  UUID   NOT NULL,
    user_id BIGINT NOT NULL REFERENCES users (id),
    day     BIGINT NOT NULL,
    epoch   BIGINT NOT NULL,
    units   BIGINT NOT NULL CHECK (units >= 0),
    PRIMARY KEY (run_id, user_id, day, epoch)
);

CREATE INDEX leases_by_user ON leases (user_id);
