-- The ledger counts rows of the log by user, day, epoch and verdict, from this index alone: a row of the
-- log is a hundred times as long. It begins with the user, so it serves what the shorter one did.

CREATE INDEX exchanges_by_day ON exchanges (user_id, quota_day, quota_epoch, verdict);
DROP INDEX exchanges_by_user_id;
