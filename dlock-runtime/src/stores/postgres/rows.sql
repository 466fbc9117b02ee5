-- Row locks of dlock in a caller's own PostgreSQL transaction. Run it once in the schema where the
-- service finds its tables, or let `dlock_runtime::transaction::create_tables` do it. What the
-- service's role needs:
--   GRANT SELECT, INSERT, UPDATE, DELETE ON dlock_rows TO service;
--   GRANT USAGE, UPDATE ON SEQUENCE dlock_tokens TO service;
-- A row lives no longer than the transaction that locks it.
CREATE TABLE IF NOT EXISTS dlock_rows (
    lock_key text COLLATE "C" PRIMARY KEY
);
CREATE SEQUENCE IF NOT EXISTS dlock_tokens CACHE 1;
-- Tokens are the time in microseconds, or the next number where that is more; the sequence is raised to each
-- of them, for which a role needs UPDATE.
SELECT setval('dlock_tokens', (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)
FROM dlock_tokens WHERE NOT is_called;
