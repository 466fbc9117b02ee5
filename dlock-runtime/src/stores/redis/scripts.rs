//! The scripts and how to call them. One set serves every form: one of several independent nodes
//! ([`Member`]) does what a single server does, and a little more.

use std::sync::LazyLock;
use std::time::Duration;

use redis::{Script, ScriptInvocation};

use super::names::Names;
use crate::backend::{Claim, Holder, LockState, Release, SetAttempt, Waiter};
use crate::client_info::ClientInfo;
use crate::key::LockKey;
use crate::lock_table::{record::micros, words};
use crate::owner::OwnerId;
use crate::token::FencingToken;

/// Loads a script from its file, preceded by the files whose functions it uses.
macro_rules! script {
    ($($file:literal),+) => {
        LazyLock::new(|| Script::new(concat!($(include_str!($file)),+)))
    };
}

static ACQUIRE: LazyLock<Script> = script!("mark.lua", "token.lua", "acquire.lua");
static RENEW: LazyLock<Script> = script!("mark.lua", "token.lua", "renew.lua");
static RELEASE: LazyLock<Script> = script!("mark.lua", "release.lua");
static ENTER: LazyLock<Script> = script!("token.lua", "group.lua", "enter.lua");
static STAY: LazyLock<Script> = script!("token.lua", "group.lua", "stay.lua");
static LEAVE: LazyLock<Script> = script!("token.lua", "group.lua", "leave.lua");
static RAISE: LazyLock<Script> = script!("mark.lua", "token.lua", "raise.lua");
static GREET: LazyLock<Script> = script!("greet.lua");
static FORCE_RELEASE: LazyLock<Script> = script!("token.lua", "group.lua", "force_release.lua");
static REVOKE: LazyLock<Script> = script!("token.lua", "group.lua", "revoke.lua");
static BAR: LazyLock<Script> = script!("bar.lua");
static INSPECT: LazyLock<Script> = script!("token.lua", "group.lua", "inspect.lua");

/// How much longer than a ttl a tombstone is kept. A stopped server may have buffered the requests of an
/// old connection, but when it resumes, it executes them together with the tombstone's own request.
const TOMBSTONE: Duration = Duration::from_mins(1);

/// A server that is one of several independent nodes.
#[derive(Clone, Copy, Debug)]
pub(in crate::stores) struct Member<'a> {
    /// Where its mark is stored.
    pub(in crate::stores) mark: &'a str,
    /// The run of the server that was greeted.
    pub(in crate::stores) run: &'a str,
    /// Numbers the attempts of one process, so that a late request of an earlier one is recognized.
    pub(in crate::stores) round: u64,
}

/// The token that a node is asked to grant.
#[derive(Clone, Copy, Debug)]
pub(in crate::stores) struct Proposal {
    pub(in crate::stores) token: FencingToken,
    /// How far the token may be from the node's own clock.
    pub(in crate::stores) tolerance: Duration,
}

/// When a release leaves a tombstone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::stores) enum Tombstone {
    Never,
    /// If the owner is not found: its acquire may arrive late.
    IfMissing,
    Always,
}

/// A server's answer to an acquire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::stores) enum Acquired {
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
    /// The lock has readers, permit holders or a queue: [`enter`] decides.
    Grouped,
}

/// The answer to an acquire on the wire.
pub(in crate::stores) type AcquiredAnswer = (u8, i64, String);

impl From<AcquiredAnswer> for Acquired {
    fn from((kind, number, owner): AcquiredAnswer) -> Self {
        let left = u64::try_from(number).ok().map(Duration::from_millis);
        match kind {
            0 => Self::Busy { left, owner: words::read(&owner).map(|(owner, _)| owner) },
            1 => Self::Granted(FencingToken::new(number.unsigned_abs())),
            3 => Self::Quarantined(left.unwrap_or_default()),
            4 => Self::Unmarked,
            5 => Self::Grouped,
            _ => Self::GivenUp,
        }
    }
}

/// Answers [`AcquiredAnswer`].
pub(in crate::stores) fn acquire(
    names: &Names,
    claim: &Claim,
    part: Option<(Member<'_>, Proposal)>,
) -> ScriptInvocation<'static> {
    let mut call = ACQUIRE.prepare_invoke();
    call.key(&names.lock).key(names.token()).key(names.tombstone(&claim.owner));
    call.arg(claim.owner.to_string()).arg(millis(claim.ttl));
    match part {
        None => {
            call.key(names.group()).arg(0).arg(0).arg(0).arg(claim.client_info.to_text());
        }
        Some((member, proposal)) => {
            call.key(member.mark);
            let tolerance = u64::try_from(proposal.tolerance.as_micros()).unwrap_or(u64::MAX);
            call.arg(member.round).arg(proposal.token.get()).arg(tolerance);
            call.arg(claim.client_info.to_text()).arg(member.run);
        }
    }
    call
}

