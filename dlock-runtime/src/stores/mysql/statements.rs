//! The SQL of each operation: one statement, and with it one transaction.
//!
//! MySQL has no `RETURNING`. A statement reports its decision as its "last insert id", which
//! `LAST_INSERT_ID(expression)` sets; it is part of the statement's own answer. Assignments are made from left to
//! right, and each sees those before it.

use std::time::Duration;

use crate::backend::{Claim, MAX_LISTED, Release};
use crate::client_info::ClientInfo;
use crate::key::LockKey;
use crate::lock_table::record::Micros;
use crate::lock_table::row::{Change, LeaseRow, NewRow, Purpose};
use crate::stores::mysql::dialect::{NOW_MICROS, bytes};
use crate::stores::shared::sql_leases::LeaseStatements;

/// How long an abandoned acquire is remembered. When a stopped server resumes, it executes the acquire that is
/// still in its buffers, and the release behind it.
const TOMBSTONE: &str = "INTERVAL 2 MINUTE";

/// How long a row is kept after its last use: longer than any statement can be in flight. If a row were deleted
/// sooner, a statement that had computed its token earlier could create the row again.
const RETENTION: &str = "INTERVAL 1 MINUTE";

/// Longer than two tombstones.
const TOMBSTONES_OVER: &str = "INTERVAL 5 MINUTE";

/// When the statement began, which is before it locked its row: a lease counted from then ends sooner rather than
/// later.
pub(super) const NOW: &str = "UTC_TIMESTAMP(6)";

/// How many rows one sweep deletes.
const SWEPT_AT_ONCE: usize = 1000;

/// The statements for one table.
pub(crate) struct Statements {
    pub(super) table: String,
}

impl LeaseStatements for Statements {
    /// Affects a row if the lease was released; with `late_acquire`, see
    /// [`release_for_good`](Self::release_for_good).
    fn release(&self, claim: &Claim, release: Release) -> String {
        if release.late_acquire {
            return self.release_for_good(claim, release);
        }
        let Self { table } = self;
        let until = after(release.keep_for.unwrap_or_default());
        format!("UPDATE {table} SET owner = NULL, expires_at = {until} WHERE {}", held_by(claim))
    }

    /// Returns the row: owner, token, the lease's end, the group and its end, the present time (all times in µs since
    /// 1970), the client info, and whether this owner's acquire was abandoned.
    fn look(&self, claim: &Claim) -> String {
        let Self { table } = self;
        let (key, owner, row) = (bytes(claim.key.as_str().as_bytes()), claim.owner, row());
        format!(
            "SELECT {row}, LOCATE('{owner}', gone) + LOCATE('{owner}', gone_before) > 0 \
             FROM {table} WHERE lock_key = {key}"
        )
    }

    /// Returns the rows of the keys with this prefix that are held or waited for: the columns of
    /// [`look`](Self::look), and the key.
    fn list(&self, prefix: &LockKey) -> String {
        let Self { table } = self;
        let (prefix, row) = (bytes(prefix.as_str().as_bytes()), row());
        format!(
            "SELECT {row}, 0, lock_key FROM {table} \
             WHERE LEFT(lock_key, LENGTH({prefix})) = {prefix} AND lock_key <> '' \
               AND (expires_at > {NOW} OR lock_group IS NOT NULL AND group_until > {NOW}) \
             ORDER BY lock_key LIMIT {MAX_LISTED}"
        )
    }

    /// Creates a row that nobody holds.
    fn make(&self, key: &LockKey) -> String {
        let Self { table } = self;
        let (key, first, from) = (bytes(key.as_str().as_bytes()), first_token(), self.floor());
        format!(
            "INSERT IGNORE INTO {table} (lock_key, token, expires_at, gone, gone_before, gone_since, group_until) \
             SELECT {key}, {first}, {NOW}, '', '', '1970-01-01', '1970-01-01' {from}"
        )
    }

