-- One transaction, so that no process sees the tables without their version.
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS dlock_locks (
    key            TEXT    PRIMARY KEY,
    -- The owner id: 16 bytes, and one more if the hold was revoked. Empty while a released key is kept locked.
    owner          BLOB    NOT NULL,
    token          INTEGER NOT NULL,
    expires_us     INTEGER NOT NULL,
    -- The client info of the current or last owner, for operators.
    claimant       TEXT    NOT NULL DEFAULT '',
    -- The readers or permit holders, and the queue of waiters. Ignored after `group_until_us`.
    lock_group     TEXT,
    group_until_us INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dlock_token (
    id   INTEGER PRIMARY KEY CHECK (id = 1),
    last INTEGER NOT NULL
);
INSERT OR IGNORE INTO dlock_token (id, last) VALUES (1, 0);
CREATE TRIGGER IF NOT EXISTS dlock_token_of_insert AFTER INSERT ON dlock_locks BEGIN
    UPDATE dlock_token SET last = NEW.token WHERE last < NEW.token;
END;
CREATE TRIGGER IF NOT EXISTS dlock_token_of_update AFTER UPDATE OF token ON dlock_locks BEGIN
    UPDATE dlock_token SET last = NEW.token WHERE last < NEW.token;
END;
-- The version of these tables. A process that does not know it refuses the file.
CREATE TABLE IF NOT EXISTS dlock_version (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL
);
INSERT OR IGNORE INTO dlock_version (id, version) VALUES (1, 1);
COMMIT;
