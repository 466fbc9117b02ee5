UPDATE dlock_leases SET
  owner = NULL,
  expires_at = clock_timestamp(),
  wanted = false,
  released = CASE WHEN wanted THEN 2 ELSE 1 END
WHERE lock_key = $1 AND expires_at > clock_timestamp() AND owner = $2
RETURNING lock_key, released,
  CASE WHEN released = 2 THEN pg_notify('dlock', lock_key)::text END