    /// Changes the row if it has not changed since the read, and then affects it.
    fn exchange(&self, claim: &Claim, old: &LeaseRow, new: &NewRow, purpose: Purpose) -> String {
        let Self { table } = self;
        let changed = changed(table, new);
        let unchanged = unchanged(table, claim, old, purpose);
        format!("UPDATE {table} SET {changed} WHERE {unchanged}")
    }
}

impl Statements {
    /// Affects a row if the lease was renewed. The statement may wait for the row longer than one that was sent later,
    /// so it never moves the end back.
    pub(super) fn renew(&self, claim: &Claim) -> String {
        let Self { table } = self;
        let until = after(claim.ttl);
        let held = held_by(claim);
        format!("UPDATE {table} SET expires_at = GREATEST(expires_at, {until}) WHERE {held}")
    }

    /// Its last insert id is the token, or 0 if somebody else has the key.
    pub(super) fn acquire(&self, claim: &Claim) -> String {
        let Self { table } = self;
        let key = bytes(claim.key.as_str().as_bytes());
        let owner = claim.owner;
        let until = after(claim.ttl);
        let live = format!("{table}.owner <=> '{owner}' AND {table}.expires_at > {NOW}");
        let grantable = format!(
            "({table}.expires_at <= {NOW} OR {table}.owner <=> '{owner}') \
             AND ({table}.lock_group IS NULL OR {table}.group_until <= {NOW}) \
             AND LOCATE('{owner}', {table}.gone) = 0 AND LOCATE('{owner}', {table}.gone_before) = 0"
        );
        let more = match claim.more_tokens() {
            0 => String::new(),
            more => format!(" + {more}"),
        };
        let first = format!("LAST_INSERT_ID({}{more})", first_token());
        let client_info = claim.client_info.to_text();
        let from = self.floor();
        format!(
            "INSERT INTO {table} \
               (lock_key, owner, token, expires_at, gone, gone_before, gone_since, group_until, claimant) \
             SELECT {key}, '{owner}', {first}, {until}, '', '', '1970-01-01', '1970-01-01', '{client_info}' {from} \
             ON DUPLICATE KEY UPDATE \
               lock_group = IF({grantable}, NULL, {table}.lock_group), \
               claimant = IF({grantable}, '{client_info}', {table}.claimant), \
               token = IF({grantable}, \
                 LAST_INSERT_ID(IF({live}, {table}.token, GREATEST({NOW_MICROS}, {table}.token + 1){more})), \
                 {table}.token + LAST_INSERT_ID(0)), \
               owner = IF({grantable}, '{owner}', {table}.owner), \
               expires_at = IF({table}.owner <=> '{owner}', \
                 GREATEST({table}.expires_at, {until}), {table}.expires_at)"
        )
    }

    /// Its last insert id is 1 if the lease was released. Leaves a tombstone: an acquire of this owner that is executed
    /// later is not granted.
    fn release_for_good(&self, claim: &Claim, release: Release) -> String {
        let Self { table } = self;
        let key = bytes(claim.key.as_str().as_bytes());
        let owner = claim.owner;
        let until = after(release.keep_for.unwrap_or_default());
        let ours = format!("{table}.owner <=> '{owner}' AND {table}.expires_at > {NOW}");
        let old = format!("{table}.gone_since < {NOW} - {TOMBSTONE}");
        let first = first_token();
        let from = self.floor();
        format!(
            "INSERT INTO {table} (lock_key, owner, token, expires_at, gone, gone_before, gone_since, group_until) \
             SELECT {key}, NULL, {first} + LAST_INSERT_ID(0), {NOW}, '{owner}', '', {NOW}, '1970-01-01' {from} \
             ON DUPLICATE KEY UPDATE \
               token = {table}.token + 0 * LAST_INSERT_ID(IF({ours}, 1, 0)), \
               expires_at = IF({ours}, {until}, {table}.expires_at), \
               owner = IF({table}.owner <=> '{owner}', NULL, {table}.owner), \
               gone_before = IF({old}, {table}.gone, {table}.gone_before), \
               gone = CONCAT(IF({old}, '', {table}.gone), '{owner}'), \
               gone_since = IF({old}, {NOW}, {table}.gone_since)"
        )
    }

