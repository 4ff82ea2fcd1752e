-- Where a session began and when it was last used, for its owner and for admins; NULL for sessions of the version before.
ALTER TABLE sessions ADD COLUMN client_ip TEXT;
ALTER TABLE sessions ADD COLUMN user_agent TEXT;
ALTER TABLE sessions ADD COLUMN last_used_at BIGINT;
ALTER TABLE sessions ADD COLUMN last_ip TEXT;

-- Accounts that somebody else has had in hand: the next change of the password ends every key.
CREATE TABLE takeovers (
    user_id   BIGINT NOT NULL PRIMARY KEY,
    marked_at BIGINT NOT NULL,
    reason    TEXT   NOT NULL -- marked (no login until then), refresh_token_reused
);

-- Registrations that wait for their letter to be confirmed. One of an address that an account has leads nowhere.
CREATE TABLE registrations (
    email_key     TEXT   NOT NULL PRIMARY KEY,
    email         TEXT   NOT NULL,
    username      TEXT   NOT NULL,
    name          TEXT   NOT NULL,
    about_me      TEXT   NOT NULL,
    hobbies       TEXT   NOT NULL,
    kind          TEXT   NOT NULL,
    password_hash TEXT   NOT NULL,
    digest        BYTEA  NOT NULL, -- of the token in the letter
    expires_at    BIGINT NOT NULL,
    guesses       BIGINT NOT NULL
);

CREATE INDEX registrations_by_end ON registrations (expires_at);

-- Changes of a user's e-mail address that wait for the letter to the new one to be confirmed.
CREATE TABLE email_changes (
    user_id    BIGINT NOT NULL PRIMARY KEY,
    email      TEXT   NOT NULL,
    email_key  TEXT   NOT NULL,
    digest     BYTEA  NOT NULL,
    expires_at BIGINT NOT NULL,
    guesses    BIGINT NOT NULL
);

CREATE INDEX email_changes_by_email ON email_changes (email_key);
