//! The scripts and how to call them. A Redlock node has scripts of its own, in `stores/redlock`.

use std::sync::Arc;
use std::time::Duration;

use redis::{Script, Value};

use super::names::Names;
use super::step::{Header, Source, Step};
use crate::backend::{Claim, Holder, LockState, Release, SetAttempt, Waiter};
use crate::client_info::ClientInfo;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::lock_table::{record::micros, words};
use crate::owner::OwnerId;
use crate::token::FencingToken;

/// Loads a script from its file, preceded by the files whose functions it uses.
macro_rules! script {
    ($kind:ident: $($file:literal),+) => {
        Source::$kind(|| Script::new(concat!($(include_str!($file)),+)))
    };
}

static ACQUIRE: Source = script!(shared:
    "free.lua", "clock.lua", "tokens.lua", "announce.lua", "line.lua", "acquire.lua");
static RENEW: Source = script!(shared: "renew.lua");
static RELEASE: Source = script!(shared:
    "release.lua", "clock.lua", "line.lua", "hand_over.lua", "released.lua");
static END: Source = script!(single: "clock.lua", "line.lua", "hand_over.lua", "end.lua");
static ENTER: Source = script!(single:
    "clock.lua", "queue_times.lua", "glance.lua", "tokens.lua", "announce.lua", "line.lua", "group.lua",
    "enter.lua");
static STAY: Source = script!(single: "clock.lua", "queue_times.lua", "group.lua", "stay.lua");
static LEAVE: Source = script!(single:
    "clock.lua", "queue_times.lua", "line.lua", "hand_over.lua", "group.lua", "leave.lua");
static FORCE_RELEASE: Source = script!(single:
    "clock.lua", "queue_times.lua", "line.lua", "hand_over.lua", "group.lua", "force_release.lua");
static REVOKE: Source = script!(single: "clock.lua", "queue_times.lua", "group.lua", "revoke.lua");
static INSPECT: Source =
    script!(single: "clock.lua", "queue_times.lua", "line.lua", "group.lua", "inspect.lua");

/// How much longer than a ttl a tombstone is kept. A stopped server may have buffered the requests of an
/// old connection, but when it resumes, it executes them together with the tombstone's own request.
pub(in crate::stores) const TOMBSTONE: Duration = Duration::from_mins(1);

/// A server's answer to an acquire of a plain claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acquired {
    /// With the last token of its block.
    Granted(u64),
    /// With this token alone, instead of a block.
    GrantedOne(FencingToken),
    /// For how long, if the server knows of an end.
    Busy(Option<Duration>),
    /// Busy, and the claim is in line. It is to ask again after this time.
    InLine(Duration),
    /// A release of this acquire was executed first.
    GivenUp,
    /// The lock has readers, permit holders or a queue: [`enter`] decides.
    Grouped,
}

impl TryFrom<Value> for Acquired {
    type Error = BackendError;

    fn try_from(value: Value) -> Result<Self, BackendError> {
        match value {
            Value::Int(token @ 1..) => Ok(Self::Granted(token.unsigned_abs())),
            Value::Int(0) => Ok(Self::GivenUp),
            Value::Int(_) => Ok(Self::Grouped),
            other => match super::requests::read::<Vec<i64>>(other)?[..] {
                [left] => Ok(Self::Busy(u64::try_from(left).ok().map(Duration::from_millis))),
                [look_in, 2] => Ok(Self::InLine(Duration::from_millis(look_in.unsigned_abs()))),
                [token, 1] => Ok(Self::GrantedOne(FencingToken::new(token.unsigned_abs()))),
                _ => Err(BackendError::permanent("redis answered an acquire in an unknown form")),
            },
        }
    }
}

/// Answers what [`Acquired`] reads.
pub(super) fn acquire(names: &Names, claim: &Claim, counter: Arc<str>, channel: Arc<str>) -> Step {
    let digits = claim.owner.digits();
    let owner = text(&digits);
    Step::new(&ACQUIRE)
        .header(Header::Acquire { counter, channel })
        .repeatable()
        .key(&names.lock)
        .key_of(&[&names.lock, ":gone:", owner])
        .key_of(&[&names.lock, ":group"])
        .key_of(&[&names.lock, ":token"])
        .key_of(&[&names.lock, ":line"])
        .arg(owner)
        .number(millis(claim.ttl))
        .arg_with(|text| claim.client_info.write_to(text))
        .tokens(claim.block().into())
        .number(micros(claim.wait_left))
}

