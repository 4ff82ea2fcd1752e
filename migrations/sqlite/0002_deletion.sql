-- Accounts that were deleted and can be restored, proof of those that were erased, and the session
-- that survives when its owner ends all others.

-- What is kept of a deleted user: no password, no key. user_id is the row they had, and have again
-- when they are restored. One name may be here several times.
CREATE TABLE deleted_users (
    user_id           BIGINT  NOT NULL PRIMARY KEY,
    username          TEXT    NOT NULL,
    name              TEXT    NOT NULL,
    email             TEXT    NOT NULL,
    about_me          TEXT    NOT NULL,
    hobbies           TEXT    NOT NULL,
    kind              TEXT    NOT NULL,
    time_created      BIGINT  NOT NULL,
    subscription_plan TEXT    NOT NULL,
    credits_main      BIGINT  NOT NULL,
    credits_reset     BIGINT  NOT NULL,
    quota_reset       BIGINT,
    quota_epoch       BIGINT  NOT NULL,
    access_rtype      TEXT    NOT NULL,
    level             TEXT    NOT NULL,
    additional_notes  TEXT    NOT NULL,
    is_active         BOOLEAN NOT NULL,
    allowed_ips       TEXT    NOT NULL,
    token_version     BIGINT  NOT NULL,
    deleted_at        BIGINT  NOT NULL,
    deleted_by        TEXT    NOT NULL -- user, staff:NAME, admin:NAME
);

CREATE INDEX deleted_users_by_time ON deleted_users (deleted_at);

-- That somebody was erased can be shown by whoever holds the number of their row and our secret.
CREATE TABLE erasures (
    proof     TEXT   NOT NULL PRIMARY KEY, -- HMAC-SHA256 of the user's number, in hex
    erased_at BIGINT NOT NULL,
    exchanges BIGINT NOT NULL -- rows of the log that lost their person
);

-- The session of token_version - 1 that is still good; NULL: none is.
ALTER TABLE users ADD COLUMN kept_session TEXT;

CREATE INDEX exchanges_by_user_id ON exchanges (user_id);
CREATE INDEX audit_by_target ON audit (target, at);
