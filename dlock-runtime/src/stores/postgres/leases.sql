-- Leases of dlock in PostgreSQL. Run it once in the schema where the service finds its tables, or let
-- the service make the table itself. What the service's role needs:
--   GRANT SELECT, INSERT, UPDATE, DELETE ON dlock_leases TO service;
-- The table of those that wait is in `line.sql`; it is optional.
CREATE TABLE IF NOT EXISTS dlock_leases (
    lock_key    text COLLATE "C" PRIMARY KEY,
    -- 32 hexadecimal digits, after a `~` if its hold was revoked, or after a `>` if the key is reserved for a waiter;
    -- nobody's while a released key is kept locked, or is free.
    owner       text,
    -- Grows with every grant.
    token       bigint      NOT NULL,
    -- The lease ends here, by this server's clock; the key is free from then on.
    expires_at  timestamptz NOT NULL,
    -- Does a process wait for the key, so that its release is to be announced?
    wanted      boolean     NOT NULL DEFAULT false,
    -- What the last release found: 0 nothing of its owner's, 1 a lease, 2 a lease that somebody waits for; or -1:
    -- somebody is in line. Before the first release, other values mean nothing.
    released    smallint    NOT NULL DEFAULT 0,
    -- Owners whose acquire was given up: it must not grant when it arrives late. The elder ones are
    -- dropped when the younger ones are old enough.
    gone        text        NOT NULL DEFAULT '',
    gone_before text        NOT NULL DEFAULT '',
    gone_since  timestamptz NOT NULL DEFAULT '-infinity',
    -- Who share the key, and who wait for it in order; it means nothing after its end.
    lock_group  text,
    group_until timestamptz NOT NULL DEFAULT '-infinity',
    -- Who the owner is, or was, for people.
    claimant    text        NOT NULL DEFAULT ''
) WITH (fillfactor = 50);
-- The row without a key holds the largest token of all rows that were deleted, and this table's version.
INSERT INTO dlock_leases (lock_key, token, expires_at, claimant) VALUES ('', 0, '-infinity', 'v1') ON CONFLICT DO NOTHING;
