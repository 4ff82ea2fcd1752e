-- The highest name of a row of the log that retention ever removed. It moves in the transaction that removes
-- rows; a record at or below it is never inserted, and so never charged, again.

CREATE TABLE log_removed (
    one     BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    highest UUID   NOT NULL -- UUIDv7
);

-- What was removed before this step is in the audit trail, by its time, and names begin with their time.
-- Records of today and yesterday may still be on their way.
INSERT INTO log_removed (one, highest)
SELECT 1, (lpad(to_hex(1000 * GREATEST(0, LEAST(
        COALESCE(MAX(floor(extract(epoch FROM (detail::json ->> 'before')::timestamptz))::bigint), 0),
        floor(extract(epoch FROM date_trunc('day', now() AT TIME ZONE 'UTC') - interval '1 day'))::bigint)
        )), 12, '0') || repeat('0', 20))::uuid
FROM audit WHERE action = 'message_log.forget' AND target = 'message log';
