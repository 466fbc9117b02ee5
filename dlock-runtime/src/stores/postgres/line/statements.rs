//! The SQL of the line.

use super::{GONE, RESERVED};
use crate::backend::{Claim, MAX_LISTED};
use crate::key::LockKey;
use crate::owner::OwnerId;
use crate::stores::postgres::dialect::{stored, text};
use crate::stores::postgres::notices::CHANNEL;
use crate::stores::postgres::plain::{acquire_if, granted};

/// The value of `released` in the row of a lease that somebody is in line for.
pub(in crate::stores::postgres) const MARKED: i16 = -1;

/// The statements for one table.
pub(in crate::stores::postgres) struct LineStatements {
    leases: String,
    line: String,
}

impl LineStatements {
    /// `schema`: that of the leases, quoted if need be.
    pub(super) fn new(leases: &str, schema: &str) -> Self {
        let table = leases.rsplit('.').next().unwrap_or(leases);
        Self { leases: leases.to_owned(), line: format!("{schema}.{table}_line") }
    }

    /// Returns the schema of the leases.
    pub(super) fn schema_of(leases: &str) -> String {
        format!(
            "SELECT quote_ident(nspname) FROM pg_class JOIN pg_namespace ON relnamespace = pg_namespace.oid \
             WHERE pg_class.oid = to_regclass('{leases}')"
        )
    }

    pub(super) fn table(&self) -> &str {
        &self.line
    }

    /// Returns whether the role may use the table. Fails if there is none, or if it is not one for lines.
    pub(super) fn probe(&self) -> String {
        let Self { line, .. } = self;
        let may = ["SELECT", "INSERT", "UPDATE", "DELETE"]
            .map(|privilege| format!("has_table_privilege('{line}', '{privilege}')"));
        format!(
            "SELECT {} FROM (SELECT) AS one \
             LEFT JOIN (SELECT owner, lock_key, channel, asked, due, hold, claimant FROM {line} LIMIT 0) AS columns ON true",
            may.join(" AND ")
        )
    }

    pub(super) fn schema(&self) -> String {
        include_str!("../line.sql").replace("dlock_leases_line", &self.line)
    }

    /// Acquires a key that is free or reserved for this claim, and otherwise stands in line for it. The arguments are
    /// those of an acquire, the process's channel, and how long the caller waits, in microseconds.
    ///
    /// Returns `(owner, token, NULL, NULL)` for a grant, and `(owner, NULL, µs left, whether it is in line)` for a key that is
    /// held. The mark is set before the answer: a release that does not see the new place notifies all, because it sees the
    /// mark. If the key was released before it could be marked, nothing is left of the lease.
    ///
    /// The place is locked before the row of the lease is marked, as in [`hand_over`](Self::hand_over), so that the two do
    /// not wait for each other.
    pub(in crate::stores::postgres) fn stand_in_line(&self) -> String {
        let Self { leases, line } = self;
        let granted = granted(leases);
        format!(
            "WITH asked AS MATERIALIZED (\
               SELECT asked.key, asked.owner, ttl, client_info, more, \
                 released = {MARKED} AS is_marked, \
                 coalesce(position(asked.owner IN gone || gone_before) > 0, false) AS is_gone, \
                 CASE \
                   WHEN lock_group IS NOT NULL AND group_until > clock_timestamp() THEN -1 \
                   WHEN expires_at > clock_timestamp() \
                     AND coalesce(lease.owner NOT IN (asked.owner, '>' || asked.owner), true) \
                   THEN greatest((extract(epoch FROM expires_at - clock_timestamp()) * 1000000)::bigint, 0) END AS held \
               FROM (SELECT $1 AS key, $2 AS owner, $3 AS ttl, $4 AS client_info, $5 AS more) AS asked \
               LEFT JOIN {leases} AS lease ON lock_key = asked.key), \
             granted AS ({granted}), \
             gone AS (DELETE FROM {line} AS place USING granted WHERE place.owner = granted.owner), \
             joined AS (\
               INSERT INTO {line} AS place (owner, lock_key, channel, asked, due, hold, claimant) \
               SELECT owner, key, $6, clock_timestamp(), \
                 clock_timestamp() + least($7, {GONE}) * interval '1 microsecond', \
                 least(ttl, {RESERVED}) * interval '1 microsecond', client_info \
               FROM asked WHERE held >= 0 AND NOT is_gone \
               ON CONFLICT (owner) DO UPDATE SET due = excluded.due \
               RETURNING owner), \
             marked AS (\
               UPDATE {leases} SET released = {MARKED} FROM asked JOIN joined USING (owner) \
               WHERE lock_key = key AND released <> {MARKED} AND expires_at > clock_timestamp() \
               RETURNING lock_key) \
             SELECT owner, token, NULL::bigint, NULL::boolean FROM granted \
             UNION ALL SELECT owner, NULL, \
               CASE WHEN is_marked OR is_gone OR held < 0 OR EXISTS (SELECT FROM marked) THEN held ELSE 0 END, \
               EXISTS (SELECT FROM joined) \
             FROM asked WHERE held IS NOT NULL",
            GONE = GONE.as_micros(),
            RESERVED = RESERVED.as_micros(),
        )
    }

