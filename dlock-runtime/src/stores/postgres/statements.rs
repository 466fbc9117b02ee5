//! The SQL of each operation: one statement, and with it one transaction.
//!
//! `ON CONFLICT DO UPDATE` and `UPDATE` lock the row before they compute anything from it, and work on its latest
//! version: two operations on one key take effect one after the other. Under an isolation above READ COMMITTED, the
//! later one fails instead, and is sent again.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::{Claim, LockState, MAX_LISTED, Mode, Release, Waiter};
use crate::client_info::ClientInfo;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::lock_table::record::Micros;
use crate::lock_table::row::{Change, LeaseRow, NewRow, Purpose};
use crate::lock_table::words;
use crate::stores::postgres::dialect::{read_key, stored, text};
use crate::stores::postgres::line::{Line, MARKED};
use crate::stores::postgres::plain::Plain;
use crate::stores::postgres::recent_keys::RecentKeys;
use crate::stores::shared::sql::read;
use crate::stores::shared::sql_leases::LeaseStatements;
use crate::stores::shared::sql_leases::connections::{Lane, LeaseStore};
use crate::stores::shared::wakeups::Topics;

/// The present time in microseconds since 1970. Not `now()`, which is when the transaction began.
pub(super) const NOW_MICROS: &str = "(date_part('epoch', clock_timestamp()) * 1000000)::bigint";

/// The token for a key without a row. It is computed before the row exists, which is safe because rows are kept for a
/// while.
pub(super) fn first_token(table: &str) -> String {
    format!("greatest({NOW_MICROS}, (SELECT token + 1 FROM {table} WHERE lock_key = ''))")
}

/// How long an abandoned acquire is remembered. When a stopped server resumes, it executes the acquire that is
/// still in its buffers, and the release behind it.
const TOMBSTONE: &str = "interval '2 minutes'";

/// How long a row is kept after its last use: longer than any statement can be in flight. If a row were deleted
/// sooner, a statement that had computed its token earlier could create the row again.
const RETENTION: &str = "interval '1 minute'";

/// The statements for one table.
pub(crate) struct Statements {
    pub(super) table: String,
    pub(super) plain: Plain,
    pub(super) recent: RecentKeys,
    /// What the process is notified of.
    pub(super) topics: Arc<Topics>,
    /// `None`: a release notifies all who wait.
    pub(super) line: Option<Arc<Line>>,
}

impl Statements {
    pub(super) fn of(table: String, topics: Arc<Topics>, line: Option<Arc<Line>>) -> Self {
        let plain = Plain::new(&table, line.as_ref().map(|line| &line.sql));
        Self { table, plain, recent: RecentKeys::default(), topics, line }
    }
}

impl LeaseStatements for Statements {
    /// Returns a row if the lease was released. While the key stays locked, waking a waiter would be useless.
    fn release(&self, claim: &Claim, release: Release) -> String {
        if release.late_acquire {
            return self.release_for_good(claim, release);
        }
        let Self { table, .. } = self;
        let until = after(release.keep_for.unwrap_or_default());
        // Those in line ask again when it is over.
        let released = format!("CASE WHEN released = {MARKED} THEN {MARKED} ELSE 1 END");
        let changes = format!("owner = NULL, expires_at = {until}, released = {released}");
        format!("UPDATE {table} SET {changes} WHERE {} RETURNING released", held_by(claim))
    }

    /// Returns the row: owner, token, the lease's end, the group and its end, the present time (all times in µs since
    /// 1970), the client info, and whether this owner's acquire was abandoned.
    fn look(&self, claim: &Claim) -> String {
        let Self { table, .. } = self;
        let (key, owner, row) = (text(&stored(&claim.key)), claim.owner, row());
        format!(
            "SELECT {row}, position('{owner}' IN gone || gone_before) > 0 \
             FROM {table} WHERE lock_key = {key}"
        )
    }

    /// Returns the rows of the keys with this prefix that are held or waited for: the columns of
    /// [`look`](Self::look), and the key.
    fn list(&self, prefix: &LockKey) -> String {
        let Self { table, .. } = self;
        let (prefix, row) = (text(&stored(prefix)), row());
        format!(
            "SELECT {row}, false, lock_key FROM {table} \
             WHERE left(lock_key, length({prefix})) = {prefix} AND lock_key <> '' \
               AND (expires_at > clock_timestamp() OR {GROUPED}) \
             ORDER BY lock_key LIMIT {MAX_LISTED}"
        )
    }

