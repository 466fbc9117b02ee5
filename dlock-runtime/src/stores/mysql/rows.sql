-- Row locks of dlock in a caller's own MySQL or MariaDB transaction. Run it once in the service's
-- database, or let `dlock_runtime::transaction::create_tables` do it. What the service's user needs:
--   GRANT SELECT, INSERT, UPDATE, DELETE ON dlock_rows TO service;
CREATE TABLE IF NOT EXISTS dlock_rows (
    lock_key VARBINARY(512)  NOT NULL PRIMARY KEY,
    -- Grows with every lock.
    token    BIGINT UNSIGNED NOT NULL,
    -- When it was last locked, in UTC.
    used_at  DATETIME(6)     NOT NULL
) ENGINE = InnoDB;
-- The row without a key holds the largest token of all rows that were deleted.
INSERT IGNORE INTO dlock_rows VALUES ('', 0, '1970-01-01');