/// A server's answer to [`enter`]: the kind as in [`AcquiredAnswer`], or 6 for a queue position; when to poll next, in
/// milliseconds; a different number of permits that somebody else uses; the tokens, or the number of the busy lock.
pub(in crate::stores) type EnteredAnswer = (u8, i64, String, Vec<u64>);

/// Answers [`EnteredAnswer`], for claims in the order of their keys.
pub(in crate::stores) fn enter(names: &[Names], claims: &[Claim]) -> ScriptInvocation<'static> {
    let mut call = ENTER.prepare_invoke();
    for (names, claim) in names.iter().zip(claims) {
        call.key(&names.lock).key(names.token());
        call.key(names.tombstone(&claim.owner)).key(names.group());
        call.arg(claim.owner.to_string()).arg(millis(claim.ttl)).arg(claim.mode.code());
        call.arg(if claim.fair { "f" } else { "n" }).arg(micros(claim.wait_left));
        call.arg(claim.client_info.to_text());
    }
    call
}

/// Converts the answer. `validity` is that of a grant.
pub(in crate::stores) fn entered(
    (kind, number, other_permits, tokens): EnteredAnswer,
    validity: Duration,
) -> SetAttempt {
    let retry_in = u64::try_from(number).ok().map(Duration::from_millis).filter(|_| kind != 2);
    let attempt = if kind == 1 {
        SetAttempt::granted(tokens.into_iter().map(FencingToken::new).collect(), validity)
    } else {
        let at = tokens.first().and_then(|at| usize::try_from(*at).ok()).unwrap_or(1);
        SetAttempt::busy(at - 1, retry_in, kind == 6)
    };
    attempt.with_other_permits(other_permits.parse().ok())
}

/// Answers 1 renewed, 0 not held.
pub(in crate::stores) fn stay(names: &Names, claim: &Claim) -> ScriptInvocation<'static> {
    let mut call = STAY.prepare_invoke();
    call.key(&names.lock).key(names.group());
    call.arg(claim.owner.to_string()).arg(millis(claim.ttl));
    call
}

/// Answers 1 released, 0 not held.
pub(in crate::stores) fn leave(
    names: &Names,
    claim: &Claim,
    release: Release,
) -> ScriptInvocation<'static> {
    let mut call = LEAVE.prepare_invoke();
    call.key(&names.lock).key(names.tombstone(&claim.owner)).key(names.group());
    let tombstone = if release.late_acquire { millis(claim.ttl + TOMBSTONE) } else { 0 };
    call.arg(claim.owner.to_string()).arg(release.keep_for.map_or(0, millis));
    call.arg(names.channel()).arg(tombstone);
    call
}

/// Answers 1 renewed, 0 not held, 2 renewed on a node that must not count.
pub(in crate::stores) fn renew(
    names: &Names,
    claim: &Claim,
    member: Option<Member<'_>>,
) -> ScriptInvocation<'static> {
    let mut call = RENEW.prepare_invoke();
    call.key(&names.lock).arg(claim.owner.to_string()).arg(millis(claim.ttl));
    if let Some(member) = member {
        call.key(names.token()).key(names.tombstone(&claim.owner)).key(member.mark);
        let token = claim.token.map_or(0, FencingToken::get);
        call.arg(member.round).arg(token).arg(member.run).arg(claim.client_info.to_text());
    }
    call
}

/// Answers 1 released, 0 not held, 2 not held on a node that must not count.
pub(in crate::stores) fn release(
    names: &Names,
    claim: &Claim,
    release: Release,
    member: Option<Member<'_>>,
) -> ScriptInvocation<'static> {
    let tombstone = match (release.late_acquire, member) {
        (true, _) => Tombstone::Always,
        (false, Some(_)) => Tombstone::IfMissing,
        (false, None) => Tombstone::Never,
    };
    let rest = release.keep_for.map_or(0, millis);
    end(names, claim, rest, &names.channel(), tombstone, member)
}

/// Retracts the grant of a round that has failed. Notifies nobody: somebody else holds the lock, or will retry
/// anyway.
pub(in crate::stores) fn retract(
    names: &Names,
    claim: &Claim,
    tombstone: Tombstone,
    member: Member<'_>,
) -> ScriptInvocation<'static> {
    end(names, claim, 0, "", tombstone, Some(member))
}