    /// Creates a row that nobody holds.
    fn make(&self, key: &LockKey) -> String {
        let Self { table, .. } = self;
        let (key, first_token) = (text(&stored(key)), first_token(&self.table));
        format!(
            "INSERT INTO {table} (lock_key, token, expires_at) \
             VALUES ({key}, {first_token}, clock_timestamp()) ON CONFLICT DO NOTHING"
        )
    }

    /// Changes the row if it has not changed since the read, and then returns a row.
    fn exchange(&self, claim: &Claim, old: &LeaseRow, new: &NewRow, purpose: Purpose) -> String {
        let Self { table, .. } = self;
        let (changed, unchanged) = (changed(new, purpose), unchanged(claim, old, purpose));
        let changed = format!("UPDATE {table} SET {changed} WHERE {unchanged} RETURNING released");
        if purpose == Purpose::Release { announced(&changed, &claim.key) } else { changed }
    }
}

impl Statements {
    /// Releases it for good: leaves a tombstone: an acquire of this owner that is executed later is not granted.
    fn release_for_good(&self, claim: &Claim, release: Release) -> String {
        let Self { table, .. } = self;
        let key = text(&stored(&claim.key));
        let owner = claim.owner;
        let first_token = first_token(&self.table);
        let is_ours = format!("lease.owner IN ('{owner}', '>{owner}')");
        let ours = format!("{is_ours} AND lease.expires_at > clock_timestamp()");
        let keep = release.keep_for.unwrap_or_default();
        // While the key stays locked, waking a waiter would be useless.
        let woken = if keep.is_zero() {
            format!("{ours} AND (lease.wanted OR lease.released = {MARKED})")
        } else {
            "false".to_owned()
        };
        let until = after(keep);
        let old = format!("lease.gone_since < clock_timestamp() - {TOMBSTONE}");
        let freed = format!(
            "INSERT INTO {table} AS lease (lock_key, token, expires_at, gone, gone_since) \
             VALUES ({key}, {first_token}, clock_timestamp(), '{owner}', clock_timestamp()) \
             ON CONFLICT (lock_key) DO UPDATE SET \
               released = CASE WHEN {woken} THEN 2 WHEN {ours} THEN 1 \
                 WHEN lease.released = {MARKED} THEN {MARKED} ELSE 0 END, \
               wanted = lease.wanted AND NOT ({woken}), \
               expires_at = CASE WHEN {ours} THEN {until} ELSE lease.expires_at END, \
               owner = CASE WHEN {is_ours} THEN NULL ELSE lease.owner END, \
               gone_before = CASE WHEN {old} THEN lease.gone ELSE lease.gone_before END, \
               gone = CASE WHEN {old} THEN '' ELSE lease.gone END || excluded.gone, \
               gone_since = CASE WHEN {old} THEN clock_timestamp() ELSE lease.gone_since END \
             RETURNING released"
        );
        announced(&freed, &claim.key)
    }

