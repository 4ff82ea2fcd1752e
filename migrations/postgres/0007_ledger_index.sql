-- The ledger counts rows of the log by user, day, epoch and verdict, from this index alone: a row of the
-- log is a hundred times as long. It begins with the user, so it serves what the shorter one did.
--
-- A plain index, in one step with what it replaces: the drain alone inserts into this table, and waits
-- with nothing held and its rows in the spool. CONCURRENTLY would wait for the other nodes that wait for
-- this step.

CREATE INDEX exchanges_by_day ON exchanges (user_id, quota_day, quota_epoch, verdict);
DROP INDEX exchanges_by_user_id;
