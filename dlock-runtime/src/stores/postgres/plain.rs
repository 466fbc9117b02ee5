//! The statements of plain acquires, renewals and releases, each for one row and for many. They are prepared once.
//!
//! Those for many rows work through `INSERT … ON CONFLICT`, in the order of their arguments: they find each row through
//! the index, and two of them never deadlock.

use std::sync::Arc;

use super::dialect::{stored, text};
use super::line::{LineStatements, MARKED};
use super::notices::CHANNEL;
use super::statements::{NOW_MICROS, first_token};
use crate::backend::Claim;
use crate::stores::shared::sql::hex;
use crate::stores::shared::sql::prepared::{Call, Prepared};

/// The statements for one table.
pub(super) struct Plain(Arc<[Prepared]>);

const ACQUIRE: usize = 0;
const RENEW: usize = 1;
const RELEASE: usize = 2;
/// Where the statement for many rows is.
const MANY: usize = 3;
const ACQUIRE_AGAIN: usize = 2 * MANY;
// Only where there is a line:
const RELEASE_TO_ALL: usize = ACQUIRE_AGAIN + 1;
const STAND_IN_LINE: usize = RELEASE_TO_ALL + 1;
const ACQUIRE_RESERVED: usize = STAND_IN_LINE + 1;
const HAND_OVER: usize = ACQUIRE_RESERVED + 1;

const ACQUIRE_TYPES: &[&str] = &["text", "text", "bigint", "text", "smallint"];
const RELEASE_TYPES: &[&str] = &["text", "text"];

/// The key in an argument for many rows.
const MANY_KEYS: &str = "convert_from(decode(asked.key, 'hex'), 'UTF8')";

impl Plain {
    pub(super) fn new(table: &str, line: Option<&LineStatements>) -> Self {
        let one =
            "(SELECT $1 AS key, $2 AS owner, $3 AS ttl, $4 AS client_info, $5 AS more) AS asked";
        let many = "unnest($1, $2, $3, $4, $5) AS asked (key, owner, ttl, client_info, more)";
        let whom = if line.is_some() { Whom::Unmarked } else { Whom::All };
        let mut all = vec![
            Prepared::new("acquire", ACQUIRE_TYPES, acquire(table, one, "asked.key")),
            Prepared::new("renew", &["text", "text", "bigint"], renew(table)),
            Prepared::new("release", RELEASE_TYPES, release(table, whom)),
            Prepared::new(
                "acquire_many",
                &["text[]", "text[]", "bigint[]", "text[]", "smallint[]"],
                acquire(table, many, MANY_KEYS),
            ),
            Prepared::new("renew_many", &["text[]", "text[]", "bigint[]"], renew_many(table)),
            Prepared::new("release_many", &["text[]", "text[]"], release_many(table, whom)),
            Prepared::new("acquire_again", ACQUIRE_TYPES, acquire_again(table)),
        ];
        if let Some(line) = line {
            let types = &["text", "text", "bigint", "text", "smallint", "text", "bigint"];
            all.extend([
                Prepared::new("release_to_all", RELEASE_TYPES, release(table, Whom::All)),
                Prepared::new("stand_in_line", types, line.stand_in_line()),
                Prepared::new("acquire_reserved", ACQUIRE_TYPES, line.acquire_reserved()),
                Prepared::new("hand_over", RELEASE_TYPES, line.hand_over()),
            ]);
        }
        Self(all.into())
    }

    pub(super) fn all(&self) -> Arc<[Prepared]> {
        Arc::clone(&self.0)
    }

