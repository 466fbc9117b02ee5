//! Several plain acquires, renewals or releases at once, each as one statement that is a transaction of its own.
//!
//! The statement for acquires is followed by a read of the rows, which contain what came of each. Those for renewals and
//! releases mark what they change: each claim has a bit of the "last insert id", which is part of the statement's own
//! answer. It has to be zero before.

use super::dialect::bytes;
use super::statements::{NOW, Statements, first_token};
use crate::backend::Claim;
use crate::stores::mysql::dialect::NOW_MICROS;

impl Statements {
    /// The last insert id of the first statement is the time when it began, in µs since 1970. The second one returns key,
    /// owner, token, the lease's end (likewise), µs left, and whether more than the lease decides: others share the key
    /// or wait for it, or the owner's acquire was abandoned.
    pub(super) fn acquire_several(&self, claims: &[&Claim]) -> [String; 2] {
        let Self { table } = self;
        let live = format!("{table}.owner <=> VALUES(owner) AND {table}.expires_at > {NOW}");
        let grantable = format!(
            "({table}.expires_at <= {NOW} OR {table}.owner <=> VALUES(owner)) \
             AND ({table}.lock_group IS NULL OR {table}.group_until <= {NOW}) \
             AND LOCATE(VALUES(owner), {table}.gone) = 0 AND LOCATE(VALUES(owner), {table}.gone_before) = 0"
        );
        // Those of its block besides the one that any grant has.
        let has_blocks = claims.iter().any(|claim| claim.more_tokens() > 0);
        let [first_more, more] = if has_blocks {
            let each = claims.iter().map(|claim| claim.more_tokens().to_string());
            let each = of_each(&format!("{table}.lock_key"), claims, each);
            [" + asked.more".to_owned(), format!(" + CAST({each} AS SIGNED)")]
        } else {
            [String::new(), String::new()]
        };
        let (asked, first) = (asked(claims, has_blocks), first_token());
        let change = format!(
            "INSERT INTO {table} \
               (lock_key, owner, token, expires_at, gone, gone_before, gone_since, group_until, claimant) \
             SELECT asked.asked_key, asked.asked_owner, {first}{first_more} + 0 * LAST_INSERT_ID({NOW_MICROS}), {NOW} + INTERVAL asked.ttl MICROSECOND, \
               '', '', '1970-01-01', '1970-01-01', asked.client_info \
             FROM ({asked}) AS asked, {table} AS floor WHERE floor.lock_key = '' \
             ON DUPLICATE KEY UPDATE \
               lock_group = IF({grantable}, NULL, {table}.lock_group), \
               claimant = IF({grantable}, VALUES(claimant), {table}.claimant), \
               token = IF({grantable}, \
                 IF({live}, {table}.token, GREATEST({NOW_MICROS}, {table}.token + 1){more}), {table}.token), \
               owner = IF({grantable}, VALUES(owner), {table}.owner), \
               expires_at = IF({table}.owner <=> VALUES(owner), \
                 GREATEST({table}.expires_at, VALUES(expires_at)), {table}.expires_at)"
        );
        let read = format!(
            "SELECT lock_key, owner, token, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', expires_at), \
               TIMESTAMPDIFF(MICROSECOND, {NOW}, expires_at), \
               (lock_group IS NOT NULL AND group_until > {NOW}) \
                 OR (owner IS NOT NULL AND LOCATE(owner, gone) + LOCATE(owner, gone_before) > 0) \
             FROM {table} FORCE INDEX (PRIMARY) WHERE lock_key IN ({}) ORDER BY lock_key",
            keys(claims)
        );
        [change, read]
    }

    /// Marks each lease that was renewed.
    pub(super) fn renew_several(&self, claims: &[&Claim]) -> String {
        let ttls = claims.iter().map(|claim| claim.ttl.as_micros().to_string());
        // As a number: `ELT` returns a text.
        let ttl = format!("CAST({} AS SIGNED)", of_each("lock_key", claims, ttls));
        let until = format!("{NOW} + INTERVAL {ttl} MICROSECOND");
        self.change_several(claims, &format!("expires_at = GREATEST(expires_at, {until})"))
    }

    /// Marks each lease that was released.
    pub(super) fn release_several(&self, claims: &[&Claim]) -> String {
        self.change_several(claims, &format!("owner = NULL, expires_at = {NOW}"))
    }

    fn change_several(&self, claims: &[&Claim], change: &str) -> String {
        let (table, keys) = (&self.table, keys(claims));
        let owner =
            of_each("lock_key", claims, claims.iter().map(|claim| format!("'{}'", claim.owner)));
        format!(
            "UPDATE {table} FORCE INDEX (PRIMARY) SET \
               token = token + 0 * LAST_INSERT_ID(LAST_INSERT_ID() | (1 << (FIELD(lock_key, {keys}) - 1))), {change} \
             WHERE lock_key IN ({keys}) AND owner = {owner} AND expires_at > {NOW}"
        )
    }
}

/// That of the row's key, which is in this column.
fn of_each(column: &str, claims: &[&Claim], values: impl Iterator<Item = String>) -> String {
    format!("ELT(FIELD({column}, {}), {})", keys(claims), values.collect::<Vec<_>>().join(", "))
}

/// A row for each claim. The first one names the columns.
fn asked(claims: &[&Claim], has_blocks: bool) -> String {
    let row = |(number, claim): (usize, &&Claim)| {
        let key = bytes(claim.key.as_str().as_bytes());
        let (owner, ttl) = (claim.owner, claim.ttl.as_micros());
        let client_info = claim.client_info.to_text();
        let more = has_blocks.then(|| claim.more_tokens());
        let more = |name| more.map(|more| format!(", {more}{name}")).unwrap_or_default();
        if number == 0 {
            format!(
                "SELECT {key} AS asked_key, '{owner}' AS asked_owner, {ttl} AS ttl, '{client_info}' AS client_info{}",
                more(" AS more")
            )
        } else {
            format!("SELECT {key}, '{owner}', {ttl}, '{client_info}'{}", more(""))
        }
    };
    claims.iter().enumerate().map(row).collect::<Vec<_>>().join(" UNION ALL ")
}

fn keys(claims: &[&Claim]) -> String {
    let keys = claims.iter().map(|claim| bytes(claim.key.as_str().as_bytes()));
    keys.collect::<Vec<_>>().join(", ")
}
