-- Leases of dlock in MySQL or MariaDB. Run it once in the service's database, or let the service make
-- the table itself. What the service's user needs:
--   GRANT SELECT, INSERT, UPDATE, DELETE ON dlock_leases TO service;
CREATE TABLE IF NOT EXISTS dlock_leases (
    lock_key    VARBINARY(512)  NOT NULL PRIMARY KEY,
    -- 32 hexadecimal digits, after a `~` if its hold was revoked; nobody's while a released key is kept locked,
    -- or is free.
    owner       VARCHAR(33) CHARACTER SET ascii COLLATE ascii_bin NULL,
    -- Grows with every grant.
    token       BIGINT UNSIGNED NOT NULL,
    -- The lease ends here, by this server's clock in UTC; the key is free from then on.
    expires_at  DATETIME(6)     NOT NULL,
    -- Owners whose acquire was given up: it must not grant when it arrives late. The elder ones are
    -- dropped when the younger ones are old enough.
    gone        MEDIUMTEXT CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    gone_before MEDIUMTEXT CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    gone_since  DATETIME(6)     NOT NULL,
    -- Who share the key, and who wait for it in order; it means nothing after its end.
    lock_group  MEDIUMTEXT CHARACTER SET ascii COLLATE ascii_bin NULL,
    group_until DATETIME(6)     NOT NULL,
    -- Who the owner is, or was, for people.
    claimant    VARCHAR(1000) CHARACTER SET ascii COLLATE ascii_bin NOT NULL DEFAULT ''
) ENGINE = InnoDB;
-- The row without a key holds the largest token of all rows that were deleted, and this table's version.
INSERT IGNORE INTO dlock_leases VALUES ('', NULL, 0, '1970-01-01', '', '', '1970-01-01', NULL, '1970-01-01', 'v1');
