-- Users, their keys, staff, admins, the day's quota, what was said, and who changed what.
-- Instants are milliseconds since 1970-01-01T00:00:00Z; days are days since 1970-01-01; JSON is text.
-- Columns named *_key hold the lower-case form by which names are compared.

CREATE TABLE users (
    id                INTEGER PRIMARY KEY AUTOINCREMENT,
    username          TEXT    NOT NULL,
    username_key      TEXT    NOT NULL UNIQUE,
    name              TEXT    NOT NULL,
    email             TEXT    NOT NULL,
    email_key         TEXT    NOT NULL UNIQUE,
    password_hash     TEXT    NOT NULL,
    about_me          TEXT    NOT NULL,
    hobbies           TEXT    NOT NULL,
    kind              TEXT    NOT NULL CHECK (kind IN ('Personal', 'Business')),
    time_created      BIGINT  NOT NULL,
    subscription_plan TEXT    NOT NULL,
    credits_main      BIGINT  NOT NULL,
    credits_reset     BIGINT  NOT NULL,
    quota_reset       BIGINT  CHECK (quota_reset >= 0), -- NULL: the plan's limit
    quota_epoch       BIGINT  NOT NULL DEFAULT 0,
    access_rtype      TEXT    NOT NULL,
    level             TEXT    NOT NULL,
    additional_notes  TEXT    NOT NULL,
    is_active         BOOLEAN NOT NULL,
    allowed_ips       TEXT    NOT NULL,
    token_version     BIGINT  NOT NULL DEFAULT 0,
    updated_at        BIGINT  NOT NULL
);

CREATE TABLE keys (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id      BIGINT NOT NULL REFERENCES users (id),
    name         TEXT   NOT NULL DEFAULT 'default',
    digest       BLOB   NOT NULL UNIQUE,
    sealed       TEXT   NOT NULL, -- '' once revoked
    prefix       TEXT   NOT NULL,
    format       BIGINT NOT NULL,
    created_at   BIGINT NOT NULL,
    last_used_at BIGINT,
    expires_at   BIGINT,
    revoked_at   BIGINT
);

-- One live key of a name for each user.
CREATE UNIQUE INDEX keys_live ON keys (user_id, name) WHERE revoked_at IS NULL;

CREATE TABLE staff (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    name          TEXT    NOT NULL,
    username      TEXT    NOT NULL,
    username_key  TEXT    NOT NULL UNIQUE,
    email         TEXT    NOT NULL,
    email_key     TEXT    NOT NULL UNIQUE,
    password_hash TEXT    NOT NULL,
    staff_level   TEXT    NOT NULL,
    time_created  BIGINT  NOT NULL,
    is_active     BOOLEAN NOT NULL,
    token_version BIGINT  NOT NULL DEFAULT 0
);

CREATE TABLE admins (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    username      TEXT   NOT NULL,
    username_key  TEXT   NOT NULL UNIQUE,
    password_hash TEXT   NOT NULL,
    time_created  BIGINT NOT NULL,
    token_version BIGINT NOT NULL DEFAULT 0
);

-- allowance: conversations of the day; granted: given out and not given back;
-- charged: granted ones that ended and cost; refunded: how many were given back.
CREATE TABLE quota (
    user_id   BIGINT NOT NULL REFERENCES users (id),
    day       BIGINT NOT NULL,
    epoch     BIGINT NOT NULL,
    allowance BIGINT NOT NULL CHECK (allowance >= 0),
    granted   BIGINT NOT NULL,
    charged   BIGINT NOT NULL,
    refunded  BIGINT NOT NULL,
    PRIMARY KEY (user_id, day, epoch)
);

-- The log outlives the users in it, so nothing here refers to their rows.
CREATE TABLE exchanges (
    id                BLOB    NOT NULL PRIMARY KEY, -- UUIDv7
    user_id           BIGINT,
    key_id            BIGINT,
    username          TEXT    NOT NULL,
    email             TEXT    NOT NULL,
    request_id        TEXT    NOT NULL,
    route             TEXT    NOT NULL,
    call              TEXT    NOT NULL,
    model             TEXT    NOT NULL,
    messages          TEXT, -- NULL: not kept, or kept no longer
    answer            TEXT, -- as above
    research_model    BOOLEAN NOT NULL,
    time              BIGINT  NOT NULL,
    status            BIGINT,
    stream            BOOLEAN NOT NULL,
    outcome           TEXT    NOT NULL,
    verdict           TEXT    NOT NULL, -- charged, refunded, free
    reason            TEXT    NOT NULL,
    quota_day         BIGINT,
    quota_epoch       BIGINT,
    first_byte_ms     BIGINT,
    latency_ms        BIGINT  NOT NULL,
    bytes_in          BIGINT  NOT NULL,
    bytes_out         BIGINT  NOT NULL,
    prompt_tokens     BIGINT,
    completion_tokens BIGINT,
    total_tokens      BIGINT,
    cached_tokens     BIGINT,
    reasoning_tokens  BIGINT,
    usage_source      TEXT    NOT NULL,
    finish_reason     TEXT,
    truncated         BOOLEAN NOT NULL,
    client_ip         TEXT    NOT NULL
);

CREATE INDEX exchanges_by_time ON exchanges (time);
CREATE INDEX exchanges_by_user ON exchanges (username, time);

CREATE TABLE audit (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    at         BIGINT NOT NULL,
    actor_kind TEXT   NOT NULL, -- nobody, user, staff, admin, system
    actor_id   BIGINT,
    actor_name TEXT   NOT NULL,
    action     TEXT   NOT NULL,
    target     TEXT   NOT NULL,
    detail     TEXT   NOT NULL,
    request_id TEXT   NOT NULL,
    client_ip  TEXT
);
