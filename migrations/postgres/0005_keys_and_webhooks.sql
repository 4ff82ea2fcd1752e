-- Several keys for a user, each with rules of its own, and what webhooks have still to be told.

-- allowed_ips: networks, a JSON list; plan: the plan that narrows this key; NULL: none.
-- After a rotation with a grace period former_digest works beside digest until former_until.
ALTER TABLE keys ADD COLUMN label TEXT NOT NULL DEFAULT '';
ALTER TABLE keys ADD COLUMN allowed_ips TEXT NOT NULL DEFAULT '[]';
ALTER TABLE keys ADD COLUMN plan TEXT;
ALTER TABLE keys ADD COLUMN former_digest BYTEA;
ALTER TABLE keys ADD COLUMN former_until BIGINT;

CREATE UNIQUE INDEX keys_former ON keys (former_digest);

-- What is told at all: the configuration's list, written when a gateway starts.
CREATE TABLE webhook_events (
    event TEXT NOT NULL PRIMARY KEY
);

-- What is not delivered yet. Rows go when they are delivered or given up.
CREATE TABLE webhook_queue (
    id         TEXT   NOT NULL PRIMARY KEY,
    event      TEXT   NOT NULL,
    user_id    BIGINT, -- whom it tells of
    payload    TEXT   NOT NULL,
    created_at BIGINT NOT NULL,
    attempts   BIGINT NOT NULL,
    next_at    BIGINT NOT NULL -- not to be taken before
);

CREATE INDEX webhook_queue_due ON webhook_queue (next_at);