    /// Returns `(owner, token, NULL)` for each grant, and `(owner, NULL, µs left)` for each key that is held; -1 if others
    /// share it or wait for it. There is no row for an owner whose acquire was abandoned, or that came second.
    pub(super) fn acquire(&self, claims: &[&Claim]) -> Call<'_> {
        self.call(ACQUIRE, claims, &[owner, ttl, |claim| claim.client_info.to_text(), more_tokens])
    }

    /// Returns the token if the key has a row and is free. Otherwise [`acquire`](Self::acquire) says why not.
    pub(super) fn acquire_again(&self, claim: &Claim) -> Call<'_> {
        Call { statement: &self.0[ACQUIRE_AGAIN], ..self.acquire(&[claim]) }
    }

    /// Returns the owner of each lease that was renewed.
    pub(super) fn renew(&self, claims: &[&Claim]) -> Call<'_> {
        self.call(RENEW, claims, &[owner, ttl])
    }

    /// Returns `(key, what it found)` for each lease that was released; announces it if somebody waits. Where there is a
    /// line, it releases no lease that somebody is in line for.
    pub(super) fn release(&self, claims: &[&Claim]) -> Call<'_> {
        self.call(RELEASE, claims, &[owner])
    }

    /// The same for a lease that somebody may be in line for: all who wait are notified.
    pub(super) fn release_to_all(&self, claim: &Claim) -> Call<'_> {
        Call { statement: &self.0[RELEASE_TO_ALL], ..self.release(&[claim]) }
    }

    /// The same, and hands the lock over. See [`LineStatements::hand_over`].
    pub(super) fn hand_over(&self, claim: &Claim) -> Call<'_> {
        Call { statement: &self.0[HAND_OVER], ..self.release(&[claim]) }
    }

    /// Returns the token if the key is reserved for this claim, which then is no longer in line.
    pub(super) fn acquire_reserved(&self, claim: &Claim) -> Call<'_> {
        Call { statement: &self.0[ACQUIRE_RESERVED], ..self.acquire(&[claim]) }
    }

    /// See [`LineStatements::stand_in_line`].
    pub(super) fn stand_in_line(&self, claim: &Claim, channel: &str) -> Call<'_> {
        let mut call = self.acquire(&[claim]);
        call.arguments.push(format!("'{channel}'"));
        let wait = i64::try_from(claim.wait_left.as_micros()).unwrap_or(i64::MAX);
        call.arguments.push(wait.to_string());
        Call { statement: &self.0[STAND_IN_LINE], ..call }
    }

    /// Passes the keys, and then these. None of them contains a quote or a backslash.
    fn call(&self, purpose: usize, claims: &[&Claim], others: &[fn(&Claim) -> String]) -> Call<'_> {
        if let [claim] = claims {
            let others = others.iter().map(|other| format!("'{}'", other(claim)));
            let arguments = [text(&stored(&claim.key))].into_iter().chain(others).collect();
            return Call { statement: &self.0[purpose], arguments };
        }
        let keys = claims.iter().map(|claim| hex(stored(&claim.key).as_bytes()));
        let mut arguments = vec![format!("'{{{}}}'", keys.collect::<Vec<_>>().join(","))];
        for other in others {
            let elements = claims.iter().map(|claim| format!("\"{}\"", other(claim)));
            arguments.push(format!("'{{{}}}'", elements.collect::<Vec<_>>().join(",")));
        }
        Call { statement: &self.0[purpose + MANY], arguments }
    }
}

fn owner(claim: &Claim) -> String {
    claim.owner.to_string()
}

/// In microseconds.
fn ttl(claim: &Claim) -> String {
    claim.ttl.as_micros().to_string()
}

/// Those of its block besides the one that any grant has.
fn more_tokens(claim: &Claim) -> String {
    claim.more_tokens().to_string()
}

/// Whose leases a release ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whom {
    All,
    /// Those that nobody is in line for.
    Unmarked,
}

impl Whom {
    /// The end of the condition.
    fn condition(self, lease: &str) -> String {
        match self {
            Self::All => String::new(),
            Self::Unmarked => format!(" AND ({lease}released <> {MARKED} OR {lease}wanted)"),
        }
    }
}

/// A key that is held is only read, so that nothing is written. `released` carries the number of further tokens into the
/// update of a row; in a new row it means nothing, because each release sets it.
fn acquire(table: &str, asked: &str, key: &str) -> String {
    let granted = granted(table);
    format!(
        "WITH asked AS MATERIALIZED (\
           SELECT {key} AS key, owner, ttl, client_info, more, (\
             SELECT CASE \
               WHEN lock_group IS NOT NULL AND group_until > clock_timestamp() THEN -1 \
               WHEN expires_at > clock_timestamp() \
                 AND coalesce(owner NOT IN (asked.owner, '>' || asked.owner), true) \
               THEN greatest((extract(epoch FROM expires_at - clock_timestamp()) * 1000000)::bigint, 0) END \
             FROM {table} WHERE lock_key = {key}) AS held \
           FROM {asked}), \
         granted AS ({granted}) \
         SELECT owner, token, NULL::bigint FROM granted \
         UNION ALL SELECT owner, NULL, held FROM asked WHERE held IS NOT NULL"
    )
}

