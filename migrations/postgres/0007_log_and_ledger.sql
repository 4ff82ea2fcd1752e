-- The ledger counts rows of the log by user, day, epoch and verdict, from this index alone: a row of the
-- log is a hundred times as long. It begins with the user, so it serves what the shorter one did.
--
-- A plain index, in one step with what it replaces: the drain alone inserts into this table, and waits
-- with nothing held and its rows in the spool. CONCURRENTLY would wait for the other nodes that wait for
-- this step.

CREATE INDEX exchanges_by_day ON exchanges (user_id, quota_day, quota_epoch, verdict);
DROP INDEX exchanges_by_user_id;

-- Files of theirs that had been set aside, outside of the database.
ALTER TABLE erasures ADD COLUMN files BIGINT NOT NULL DEFAULT 0;

-- Hours of which rows came to the log long after, so that usage_daily has to be summed up again for them.
CREATE TABLE usage_late (
    hour  BIGINT NOT NULL PRIMARY KEY, -- its first instant
    times BIGINT NOT NULL -- how often that was; one that moved on is not forgotten
);
