WITH told AS (
    UPDATE dlock_leases SET wanted = true
    WHERE lock_key = $1
        AND (expires_at > clock_timestamp() OR (lock_group IS NOT NULL AND group_until > clock_timestamp()))
        AND NOT wanted
    RETURNING 1)
SELECT 1 WHERE EXISTS (SELECT FROM told)
    OR EXISTS (SELECT FROM dlock_leases WHERE lock_key = $1
        AND (expires_at > clock_timestamp() OR (lock_group IS NOT NULL AND group_until > clock_timestamp()))
        AND wanted)
