//! What is sent between the processes and the server.

use std::fmt;

/// A process, by its number.
pub type Process = u8;
/// The number of a sign of life. Each process counts its own.
pub type Number = u8;
/// A lease token.
pub type Token = u8;
/// A number of ticks.
pub type Ticks = u8;

/// A message. An enqueue is a sign, too, and shares the numbers of signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Message {
    /// Queue me, unless this comes too late.
    Enqueue {
        from: Process,
        number: Number,
        deadline: Ticks,
    },
    /// I am alive and waiting.
    Sign {
        from: Process,
        number: Number,
    },
    /// I do not wait any more; this was my last number.
    Leave {
        from: Process,
        number: Number,
    },
    Renew {
        from: Process,
        token: Token,
    },
    /// The lease is over, and so is every wait up to this number.
    Release {
        from: Process,
        token: Token,
        number: Number,
    },
    /// Published: the lease is yours. The last sign that the server executed had this number, so long ago.
    Grant {
        to: Process,
        token: Token,
        number: Number,
        age: Ticks,
        lease: Ticks,
    },
    /// The reply to a sign: the lease is yours, and has so long left.
    Owner {
        to: Process,
        token: Token,
        number: Number,
        left: Ticks,
    },
    /// The reply to a sign: you have no position.
    Unknown {
        to: Process,
        number: Number,
    },
    Renewed {
        to: Process,
        token: Token,
    },
    Released {
        to: Process,
        token: Token,
    },
    /// The reply to a release, with whether an earlier release had ended the lease.
    NotHeld {
        to: Process,
        token: Token,
        was_released: bool,
    },
}

impl Message {
    /// The process that sent it or will get it.
    #[must_use]
    pub const fn process(self) -> Process {
        match self {
            Self::Enqueue { from, .. }
            | Self::Sign { from, .. }
            | Self::Leave { from, .. }
            | Self::Renew { from, .. }
            | Self::Release { from, .. } => from,
            Self::Grant { to, .. }
            | Self::Owner { to, .. }
            | Self::Unknown { to, .. }
            | Self::Renewed { to, .. }
            | Self::Released { to, .. }
            | Self::NotHeld { to, .. } => to,
        }
    }

    /// Does it go to the server?
    #[must_use]
    pub const fn is_request(self) -> bool {
        matches!(
            self,
            Self::Enqueue { .. }
                | Self::Sign { .. }
                | Self::Leave { .. }
                | Self::Renew { .. }
                | Self::Release { .. }
        )
    }

    /// The number of the sign that it carries or echoes.
    #[must_use]
    pub const fn number(self) -> Option<Number> {
        match self {
            Self::Enqueue { number, .. }
            | Self::Sign { number, .. }
            | Self::Leave { number, .. }
            | Self::Release { number, .. }
            | Self::Grant { number, .. }
            | Self::Owner { number, .. }
            | Self::Unknown { number, .. } => Some(number),
            _ => None,
        }
    }

    /// The token that it names.
    #[must_use]
    pub const fn token(self) -> Option<Token> {
        match self {
            Self::Renew { token, .. }
            | Self::Release { token, .. }
            | Self::Grant { token, .. }
            | Self::Owner { token, .. }
            | Self::Renewed { token, .. }
            | Self::Released { token, .. }
            | Self::NotHeld { token, .. } => Some(token),
            _ => None,
        }
    }

    /// A tick later.
    #[must_use]
    pub const fn older(self) -> Self {
        match self {
            Self::Enqueue { from, number, deadline } => {
                Self::Enqueue { from, number, deadline: deadline.saturating_sub(1) }
            }
            other => other,
        }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enqueue { from, number, deadline } => {
                write!(f, "P{from}: enqueue({number}), good for {deadline}")
            }
            Self::Sign { from, number } => write!(f, "P{from}: sign({number})"),
            Self::Leave { from, number } => write!(f, "P{from}: leave({number})"),
            Self::Renew { from, token } => write!(f, "P{from}: renew(token {token})"),
            Self::Release { from, token, number } => {
                write!(f, "P{from}: release(token {token}), gone since {number}")
            }
            Self::Grant { to, token, number, age, lease } => {
                write!(f, "to P{to}: grant(token {token}, sign {number}, age {age}, lease {lease})")
            }
            Self::Owner { to, token, number, left } => {
                write!(f, "to P{to}: reply to sign {number}: owner(token {token}, {left} left)")
            }
            Self::Unknown { to, number } => write!(f, "to P{to}: reply to sign {number}: unknown"),
            Self::Renewed { to, token } => write!(f, "to P{to}: renewed(token {token})"),
            Self::Released { to, token } => write!(f, "to P{to}: released(token {token})"),
            Self::NotHeld { to, token, was_released } => {
                let how = if *was_released { "released earlier" } else { "lost" };
                write!(f, "to P{to}: not held(token {token}), {how}")
            }
        }
    }
}