    /// Releases a lease, or a reservation, and reserves the lock for the first one in line. Where others want it too, or
    /// nobody is in line, the lock is free, and all who wait are notified.
    ///
    /// The first one in line stays locked until the end, so that it cannot leave unnoticed. One that is asking or leaving at
    /// this moment is passed over.
    pub(in crate::stores::postgres) fn hand_over(&self) -> String {
        let Self { leases, line } = self;
        let is_for_line = format!(
            "released = {MARKED} AND NOT wanted AND (lock_group IS NULL OR group_until <= clock_timestamp())"
        );
        format!(
            "WITH next AS MATERIALIZED (\
               SELECT owner, channel, hold, claimant FROM {line} \
               WHERE lock_key = $1 AND due > statement_timestamp() AND owner <> $2 \
               ORDER BY asked LIMIT 1 FOR UPDATE SKIP LOCKED), \
             freed AS (\
               UPDATE {leases} SET \
                 owner = CASE WHEN {is_for_line} THEN (SELECT '>' || owner FROM next) END, \
                 expires_at = clock_timestamp() + CASE WHEN {is_for_line} \
                   THEN coalesce((SELECT hold FROM next), interval '0') ELSE interval '0' END, \
                 claimant = CASE WHEN {is_for_line} \
                   THEN coalesce((SELECT claimant FROM next), claimant) ELSE claimant END, \
                 wanted = false, \
                 released = CASE WHEN {is_for_line} AND EXISTS (SELECT FROM next) THEN {MARKED} \
                   WHEN wanted OR released = {MARKED} THEN 2 ELSE 1 END \
               WHERE lock_key = $1 AND expires_at > clock_timestamp() AND owner IN ($2, '>' || $2) \
               RETURNING lock_key, released, owner), \
             gone AS (DELETE FROM {line} AS place USING freed WHERE place.owner = substr(freed.owner, 2)) \
             SELECT lock_key, released, CASE \
               WHEN released = {MARKED} THEN pg_notify((SELECT channel FROM next), lock_key)::text \
               WHEN released = 2 THEN pg_notify('{CHANNEL}', lock_key)::text END \
             FROM freed"
        )
    }

    /// Acquires a key that is reserved for this claim. Its place may have been made anew by a request that a release
    /// overtook. Returns the token.
    pub(in crate::stores::postgres) fn acquire_reserved(&self) -> String {
        let Self { leases, line } = self;
        let taken = acquire_if(leases, "expires_at > clock_timestamp() AND owner = '>' || $2");
        format!(
            "WITH taken AS ({taken}), \
             gone AS (DELETE FROM {line} AS place USING taken WHERE place.owner = taken.owner) \
             SELECT token FROM taken"
        )
    }

    /// Keeps the places of these owners. Returns the owners that are in line for a key that is marked. It does not wait for
    /// a place that somebody has locked.
    pub(in crate::stores::postgres) fn keep(&self, claims: &[&Claim]) -> String {
        let Self { leases, line } = self;
        let owners = claims.iter().map(|claim| format!("'{}'", claim.owner));
        let owners = owners.collect::<Vec<_>>().join(", ");
        let kept = claims.iter().map(|claim| {
            let due = claim.wait_left.min(GONE).as_micros();
            format!("('{}', {due})", claim.owner)
        });
        let kept = kept.collect::<Vec<_>>().join(", ");
        format!(
            "WITH free AS MATERIALIZED (\
               SELECT owner FROM {line} WHERE owner IN ({owners}) FOR UPDATE SKIP LOCKED) \
             UPDATE {line} AS place SET due = clock_timestamp() + left_for * interval '1 microsecond' \
             FROM free JOIN (VALUES {kept}) AS kept (owner, left_for) USING (owner) \
             WHERE place.owner = free.owner AND EXISTS (\
               SELECT FROM {leases} AS lease WHERE lease.lock_key = place.lock_key AND released = {MARKED}) \
             RETURNING place.owner"
        )
    }

    pub(in crate::stores::postgres) fn leave(&self, owner: &OwnerId) -> String {
        format!("DELETE FROM {} WHERE owner = '{owner}'", self.line)
    }

    /// Returns the key, the owner and the client info of those in line for the keys with this prefix, in order.
    pub(in crate::stores::postgres) fn list(&self, prefix: &LockKey) -> String {
        let prefix = text(&stored(prefix));
        format!(
            "SELECT lock_key, owner, claimant FROM {} \
             WHERE left(lock_key, length({prefix})) = {prefix} AND due > clock_timestamp() \
             ORDER BY lock_key, asked LIMIT {MAX_LISTED}",
            self.line
        )
    }

    /// Deletes the places of those who have been gone for long.
    pub(in crate::stores::postgres) fn sweep(&self) -> String {
        format!("DELETE FROM {} WHERE due < clock_timestamp() - interval '1 minute'", self.line)
    }
}
