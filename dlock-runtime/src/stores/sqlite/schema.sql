-- All of it or nothing: nobody sees tables without their version.
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS dlock_locks (
    key            TEXT    PRIMARY KEY,
    -- 16 bytes, and one more if its hold was revoked; none while a released key is kept locked.
    owner          BLOB    NOT NULL,
    token          INTEGER NOT NULL,
    expires_us     INTEGER NOT NULL,
    -- Who the owner is, or was, for people.
    claimant       TEXT    NOT NULL DEFAULT '',
    -- Who share the key, and who wait for it in order; it means nothing after its end.
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
-- Which form of these tables is used. A process that does not know it uses none of them.
CREATE TABLE IF NOT EXISTS dlock_version (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL
);
INSERT OR IGNORE INTO dlock_version (id, version) VALUES (1, 1);
COMMIT;
