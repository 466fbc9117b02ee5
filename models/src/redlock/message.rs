//! What is sent between a client and a node.

use std::fmt;

/// A client, by its number. It has one claim, so this is the owner id, too.
pub type Client = u8;
/// The number of a round of a claim, or of a later request of it.
pub type Round = u8;
/// A fencing token.
pub type Token = u16;
/// A number of ticks.
pub type Ticks = u8;

/// A request, or what a node answers. What is not granted, raised or renewed is not answered: the client learns no more
/// from it than from silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Content {
    /// May I have the lock? I propose this token. `run`: of the server that I have greeted.
    Acquire {
        proposal: Token,
        run: u8,
    },
    /// Store this token.
    Raise {
        token: Token,
        run: u8,
    },
    /// Renew, or restore, the lock with this token.
    Renew {
        token: Token,
        run: u8,
    },
    /// End the lock. `always`: leave a tombstone even if the owner is found.
    Release {
        always: bool,
    },
    Granted {
        token: Token,
    },
    /// Somebody else has it, or the node must not count.
    Refused,
    Raised,
    Renewed,
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Message {
    pub client: Client,
    pub node: u8,
    pub round: Round,
    pub content: Content,
}

impl Message {
    /// Does it go to a node?
    #[must_use]
    pub const fn is_request(self) -> bool {
        matches!(
            self.content,
            Content::Acquire { .. }
                | Content::Raise { .. }
                | Content::Renew { .. }
                | Content::Release { .. }
        )
    }

    /// An answer to this request.
    pub(super) const fn answer(self, content: Content) -> Self {
        Self { content, ..self }
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { client, node, round, content } = self;
        let arrow = if self.is_request() { "->" } else { "<-" };
        write!(f, "C{client} {arrow} N{node}: {content:?}, round {round}")
    }
}

/// What becomes of a request and its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Prompt,
    /// The request arrives later, or never.
    LateRequest,
    /// The answer arrives later, or never.
    LateAnswer,
}
