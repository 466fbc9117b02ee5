-- The line of those that wait for a lock in PostgreSQL. dlock creates this table if it may. Without it, a release
-- notifies all waiters. What the service's role needs:
--   GRANT SELECT, INSERT, UPDATE, DELETE ON dlock_leases_line TO service;
-- It is not logged: whoever waits asks again within a second, so a crash that empties it does no harm.
CREATE UNLOGGED TABLE IF NOT EXISTS dlock_leases_line (
    -- 32 hexadecimal digits.
    owner    text        COLLATE "C" PRIMARY KEY,
    lock_key text        COLLATE "C" NOT NULL,
    -- The process listens here for keys that are handed over to it.
    channel  text        NOT NULL,
    -- Its position: the first to ask is the first to be served.
    asked    timestamptz NOT NULL,
    -- It counts as gone from then on, unless it asks again.
    due      timestamptz NOT NULL,
    -- For how long a lock is reserved for it.
    hold     interval    NOT NULL,
    -- Who it is, for people.
    claimant text        NOT NULL,
    UNIQUE (lock_key, due, owner)
);
