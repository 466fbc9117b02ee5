//! The scripts of a node, one of several independent servers, and how to call them.

use std::sync::Arc;
use std::time::Duration;

use redis::Script;

use crate::backend::{Claim, Release};
use crate::lock_table::words;
use crate::owner::OwnerId;
use crate::stores::redis::names::Names;
use crate::stores::redis::scripts::{TOMBSTONE, millis};
use crate::stores::redis::step::{Header, Source, Step};
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

/// A node in one round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member<'a> {
    /// Where its mark is stored.
    pub(super) mark: &'a Arc<str>,
    /// The run of the server that was greeted.
    pub(super) run: &'a Arc<str>,
    /// Numbers the attempts of one process, so that a late request of an earlier one is recognized.
    pub(super) round: u64,
}

impl Member<'_> {
    fn header(self) -> Header {
        Header::Mark(Arc::clone(self.mark), Arc::clone(self.run))
    }
}

/// The token that a node is asked to grant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proposal {
    pub(super) token: FencingToken,
    /// How far the token may be from the node's own clock.
    pub(super) tolerance: Duration,
}

/// When a release leaves a tombstone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tombstone {
    Never,
    /// If the owner is not found: its acquire may arrive late.
    IfMissing,
    Always,
}

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

/// The answer to an acquire on the wire.
pub(super) type AcquiredAnswer = (u8, i64, String);

impl From<AcquiredAnswer> for Acquired {
    fn from((kind, number, owner): AcquiredAnswer) -> Self {
        let left = u64::try_from(number).ok().map(Duration::from_millis);
        match kind {
            0 => Self::Busy { left, owner: words::read(&owner).map(|(owner, _)| owner) },
            1 => Self::Granted(FencingToken::new(number.unsigned_abs())),
            3 => Self::Quarantined(left.unwrap_or_default()),
            4 => Self::Unmarked,
            _ => Self::GivenUp,
        }
    }
}

/// Answers [`AcquiredAnswer`].
pub(super) fn acquire(
    names: &Names,
    claim: &Claim,
    member: Member<'_>,
    proposal: Proposal,
) -> Step {
    let tolerance = u64::try_from(proposal.tolerance.as_micros()).unwrap_or(u64::MAX);
    let step = Step::new(&ACQUIRE).header(member.header());
    let step = step.key(&names.lock).key(&names.token()).key(&names.tombstone(&claim.owner));
    let step = step.arg(&claim.owner.to_string()).number(millis(claim.ttl)).number(member.round);
    step.number(proposal.token.get()).number(tolerance).arg(&claim.client_info.to_text())
}

/// Answers 1 renewed, 0 not held, 2 renewed on a node that must not count.
pub(super) fn renew(names: &Names, claim: &Claim, member: Member<'_>) -> Step {
    let token = claim.token.map_or(0, FencingToken::get);
    let step = Step::new(&RENEW).header(member.header());
    let step = step.key(&names.lock).key(&names.token()).key(&names.tombstone(&claim.owner));
    let step = step.arg(&claim.owner.to_string()).number(millis(claim.ttl)).number(member.round);
    step.number(token).arg(&claim.client_info.to_text())
}

/// Answers 1 released, 0 not held, 2 not held on a node that must not count.
pub(super) fn release(names: &Names, claim: &Claim, release: Release, member: Member<'_>) -> Step {
    let tombstone = if release.late_acquire { Tombstone::Always } else { Tombstone::IfMissing };
    let rest = release.keep_for.map_or(0, millis);
    end(names, claim, rest, &names.channel(), tombstone, member)
}

/// Retracts the grant of a round that has failed. Notifies nobody: somebody else holds the lock, or will retry
/// anyway.
pub(super) fn retract(
    names: &Names,
    claim: &Claim,
    tombstone: Tombstone,
    member: Member<'_>,
) -> Step {
    end(names, claim, 0, "", tombstone, member)
}

fn end(
    names: &Names,
    claim: &Claim,
    rest: u64,
    channel: &str,
    tombstone: Tombstone,
    member: Member<'_>,
) -> Step {
    let step = Step::new(&RELEASE).header(member.header());
    let step = step.key(&names.lock).key(&names.tombstone(&claim.owner));
    let step = step.arg(&claim.owner.to_string()).number(member.round).number(rest).arg(channel);
    match tombstone {
        Tombstone::Never => step.number(0).arg("missing"),
        Tombstone::IfMissing => step.number(millis(claim.ttl + TOMBSTONE)).arg("missing"),
        Tombstone::Always => step.number(millis(claim.ttl + TOMBSTONE)).arg("always"),
    }
}

/// Answers 1 stored, 0 not.
pub(super) fn raise(names: &Names, claim: &Claim, token: FencingToken, member: Member<'_>) -> Step {
    let step = Step::new(&RAISE).header(member.header()).key(&names.lock).key(&names.token());
    step.arg(&claim.owner.to_string()).number(member.round).number(token.get())
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
