WITH asked AS MATERIALIZED (
  SELECT asked.key AS key, owner, ttl, client_info, more, (
    SELECT CASE
      WHEN lock_group IS NOT NULL AND group_until > clock_timestamp() THEN -1
      WHEN expires_at > clock_timestamp() AND owner IS DISTINCT FROM asked.owner
      THEN greatest((extract(epoch FROM expires_at - clock_timestamp()) * 1000000)::bigint, 0) END
    FROM dlock_leases WHERE lock_key = asked.key) AS held
  FROM (SELECT $1 AS key, $2 AS owner, $3 AS ttl, $4 AS client_info, $5 AS more) AS asked),
granted AS (
  INSERT INTO dlock_leases AS lease (lock_key, owner, token, expires_at, claimant, released)
  SELECT key, owner, greatest((date_part('epoch', clock_timestamp()) * 1000000)::bigint,
    (SELECT token + 1 FROM dlock_leases WHERE lock_key = '')) + more,
    clock_timestamp() + ttl * interval '1 microsecond', client_info, more
  FROM asked WHERE held IS NULL
  ON CONFLICT (lock_key) DO UPDATE SET
    token = CASE WHEN lease.owner = excluded.owner AND lease.expires_at > clock_timestamp()
      THEN lease.token
      ELSE greatest((date_part('epoch', clock_timestamp()) * 1000000)::bigint, lease.token + 1) + excluded.released END,
    owner = excluded.owner,
    expires_at = greatest(lease.expires_at, excluded.expires_at),
    claimant = excluded.claimant,
    lock_group = NULL
  WHERE (lease.owner = excluded.owner OR lease.expires_at <= clock_timestamp())
    AND (lease.lock_group IS NULL OR lease.group_until <= clock_timestamp())
    AND position(excluded.owner IN lease.gone || lease.gone_before) = 0
  RETURNING owner, token)
SELECT owner, token, NULL::bigint FROM granted
UNION ALL SELECT owner, NULL, held FROM asked WHERE held IS NOT NULL