    /// Changes all of these rows for acquires if none has changed since the read, and then affects them. It names the
    /// table once for each row.
    pub(super) fn exchange_all(&self, changes: &[Change<'_>]) -> String {
        let Self { table } = self;
        let (mut rows, mut sets, mut conditions) = (vec![], vec![], vec![]);
        for (number, Change { claim, old, new }) in changes.iter().enumerate() {
            let row = format!("row{number}");
            sets.push(changed(&row, new));
            conditions.push(unchanged(&row, claim, old, Purpose::Acquire));
            rows.push(format!("{table} AS {row}"));
        }
        let (rows, sets) = (rows.join(", "), sets.join(", "));
        format!("UPDATE {rows} SET {sets} WHERE {}", conditions.join(" AND "))
    }

    /// The same for more rows than can be joined, one after the other in one transaction and one message. A sum after
    /// each change is out of range if the row had changed, and ends the message.
    pub(super) fn exchange_one_by_one(&self, changes: &[Change<'_>]) -> String {
        let mut message = "BEGIN; ".to_owned();
        for Change { claim, old, new } in changes {
            message += &self.exchange(claim, old, new, Purpose::Acquire);
            message += "; SELECT 18446744073709551615 + (ROW_COUNT() < 1); ";
        }
        message + "COMMIT"
    }

    /// The largest token of deleted rows, if it was written long enough ago for every statement in flight to see it.
    pub(super) fn floor_if_settled(&self) -> String {
        let Self { table } = self;
        format!(
            "SELECT token FROM {table} WHERE lock_key = '' AND expires_at < {NOW} - {RETENTION}"
        )
    }

    /// Some keys that have not been used for a while, with tokens up to `floor`.
    pub(super) fn idle_up_to(&self, floor: u64) -> String {
        let (table, idle) = (&self.table, idle());
        format!(
            "SELECT lock_key FROM {table} WHERE {idle} AND token <= {floor} LIMIT {SWEPT_AT_ONCE}"
        )
    }

    /// The largest token of such keys, if it is above `floor`.
    pub(super) fn largest_idle(&self, floor: u64) -> String {
        let (table, idle) = (&self.table, idle());
        format!("SELECT MAX(token) FROM {table} WHERE {idle} HAVING MAX(token) > {floor}")
    }

    pub(super) fn delete_idle(&self, keys: &str, floor: u64) -> String {
        let Self { table } = self;
        let idle = idle();
        // Through the index: a scan of the whole table would lock all of it.
        format!(
            "DELETE {table} FROM {table} FORCE INDEX (PRIMARY) \
             WHERE lock_key IN ({keys}) AND token <= {floor} AND {idle}"
        )
    }

    pub(super) fn raise_floor(&self, token: u64) -> String {
        let Self { table } = self;
        format!(
            "UPDATE {table} SET token = GREATEST(token, {token}), expires_at = {NOW} \
             WHERE lock_key = '' AND expires_at < {NOW} - {RETENTION}"
        )
    }

    fn floor(&self) -> String {
        let Self { table } = self;
        format!("FROM {table} AS floor WHERE floor.lock_key = ''")
    }
}

/// Not used for a while, and without a tombstone that still counts.
fn idle() -> String {
    format!(
        "lock_key <> '' AND expires_at < {NOW} - {RETENTION} AND group_until < {NOW} - {RETENTION} \
         AND gone_since < {NOW} - {TOMBSTONES_OVER}"
    )
}

/// The token for a key without a row. It is computed before the row exists, which is safe because rows are kept for a
/// while.
pub(super) fn first_token() -> String {
    format!("GREATEST({NOW_MICROS}, floor.token + 1)")
}

fn row() -> String {
    let [expires, until] = ["expires_at", "group_until"].map(micros_of);
    format!("owner, token, {expires}, lock_group, {until}, {NOW_MICROS}, claimant")
}

/// Microseconds since 1970.
fn micros_of(column: &str) -> String {
    format!("TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {column})")
}

fn moment(micros: Micros) -> String {
    format!("TIMESTAMP'1970-01-01 00:00:00' + INTERVAL {micros} MICROSECOND")
}

/// The assignments of a change.
fn changed(row: &str, new: &NewRow) -> String {
    let owner = nullable(new.owner.written().as_deref());
    let group = nullable(new.group.as_deref());
    let client_info = new.client_info.as_ref().map(ClientInfo::to_text).unwrap_or_default();
    let [expires, until] = [new.expires, new.group_until].map(moment);
    let token = new.token;
    format!(
        "{row}.owner = {owner}, {row}.token = {token}, {row}.expires_at = {expires}, \
           {row}.lock_group = {group}, {row}.group_until = {until}, {row}.claimant = '{client_info}'"
    )
}

/// The condition that the row has not changed since the read.
fn unchanged(row: &str, claim: &Claim, old: &LeaseRow, purpose: Purpose) -> String {
    let key = bytes(claim.key.as_str().as_bytes());
    let owner = nullable(old.owner.written().as_deref());
    let group = nullable(old.group.as_deref());
    let (token, end) = (old.token, old.expires);
    let old_end = micros_of(&format!("{row}.expires_at"));
    let mut unchanged = format!(
        "{row}.lock_key = {key} AND {row}.owner <=> {owner} AND {row}.token = {token} \
           AND {old_end} = {end} AND {row}.lock_group <=> {group}"
    );
    if purpose == Purpose::Acquire {
        let owner = claim.owner;
        let not_given_up = format!(
            " AND LOCATE('{owner}', {row}.gone) = 0 AND LOCATE('{owner}', {row}.gone_before) = 0"
        );
        unchanged.push_str(&not_given_up);
    }
    unchanged
}

/// The columns are ASCII, but their contents may include quotes and backslashes.
fn nullable(text: Option<&str>) -> String {
    text.map_or_else(|| "NULL".to_owned(), |text| format!("_ascii {}", bytes(text.as_bytes())))
}

fn after(duration: Duration) -> String {
    format!("{NOW} + INTERVAL {} MICROSECOND", duration.as_micros())
}

fn held(key: &LockKey) -> String {
    format!("lock_key = {} AND expires_at > {NOW}", bytes(key.as_str().as_bytes()))
}

fn held_by(claim: &Claim) -> String {
    format!("{} AND owner = '{}'", held(&claim.key), claim.owner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::shared::sql_leases::shown::{KEEP, assert_shown};

    #[test]
    fn the_guide_shows_every_statement() {
        let sql = Statements { table: "dlock_leases".to_owned() };
        let claim = Claim::new("k".into(), Duration::from_secs(5));
        let release =
            |keep_for, late_acquire| sql.release(&claim, Release { keep_for, late_acquire });
        let statements = [
            sql.acquire(&claim),
            sql.renew(&claim),
            release(Some(KEEP), false),
            release(None, true),
            sql.look(&claim),
            sql.list(&claim.key),
            sql.make(&claim.key),
        ];
        let [acquire, read] = sql.acquire_several(&[&claim]);
        let several = [acquire, read, sql.renew_several(&[&claim]), sql.release_several(&[&claim])];
        let micros = claim.ttl.as_micros().to_string();
        let several = several.map(|statement| statement.replace(&micros, "$micros"));
        let statements: Vec<_> = statements.into_iter().chain(several).collect();
        let key = bytes(claim.key.as_str().as_bytes());
        let interval = |micros| format!("INTERVAL {micros} MICROSECOND");
        assert_shown(include_str!("guide.md"), &statements, &claim, &key, interval);
    }
}
