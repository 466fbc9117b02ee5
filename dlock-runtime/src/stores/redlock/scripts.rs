//! The scripts of a node, one of several independent servers, and how to call them.

use std::fmt::Write as _;
use std::time::Duration;

use redis::{FromRedisValue, ParsingError, Script, Value};

use crate::backend::{Claim, Release};
use crate::lock_table::words;
use crate::owner::OwnerId;
use crate::stores::redis::names::Names;
use crate::stores::redis::scripts::{TOMBSTONE, millis, text};
use crate::stores::redis::step::{Source, Step};
use crate::token::FencingToken;

/// Loads a script from its file, preceded by the files whose functions it uses.
macro_rules! script {
    ($kind:ident: $($file:literal),+) => {
        Source::$kind(|| Script::new(concat!($(include_str!($file)),+)))
    };
}

static ACQUIRE: Source =
    script!(shared: "../redis/clock.lua", "mark.lua", "last_token.lua", "acquire.lua");
static RENEW: Source =
    script!(shared: "../redis/clock.lua", "mark.lua", "last_token.lua", "renew.lua");
static RELEASE: Source = script!(shared: "../redis/clock.lua", "mark.lua", "release.lua");
static RAISE: Source =
    script!(shared: "../redis/clock.lua", "mark.lua", "last_token.lua", "raise.lua");
static GREET: Source = script!(single: "greet.lua");
static FORCE_RELEASE: Source = script!(single: "force_release.lua");
static BAR: Source = script!(single: "bar.lua");

/// A node's answer to an acquire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Acquired {
    Granted(FencingToken),
    Busy {
        /// `None` if the server knows of no end.
        left: Option<Duration>,
        /// `None` for the rest of a `min_hold`, when the lock has no owner.
        owner: Option<OwnerId>,
    },
    /// A release of this acquire was executed first.
    GivenUp,
    /// The node must not count for this long.
    Quarantined(Duration),
    /// The node is not the one that was greeted.
    Unmarked,
}

impl FromRedisValue for Acquired {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        if let Value::Int(token) = value {
            return Ok(Self::Granted(FencingToken::new(token.unsigned_abs())));
        }
        let (kind, left, owner): (u8, i64, String) = FromRedisValue::from_redis_value(value)?;
        let left = u64::try_from(left).ok().map(Duration::from_millis);
        Ok(match kind {
            0 => Self::Busy { left, owner: words::read(&owner).map(|(owner, _)| owner) },
            3 => Self::Quarantined(left.unwrap_or_default()),
            4 => Self::Unmarked,
            _ => Self::GivenUp,
        })
    }
}

/// Answers [`Acquired`].
pub(super) fn acquire(names: &Names, claim: &Claim, round: u64, proposed: FencingToken) -> Step {
    let digits = claim.owner.digits();
    let (owner, token) = (text(&digits), proposed.get());
    Step::new(&ACQUIRE)
        .key(&names.lock)
        .key_of(&[&names.lock, ":gone:", owner])
        .key_of(&[&names.lock, ":token"])
        .arg_with(|record| {
            // Writing into a `String` does not fail.
            let _ = write!(record, "{owner}:{token}:{round}:");
            claim.client_info.write_to(record);
        })
        .number(token)
        .number(millis(claim.ttl))
}

/// Answers 1 renewed, 0 not held, 2 renewed on a node that must not count.
pub(super) fn renew(names: &Names, claim: &Claim, round: u64) -> Step {
    let digits = claim.owner.digits();
    let owner = text(&digits);
    Step::new(&RENEW)
        .key(&names.lock)
        .key_of(&[&names.lock, ":token"])
        .key_of(&[&names.lock, ":gone:", owner])
        .arg(owner)
        .number(millis(claim.ttl))
        .number(round)
        .number(claim.token.map_or(0, FencingToken::get))
        .arg_with(|text| claim.client_info.write_to(text))
}

/// Answers 1 released, 0 not held, 2 not held on a node that must not count.
pub(super) fn release(names: &Names, claim: &Claim, round: u64, release: Release) -> Step {
    let how = if release.late_acquire { "always" } else { "missing" };
    end(names, claim, round, [release.keep_for.map_or(0, millis), tombstone(claim)], how)
}

/// Retracts what a failed round may have been granted. If the node is not known to have granted it, the request may be
/// executed after this. Notifies nobody: somebody else holds the lock, or will retry anyway.
pub(super) fn retract(names: &Names, claim: &Claim, round: u64, has_granted: bool) -> Step {
    end(names, claim, round, [0, if has_granted { 0 } else { tombstone(claim) }], "quiet")
}

/// How long a tombstone is kept, in milliseconds.
fn tombstone(claim: &Claim) -> u64 {
    millis(claim.ttl + TOMBSTONE)
}

fn end(names: &Names, claim: &Claim, round: u64, [rest, tombstone]: [u64; 2], how: &str) -> Step {
    Step::new(&RELEASE).key(&names.lock).arg(text(&claim.owner.digits())).number(round).arg_with(
        |terms| {
            // Writing into a `String` does not fail.
            let _ = write!(terms, "{rest}:{tombstone}:{how}");
        },
    )
}

/// Answers 1 stored, 0 not.
pub(super) fn raise(names: &Names, claim: &Claim, round: u64, token: FencingToken) -> Step {
    let step = Step::new(&RAISE).key(&names.lock).key_of(&[&names.lock, ":token"]);
    step.arg(text(&claim.owner.digits())).number(round).number(token.get())
}

/// Larger than the round of any attempt: Lua represents all integers up to this one exactly.
const LAST_ROUND: u64 = 1 << 53;

/// Stops renewals of the owner's hold on this one of several nodes. Answers 1.
pub(super) fn bar(names: &Names, owner: &OwnerId, longest_lease: Duration) -> Step {
    let step = Step::new(&BAR).key(&names.lock).key(&names.tombstone(owner));
    step.arg(&owner.to_string()).number(millis(longest_lease + TOMBSTONE)).number(LAST_ROUND)
}

/// Answers whether there was a lease. The owner would acquire it again at a renewal. A tombstone that outlasts the
/// longest lease prevents that.
pub(super) fn force_release(names: &Names, longest_lease: Duration) -> Step {
    let step = Step::new(&FORCE_RELEASE).key(&names.lock).arg(&names.channel());
    step.number(millis(longest_lease + TOMBSTONE)).number(LAST_ROUND)
}

/// How to greet a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    /// Changes nothing.
    Look,
    Enter,
    /// Nothing was ever stored on any node.
    Found,
}

/// Answers the server's run, the milliseconds until it counts (-1: it has no mark), the longest
/// requested quarantine and the server's clock, both in milliseconds.
pub(super) fn greet(mark: &str, quarantine: Duration, greeting: Greeting) -> Step {
    let step = Step::new(&GREET).key(mark).number(millis(quarantine));
    step.arg(match greeting {
        Greeting::Look => "look",
        Greeting::Enter => "enter",
        Greeting::Found => "found",
    })
}
