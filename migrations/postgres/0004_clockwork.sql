-- Runs of jobs, the days' usage, and the chain of the audit trail.

-- One row for each time a job was due, so that several nodes run it once. due_at of a run by hand is
-- when it was asked for.
CREATE TABLE job_runs (
    job         TEXT    NOT NULL,
    due_at      BIGINT  NOT NULL,
    node        TEXT    NOT NULL,
    by_hand     BOOLEAN NOT NULL,
    started_at  BIGINT  NOT NULL,
    beat_at     BIGINT  NOT NULL, -- when its node last said that it is alive
    finished_at BIGINT, -- NULL: running, or left behind by a node that died
    ok          BOOLEAN,
    result      TEXT,
    PRIMARY KEY (job, due_at)
);

-- No job runs twice at a time, on however many nodes.
CREATE UNIQUE INDEX job_runs_running ON job_runs (job) WHERE finished_at IS NULL;

-- What was used on a day of limits.time_zone; the sum of the log's rows, which it outlives.
CREATE TABLE usage_daily (
    day               BIGINT NOT NULL,
    user_id           BIGINT NOT NULL, -- 0: nobody's any more
    username          TEXT   NOT NULL,
    model             TEXT   NOT NULL,
    route             TEXT   NOT NULL,
    outcome           TEXT   NOT NULL,
    requests          BIGINT NOT NULL,
    conversations     BIGINT NOT NULL, -- charged
    refunded          BIGINT NOT NULL,
    prompt_tokens     BIGINT NOT NULL,
    completion_tokens BIGINT NOT NULL,
    total_tokens      BIGINT NOT NULL,
    cached_tokens     BIGINT NOT NULL,
    reasoning_tokens  BIGINT NOT NULL,
    bytes_in          BIGINT NOT NULL,
    bytes_out         BIGINT NOT NULL,
    latency_ms        BIGINT NOT NULL, -- of all requests together
    PRIMARY KEY (day, user_id, username, model, route, outcome)
);

CREATE INDEX usage_by_user ON usage_daily (user_id);

CREATE INDEX quota_by_day ON quota (day);
CREATE INDEX keys_revoked ON keys (revoked_at) WHERE revoked_at IS NOT NULL;

-- Each row's hash covers the row before it. Rows from before this step have neither.
ALTER TABLE audit ADD COLUMN seq BIGINT;
ALTER TABLE audit ADD COLUMN hash BYTEA;
CREATE UNIQUE INDEX audit_by_seq ON audit (seq);

-- The last link of the chain. Writers take turns at this row.
CREATE TABLE audit_head (
    one  BIGINT NOT NULL PRIMARY KEY CHECK (one = 1),
    seq  BIGINT NOT NULL,
    hash BYTEA NOT NULL
);

INSERT INTO audit_head (one, seq, hash) VALUES (1, 0, decode(repeat('00', 32), 'hex'));
