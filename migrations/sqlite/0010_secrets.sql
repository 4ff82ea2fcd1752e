-- What this database remembers its secrets by. Two are valid while one replaces the other.
CREATE TABLE secret_fingerprints (
    secret      TEXT   NOT NULL, -- secret_key, encryption_key
    slot        BIGINT NOT NULL CHECK (slot IN (1, 2)),
    fingerprint TEXT   NOT NULL, -- bcrypt of what is derived from the secret for this alone
    made_at     BIGINT NOT NULL,
    PRIMARY KEY (secret, slot)
);
