//! Several plain acquires, renewals or releases at once: two statements of one transaction, one of which changes the
//! rows, in the order of their keys, and one of which returns what came of each.

use super::dialect::bytes;
use super::statements::{NOW, Statements, first_token};
use crate::backend::Claim;
use crate::stores::mysql::dialect::NOW_MICROS;

impl Statements {
    /// The second statement returns key, owner, token, µs left, and whether others share the key or wait for it.
    pub(super) fn acquire_several(&self, claims: &[&Claim]) -> [String; 2] {
        let Self { table } = self;
        let live = format!("{table}.owner <=> VALUES(owner) AND {table}.expires_at > {NOW}");
        let grantable = format!(
            "({table}.expires_at <= {NOW} OR {table}.owner <=> VALUES(owner)) \
             AND ({table}.lock_group IS NULL OR {table}.group_until <= {NOW}) \
             AND LOCATE(VALUES(owner), {table}.gone) = 0 AND LOCATE(VALUES(owner), {table}.gone_before) = 0"
        );
        let (asked, first) = (asked(claims), first_token());
        let change = format!(
            "INSERT INTO {table} \
               (lock_key, owner, token, expires_at, gone, gone_before, gone_since, group_until, claimant) \
             SELECT asked.asked_key, asked.asked_owner, {first}, {NOW} + INTERVAL asked.ttl MICROSECOND, \
               '', '', '1970-01-01', '1970-01-01', asked.client_info \
             FROM ({asked}) AS asked, {table} AS floor WHERE floor.lock_key = '' \
             ON DUPLICATE KEY UPDATE \
               lock_group = IF({grantable}, NULL, {table}.lock_group), \
               claimant = IF({grantable}, VALUES(claimant), {table}.claimant), \
               token = IF({grantable}, \
                 IF({live}, {table}.token, GREATEST({NOW_MICROS}, {table}.token + 1)), {table}.token), \
               owner = IF({grantable}, VALUES(owner), {table}.owner), \
               expires_at = IF({table}.owner <=> VALUES(owner), \
                 GREATEST({table}.expires_at, VALUES(expires_at)), {table}.expires_at)"
        );
        let read = format!(
            "SELECT lock_key, owner, token, TIMESTAMPDIFF(MICROSECOND, {NOW}, expires_at), \
               lock_group IS NOT NULL AND group_until > {NOW} \
             FROM {table} FORCE INDEX (PRIMARY) WHERE lock_key IN ({}) ORDER BY lock_key",
            keys(claims)
        );
        [change, read]
    }

    /// The second statement returns key and owner of each lease that was renewed.
    pub(super) fn renew_several(&self, claims: &[&Claim]) -> [String; 2] {
        let Self { table } = self;
        let asked = asked(claims);
        let change = format!(
            "UPDATE ({asked}) AS asked STRAIGHT_JOIN {table} FORCE INDEX (PRIMARY) \
               ON {table}.lock_key = asked.asked_key \
             SET {table}.expires_at = GREATEST({table}.expires_at, {NOW} + INTERVAL asked.ttl MICROSECOND) \
             WHERE {table}.owner = asked.asked_owner AND {table}.expires_at > {NOW}"
        );
        let read = format!("SELECT lock_key, owner {}", self.held(claims));
        [change, read]
    }

    /// The first statement returns key and owner of each lease that is released.
    pub(super) fn release_several(&self, claims: &[&Claim]) -> [String; 2] {
        let Self { table } = self;
        let read =
            format!("SELECT lock_key, owner {} ORDER BY lock_key FOR UPDATE", self.held(claims));
        let owners = owners(claims);
        let change = format!(
            "UPDATE {table} FORCE INDEX (PRIMARY) SET owner = NULL, expires_at = {NOW} \
             WHERE lock_key IN ({}) AND owner IN ({owners}) AND expires_at > {NOW}",
            keys(claims)
        );
        [read, change]
    }

    fn held(&self, claims: &[&Claim]) -> String {
        let (table, keys, owners) = (&self.table, keys(claims), owners(claims));
        format!(
            "FROM {table} FORCE INDEX (PRIMARY) \
             WHERE lock_key IN ({keys}) AND owner IN ({owners}) AND expires_at > {NOW}"
        )
    }
}

/// A row for each claim. The first one names the columns.
fn asked(claims: &[&Claim]) -> String {
    let row = |(number, claim): (usize, &&Claim)| {
        let key = bytes(claim.key.as_str().as_bytes());
        let (owner, ttl) = (claim.owner, claim.ttl.as_micros());
        let client_info = claim.client_info.to_text();
        if number == 0 {
            format!(
                "SELECT {key} AS asked_key, '{owner}' AS asked_owner, {ttl} AS ttl, '{client_info}' AS client_info"
            )
        } else {
            format!("SELECT {key}, '{owner}', {ttl}, '{client_info}'")
        }
    };
    claims.iter().enumerate().map(row).collect::<Vec<_>>().join(" UNION ALL ")
}

fn keys(claims: &[&Claim]) -> String {
    let keys = claims.iter().map(|claim| bytes(claim.key.as_str().as_bytes()));
    keys.collect::<Vec<_>>().join(", ")
}

fn owners(claims: &[&Claim]) -> String {
    let owners = claims.iter().map(|claim| format!("'{}'", claim.owner));
    owners.collect::<Vec<_>>().join(", ")
}
