-- Sessions that can be renewed and ended one by one, second factors, and tokens that travel by mail.
-- An owner is an audience (user, staff, admin) and the row of that kind.

CREATE TABLE sessions (
    id         BLOB   NOT NULL PRIMARY KEY, -- UUIDv4
    audience   TEXT   NOT NULL,
    subject    BIGINT NOT NULL,
    version    BIGINT NOT NULL, -- the owner's token_version when it began
    began_at   BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE INDEX sessions_by_owner ON sessions (audience, subject, began_at);

-- The whole family of a session: a used one that is shown again ends it.
CREATE TABLE refresh_tokens (
    digest     BLOB   NOT NULL PRIMARY KEY,
    session_id BLOB   NOT NULL REFERENCES sessions (id) ON DELETE CASCADE,
    issued_at  BIGINT NOT NULL,
    used_at    BIGINT
);

CREATE INDEX refresh_tokens_by_session ON refresh_tokens (session_id);

CREATE TABLE second_factors (
    audience     TEXT   NOT NULL,
    subject      BIGINT NOT NULL,
    sealed       TEXT   NOT NULL, -- the TOTP secret
    last_step    BIGINT NOT NULL, -- no step up to this one is accepted (again)
    enrolled_at  BIGINT NOT NULL,
    confirmed_at BIGINT, -- NULL: begun, and not asked for yet
    PRIMARY KEY (audience, subject)
);

-- A used one is gone.
CREATE TABLE recovery_codes (
    audience TEXT   NOT NULL,
    subject  BIGINT NOT NULL,
    digest   BLOB   NOT NULL,
    PRIMARY KEY (audience, subject, digest)
);

-- One token of a purpose for each user. User 0 is nobody: their rows are guessed at when there is no
-- other, so that a guess takes as long.
CREATE TABLE mail_tokens (
    user_id    BIGINT NOT NULL,
    purpose    TEXT   NOT NULL, -- verify-email, reset-password
    digest     BLOB   NOT NULL,
    email_key  TEXT   NOT NULL, -- where it was sent
    expires_at BIGINT NOT NULL,
    guesses    BIGINT NOT NULL,
    PRIMARY KEY (user_id, purpose)
);

INSERT INTO mail_tokens (user_id, purpose, digest, email_key, expires_at, guesses)
    VALUES (0, 'verify-email', '', '', 0, 0), (0, 'reset-password', '', '', 0, 0);

-- The address that a user has shown to be theirs; no longer so when they have another.
CREATE TABLE verified_emails (
    user_id     BIGINT NOT NULL PRIMARY KEY,
    email_key   TEXT   NOT NULL,
    verified_at BIGINT NOT NULL
);