/// Grants those `asked` whose keys are free, theirs, or reserved for them. Only who has the lease already keeps its token.
pub(super) fn granted(table: &str) -> String {
    let first_token = first_token(table);
    format!(
        "INSERT INTO {table} AS lease (lock_key, owner, token, expires_at, claimant, released) \
         SELECT key, owner, {first_token} + more, \
           clock_timestamp() + ttl * interval '1 microsecond', client_info, more \
         FROM asked WHERE held IS NULL \
         ON CONFLICT (lock_key) DO UPDATE SET \
           token = CASE WHEN lease.owner = excluded.owner AND lease.expires_at > clock_timestamp() \
             THEN lease.token ELSE greatest({NOW_MICROS}, lease.token + 1) + excluded.released END, \
           owner = excluded.owner, \
           expires_at = greatest(lease.expires_at, excluded.expires_at), \
           claimant = excluded.claimant, \
           lock_group = NULL \
         WHERE (lease.owner IN (excluded.owner, '>' || excluded.owner) \
             OR lease.expires_at <= clock_timestamp()) \
           AND (lease.lock_group IS NULL OR lease.group_until <= clock_timestamp()) \
           AND position(excluded.owner IN lease.gone || lease.gone_before) = 0 \
         RETURNING owner, token"
    )
}

/// What [`acquire`] does with a row that is free, without a plan for everything else.
fn acquire_again(table: &str) -> String {
    acquire_if(table, "expires_at <= clock_timestamp()")
}

pub(super) fn acquire_if(table: &str, condition: &str) -> String {
    format!(
        "UPDATE {table} SET \
           token = greatest({NOW_MICROS}, token + 1) + $5, \
           owner = $2, \
           expires_at = clock_timestamp() + $3 * interval '1 microsecond', \
           claimant = $4, \
           lock_group = NULL \
         WHERE lock_key = $1 AND {condition} \
           AND (lock_group IS NULL OR group_until <= clock_timestamp()) \
           AND position($2 IN gone || gone_before) = 0 \
         RETURNING owner, token"
    )
}

/// A late renewal never moves the end back.
fn renew(table: &str) -> String {
    format!(
        "UPDATE {table} SET \
           expires_at = greatest(expires_at, clock_timestamp() + $3 * interval '1 microsecond') \
         WHERE lock_key = $1 AND expires_at > clock_timestamp() AND owner = $2 RETURNING owner"
    )
}

/// `NOTIFY` locks the whole database at commit, so it is sent only if somebody waits.
fn release(table: &str, whom: Whom) -> String {
    let condition = whom.condition("");
    format!(
        "UPDATE {table} SET \
           owner = NULL, \
           expires_at = clock_timestamp(), \
           wanted = false, \
           released = CASE WHEN wanted OR released = {MARKED} THEN 2 ELSE 1 END \
         WHERE lock_key = $1 AND expires_at > clock_timestamp() AND owner IN ($2, '>' || $2){condition} \
         RETURNING lock_key, released, \
           CASE WHEN released = 2 THEN pg_notify('{CHANNEL}', lock_key)::text END"
    )
}

/// A row that is missing is created without an owner, with a tombstone of this one, and deleted as unused later.
fn renew_many(table: &str) -> String {
    let first_token = first_token(table);
    format!(
        "INSERT INTO {table} AS lease (lock_key, token, expires_at, gone, gone_since, group_until) \
         SELECT {MANY_KEYS}, {first_token}, clock_timestamp(), owner, clock_timestamp(), \
           clock_timestamp() + ttl * interval '1 microsecond' \
         FROM unnest($1, $2, $3) AS asked (key, owner, ttl) \
         ON CONFLICT (lock_key) DO UPDATE SET \
           expires_at = greatest(lease.expires_at, excluded.group_until) \
         WHERE lease.owner = excluded.gone AND lease.expires_at > clock_timestamp() \
         RETURNING owner"
    )
}

/// The same.
fn release_many(table: &str, whom: Whom) -> String {
    let (first_token, condition) = (first_token(table), whom.condition("lease."));
    format!(
        "INSERT INTO {table} AS lease (lock_key, token, expires_at, gone, gone_since) \
         SELECT {MANY_KEYS}, {first_token}, clock_timestamp(), owner, clock_timestamp() \
         FROM unnest($1, $2) AS asked (key, owner) \
         ON CONFLICT (lock_key) DO UPDATE SET \
           owner = NULL, \
           expires_at = clock_timestamp(), \
           wanted = false, \
           released = CASE WHEN lease.wanted OR lease.released = {MARKED} THEN 2 ELSE 1 END \
         WHERE lease.owner IN (excluded.gone, '>' || excluded.gone) \
           AND lease.expires_at > clock_timestamp(){condition} \
         RETURNING lock_key, released, \
           CASE WHEN released = 2 THEN pg_notify('{CHANNEL}', lock_key)::text END"
    )
}