/// Digits are ASCII.
pub(in crate::stores) fn text(digits: &[u8; 32]) -> &str {
    std::str::from_utf8(digits).unwrap_or_default()
}

/// A server's answer to [`enter`]: the kind as in [`AcquiredAnswer`], or 6 for a queue position; when to poll next, in
/// milliseconds; a different number of permits that somebody else uses; the tokens, or the number of the busy lock.
pub(in crate::stores) type EnteredAnswer = (u8, i64, String, Vec<u64>);

/// Answers [`EnteredAnswer`], for claims in the order of their keys.
pub(super) fn enter(names: &[Names], claims: &[Claim], counter: Arc<str>) -> Step {
    let mut step = Step::new(&ENTER).header(Header::Tokens(counter)).repeatable();
    for (names, claim) in names.iter().zip(claims) {
        step = step.key(&names.lock).key(&names.tombstone(&claim.owner));
        step = step.key(&names.group()).key(&names.token()).key(&names.line());
    }
    for claim in claims {
        step = step.arg(&claim.owner.to_string()).number(millis(claim.ttl));
        step = step.arg(&claim.mode.code()).arg(if claim.fair { "f" } else { "n" });
        step = step.number(micros(claim.wait_left)).arg(&claim.client_info.to_text());
    }
    step
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
pub(super) fn renew(names: &Names, claim: &Claim) -> Step {
    let step = Step::new(&RENEW).repeatable().key(&names.lock);
    step.arg(text(&claim.owner.digits())).number(millis(claim.ttl))
}

/// Answers 1 released, 0 not held.
pub(super) fn release(names: &Names, claim: &Claim, release: Release) -> Step {
    let digits = claim.owner.digits();
    if !release.late_acquire && release.keep_for.is_none() {
        let step = Step::new(&RELEASE).key(&names.lock).key_of(&[&names.lock, ":group"]);
        return step.key_of(&[&names.lock, ":line"]).arg(text(&digits));
    }
    let step = Step::new(&END).key(&names.lock).key(&names.tombstone(&claim.owner));
    let step = step.key(&names.group()).key(&names.line());
    step.arg(text(&digits)).number(rest(release)).number(tombstone(claim, release))
}

/// Answers 1 renewed, 0 not held.
pub(super) fn stay(names: &Names, claim: &Claim) -> Step {
    let step = Step::new(&STAY).repeatable().key(&names.lock).key(&names.group());
    step.arg(&claim.owner.to_string()).number(millis(claim.ttl))
}

/// Answers 1 released, 0 not held.
pub(super) fn leave(names: &Names, claim: &Claim, release: Release) -> Step {
    let step = Step::new(&LEAVE).key(&names.lock).key(&names.tombstone(&claim.owner));
    let step = step.key(&names.group()).key(&names.line());
    let step = step.arg(&claim.owner.to_string()).number(rest(release));
    step.arg(&names.channel()).number(tombstone(claim, release))
}

/// The rest of the `min_hold`, in milliseconds.
fn rest(release: Release) -> u64 {
    release.keep_for.map_or(0, millis)
}

/// How long the tombstone is kept, in milliseconds.
fn tombstone(claim: &Claim, release: Release) -> u64 {
    if release.late_acquire { millis(claim.ttl + TOMBSTONE) } else { 0 }
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
pub(in crate::stores) fn inspect(names: &Names) -> Step {
    Step::new(&INSPECT).repeatable().key(&names.lock).key(&names.group()).key(&names.line())
}

/// Answers whether there was a hold.
pub(super) fn revoke(names: &Names) -> Step {
    Step::new(&REVOKE).key(&names.lock).key(&names.group())
}

/// Answers whether there was a lease.
pub(super) fn force_release(names: &Names) -> Step {
    Step::new(&FORCE_RELEASE).key(&names.lock).key(&names.group()).key(&names.line())
}

/// Whole milliseconds, at least one.
pub(in crate::stores) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