    /// Changes all of these rows for acquires if none has changed since the read, and then returns a row.
    ///
    /// It first locks the rows in key order and checks them again. Locked rows cannot change before they are updated; if
    /// they did, the last part would divide by zero, which undoes the statement.
    pub(super) fn exchange_all(&self, changes: &[Change<'_>]) -> String {
        let Self { table, .. } = self;
        let all = changes.len();
        let unchanged = changes.iter().map(|Change { claim, old, .. }| {
            format!("({})", unchanged(claim, old, Purpose::Acquire))
        });
        let unchanged = unchanged.collect::<Vec<_>>().join(" OR ");
        let same = format!("(SELECT count(*) FROM same) = {all}");
        let mut statement = format!(
            "WITH same AS (SELECT lock_key FROM {table} WHERE {unchanged} ORDER BY lock_key FOR UPDATE)"
        );
        for (number, Change { claim, new, .. }) in changes.iter().enumerate() {
            let (key, to) = (text(&stored(&claim.key)), changed(new, Purpose::Acquire));
            let _ = write!(
                statement,
                ", changed{number} AS (UPDATE {table} SET {to} \
                   WHERE lock_key = {key} AND {same} RETURNING 1)"
            );
        }
        let counts = (0..all).map(|number| format!("(SELECT count(*) FROM changed{number})"));
        let counts = counts.collect::<Vec<_>>().join(" + ");
        let _ = write!(statement, " SELECT 1 / ({counts} = {all})::int WHERE {same}");
        statement
    }

    /// Requests that the key's release be announced; returns a row if somebody holds it.
    ///
    /// It writes nothing if the request is already there: the release that clears it is announced as well.
    pub(super) fn want(&self, key: &LockKey) -> String {
        let Self { table, .. } = self;
        let held = held_or_grouped(key);
        format!(
            "WITH told AS (UPDATE {table} SET wanted = true WHERE {held} AND NOT wanted RETURNING 1) \
             SELECT 1 WHERE EXISTS (SELECT FROM told) \
               OR EXISTS (SELECT FROM {table} WHERE {held} AND wanted)"
        )
    }

    /// Requests it if somebody is in line for the key, so that the lock is not handed over to those in line alone.
    pub(super) fn want_beside_line(&self, key: &LockKey) -> String {
        let Self { table, .. } = self;
        let held = held_or_grouped(key);
        format!(
            "UPDATE {table} SET wanted = true WHERE {held} AND released = {MARKED} AND NOT wanted"
        )
    }

    /// Adds those in line to the states of the keys with this prefix.
    pub(super) async fn with_those_in_line(
        &self,
        store: &LeaseStore<sqlx::Postgres>,
        prefix: &str,
        states: Vec<LockState>,
    ) -> Result<Vec<LockState>, BackendError> {
        let Some(line) = &self.line else { return Ok(states) };
        let list = line.sql.list(&prefix.into());
        let Some(reply) = line.run(store, Lane::Acquires, &list).await else { return Ok(states) };
        let mut states: BTreeMap<LockKey, LockState> =
            states.into_iter().map(|state| (state.key.clone(), state)).collect();
        for row in reply.rows.iter().flatten() {
            let key = read_key(read(row, 0)?);
            let (owner, _) = words::read(read(row, 1)?).unzip();
            let waiter = Waiter::new(owner, Mode::Exclusive, ClientInfo::parse(read(row, 2)?));
            let state = states.entry(key.clone());
            let state = state.or_insert_with(|| LockState::new(key, vec![], vec![]));
            state.waiters.push(waiter);
        }
        Ok(states.into_values().take(MAX_LISTED).collect())
    }

    /// Deletes some of the rows that have not been used for a while, if the row without a key has had their tokens for a
    /// while. Returns how many. Waits for no row.
    pub(super) fn delete_idle(&self) -> String {
        let Self { table, .. } = self;
        let idle = idle();
        let ready = format!(
            "(SELECT token FROM {table} WHERE lock_key = '' \
              AND expires_at < clock_timestamp() - {RETENTION})"
        );
        format!(
            "WITH deleted AS (\
               DELETE FROM {table} WHERE ctid = ANY (ARRAY(\
                 SELECT ctid FROM {table} WHERE {idle} AND token <= {ready} \
                 LIMIT {PIECE} FOR UPDATE SKIP LOCKED)) \
               AND {idle} RETURNING 1) \
             SELECT count(*) FROM deleted"
        )
    }

    /// Stores the largest token of the rows that have not been used for a while in the row without a key, so that no
    /// later grant can have a smaller one.
    pub(super) fn remember_idle(&self) -> String {
        let Self { table, .. } = self;
        let idle = idle();
        format!(
            "UPDATE {table} SET expires_at = clock_timestamp(), \
               token = greatest(token, (SELECT max(token) FROM {table} WHERE {idle})) \
             WHERE lock_key = '' AND expires_at < clock_timestamp() - {RETENTION} \
               AND EXISTS (SELECT FROM {table} WHERE {idle})"
        )
    }
}

/// The most rows that one statement deletes.
pub(super) const PIECE: i64 = 10_000;

/// Has the row not been used for a while?
fn idle() -> String {
    format!(
        "lock_key <> '' AND expires_at < clock_timestamp() - {RETENTION} \
         AND group_until < clock_timestamp() - {RETENTION} \
         AND gone_since < clock_timestamp() - 2 * {TOMBSTONE}"
    )
}

/// Do others share the key, or is there a queue?
const GROUPED: &str = "(lock_group IS NOT NULL AND group_until > clock_timestamp())";

fn row() -> String {
    let [expires, until] = ["expires_at", "group_until"].map(micros_of);
    format!(
        "owner, token, {expires}, lock_group, \
           CASE WHEN lock_group IS NULL THEN 0 ELSE {until} END, {NOW_MICROS}, claimant"
    )
}

/// Microseconds since 1970.
fn micros_of(column: &str) -> String {
    format!("(extract(epoch FROM {column}) * 1000000)::bigint")
}

fn moment(micros: Micros) -> String {
    format!("timestamptz 'epoch' + interval '{micros} microseconds'")
}

/// The assignments of a change.
fn changed(new: &NewRow, purpose: Purpose) -> String {
    let owner = nullable_text(new.owner.written().as_deref());
    let group = nullable_text(new.group.as_deref());
    let client_info = new.client_info.as_ref().map(ClientInfo::to_text).unwrap_or_default();
    let [expires, until] = [new.expires, new.group_until].map(moment);
    let released = if purpose == Purpose::Release {
        format!("released = CASE WHEN wanted OR released = {MARKED} THEN 2 ELSE 1 END")
    } else {
        format!("released = CASE WHEN released = {MARKED} THEN {MARKED} ELSE 1 END")
    };
    format!(
        "owner = {owner}, token = {}, expires_at = {expires}, \
           lock_group = {group}, group_until = {until}, claimant = '{client_info}', \
           wanted = wanted AND {}, {released}",
        new.token,
        purpose != Purpose::Release,
    )
}

/// The condition that the row has not changed since the read.
fn unchanged(claim: &Claim, old: &LeaseRow, purpose: Purpose) -> String {
    let key = text(&stored(&claim.key));
    let owner = nullable_text(old.owner.written().as_deref());
    let group = nullable_text(old.group.as_deref());
    let mut unchanged = format!(
        "lock_key = {key} AND owner IS NOT DISTINCT FROM {owner} AND token = {} \
           AND {} = {} AND lock_group IS NOT DISTINCT FROM {group}",
        old.token,
        micros_of("expires_at"),
        old.expires,
    );
    if purpose == Purpose::Acquire {
        let _ = write!(unchanged, " AND position('{}' IN gone || gone_before) = 0", claim.owner);
    }
    unchanged
}

fn nullable_text(value: Option<&str>) -> String {
    value.map_or_else(|| "NULL".to_owned(), text)
}

fn after(duration: Duration) -> String {
    format!("clock_timestamp() + interval '{} microseconds'", duration.as_micros())
}

fn held_or_grouped(key: &LockKey) -> String {
    let key = text(&stored(key));
    format!("lock_key = {key} AND (expires_at > clock_timestamp() OR {GROUPED})")
}

fn held(key: &LockKey) -> String {
    format!("lock_key = {} AND expires_at > clock_timestamp()", text(&stored(key)))
}

fn held_by(claim: &Claim) -> String {
    format!("{} AND owner = '{}'", held(&claim.key), claim.owner)
}

/// `NOTIFY` locks the whole database at commit, so it is sent only if somebody waits.
fn announced(freed: &str, key: &LockKey) -> String {
    let key = text(&stored(key));
    format!(
        "WITH freed AS ({freed}) \
         SELECT CASE WHEN released = 2 THEN pg_notify('{CHANNEL}', {key})::text END \
         FROM freed WHERE released > 0",
        CHANNEL = super::notices::CHANNEL,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::shared::sql_leases::shown::{KEEP, assert_shown};

    #[test]
    fn the_guide_shows_every_statement() {
        let topics = Arc::<Topics>::default();
        let line = Some(Arc::new(Line::new("dlock_leases", "public", Arc::clone(&topics))));
        let sql = Statements::of("dlock_leases".to_owned(), topics, line);
        let line = &sql.line.as_ref().unwrap().sql;
        let claim = Claim::new("k".into(), Duration::from_secs(5));
        let release =
            |keep_for, late_acquire| sql.release(&claim, Release { keep_for, late_acquire });
        let plain = sql.plain.all();
        let plain = plain.iter().map(|statement| {
            let many = if statement.types[0].ends_with("[]") { "s" } else { "" };
            ["key", "owner", "ttl", "client_info", "more", "channel", "wait"].iter().zip(1..).fold(
                statement.text.clone(),
                |text, (name, number)| {
                    text.replace(&format!("${number}"), &format!("${name}{many}"))
                },
            )
        });
        let others = [
            release(Some(KEEP), false),
            release(None, true),
            sql.want(&claim.key),
            sql.want_beside_line(&claim.key),
            line.keep(&[&claim]),
            line.leave(&claim.owner),
            line.list(&claim.key),
            line.sweep(),
            sql.look(&claim),
            sql.list(&claim.key),
            sql.make(&claim.key),
            sql.delete_idle(),
            sql.remember_idle(),
        ];
        let statements: Vec<_> = plain.chain(others).collect();
        // The guide leaves out the schema.
        let unqualified = |statement: String| statement.replace("public.", "");
        let statements: Vec<_> = statements.into_iter().map(unqualified).collect();
        let key = text(&stored(&claim.key));
        let interval = |micros| format!("interval '{micros} microseconds'");
        assert_shown(include_str!("guide.md"), &statements, &claim, &key, interval);
    }
}
