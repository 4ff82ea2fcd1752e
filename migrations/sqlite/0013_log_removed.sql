-- The highest name of a row of the log that retention ever removed. It moves in the transaction that removes
-- rows; a record at or below it is never inserted, and so never charged, again.

CREATE TABLE log_removed (
    one     BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    highest BLOB   NOT NULL -- UUIDv7
);

-- What was removed before this step is in the audit trail, by its time, and names begin with their time.
-- Records of today and yesterday may still be on their way.
INSERT INTO log_removed (one, highest)
SELECT 1, unhex(printf('%012x', 1000 * MAX(0, MIN(
        COALESCE(MAX(unixepoch(json_extract(detail, '$.before'))), 0),
        unixepoch('now', 'start of day', '-1 day')))) || '00000000000000000000')
FROM audit WHERE action = 'message_log.forget' AND target = 'message log';