fn end(
    names: &Names,
    claim: &Claim,
    rest: u64,
    channel: &str,
    tombstone: Tombstone,
    member: Option<Member<'_>>,
) -> ScriptInvocation<'static> {
    let mut call = RELEASE.prepare_invoke();
    call.key(&names.lock).key(names.tombstone(&claim.owner));
    call.arg(claim.owner.to_string()).arg(member.map_or(0, |member| member.round));
    call.arg(rest).arg(channel);
    match tombstone {
        Tombstone::Never => call.arg(0).arg("missing"),
        Tombstone::IfMissing => call.arg(millis(claim.ttl + TOMBSTONE)).arg("missing"),
        Tombstone::Always => call.arg(millis(claim.ttl + TOMBSTONE)).arg("always"),
    };
    if let Some(member) = member {
        call.key(member.mark).arg(member.run);
    }
    call
}

/// Answers 1 stored, 0 not.
pub(in crate::stores) fn raise(
    names: &Names,
    claim: &Claim,
    token: FencingToken,
    member: Member<'_>,
) -> ScriptInvocation<'static> {
    let mut call = RAISE.prepare_invoke();
    call.key(&names.lock).key(names.token()).key(member.mark);
    call.arg(claim.owner.to_string()).arg(member.round).arg(token.get()).arg(member.run);
    call
}

/// The holders and waiters on the wire.
pub(in crate::stores) type InspectAnswer = (Vec<HolderAnswer>, Vec<WaiterAnswer>);

/// The owner, its mode, its token, the milliseconds that are left, its client info.
type HolderAnswer = (String, String, u64, i64, String);

/// The owner, its mode, its client info.
type WaiterAnswer = (String, String, String);

pub(in crate::stores) fn state(key: LockKey, (holders, waiters): InspectAnswer) -> LockState {
    let holders = holders.into_iter().map(holder);
    let waiters = waiters.into_iter().map(|(owner, kind, client_info)| {
        let mode = words::mode(&kind).unwrap_or_default();
        Waiter::new(OwnerId::parse(&owner), mode, ClientInfo::parse(&client_info))
    });
    LockState::new(key, holders.collect(), waiters.collect())
}

fn holder((owner, kind, token, left, client_info): HolderAnswer) -> Holder {
    let expires_in = Duration::from_millis(u64::try_from(left).unwrap_or(0));
    let revoked = owner.starts_with(words::REVOKED);
    let owner = words::read(&owner).map(|(owner, _)| owner);
    Holder::new(owner, FencingToken::new(token), expires_in)
        .with_mode(words::mode(&kind).unwrap_or_default())
        .with_client_info(ClientInfo::parse(&client_info))
        .with_revoked(revoked)
}

/// Answers an [`InspectAnswer`].
pub(in crate::stores) fn inspect(names: &Names) -> ScriptInvocation<'static> {
    let mut call = INSPECT.prepare_invoke();
    call.key(&names.lock).key(names.group());
    call
}

/// Answers whether there was a hold.
pub(in crate::stores) fn revoke(names: &Names) -> ScriptInvocation<'static> {
    let mut call = REVOKE.prepare_invoke();
    call.key(&names.lock).key(names.group());
    call
}

/// Larger than the round of any attempt: Lua represents all integers up to this one exactly.
const LAST_ROUND: u64 = 1 << 53;

/// Stops renewals of the owner's hold on this one of several nodes. Answers 1.
pub(in crate::stores) fn bar(
    names: &Names,
    owner: &OwnerId,
    longest_lease: Duration,
) -> ScriptInvocation<'static> {
    let mut call = BAR.prepare_invoke();
    call.key(&names.lock).key(names.tombstone(owner));
    call.arg(owner.to_string()).arg(millis(longest_lease + TOMBSTONE)).arg(LAST_ROUND);
    call
}

/// Answers whether there was a lease. On one of several nodes, the owner would acquire it again at a renewal. A
/// tombstone that outlasts the longest lease prevents that.
pub(in crate::stores) fn force_release(
    names: &Names,
    longest_lease: Option<Duration>,
) -> ScriptInvocation<'static> {
    let mut call = FORCE_RELEASE.prepare_invoke();
    let tombstone = longest_lease.map_or(0, |longest| millis(longest + TOMBSTONE));
    call.key(&names.lock).arg(names.channel()).arg(tombstone).arg(LAST_ROUND);
    if longest_lease.is_none() {
        call.key(names.group());
    }
    call
}

/// How to greet a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::stores) enum Greeting {
    /// Changes nothing.
    Look,
    Enter,
    /// Nothing was ever stored on any node.
    Found,
}

/// Answers the server's run, the milliseconds until it counts (-1: it has no mark), the longest
/// requested quarantine and the server's clock, both in milliseconds.
pub(in crate::stores) fn greet(
    mark: &str,
    quarantine: Duration,
    greeting: Greeting,
) -> ScriptInvocation<'static> {
    let mut call = GREET.prepare_invoke();
    call.key(mark).arg(millis(quarantine)).arg(match greeting {
        Greeting::Look => "look",
        Greeting::Enter => "enter",
        Greeting::Found => "found",
    });
    call
}

/// Whole milliseconds, at least one.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
