//! One call of a script: its keys and arguments, and how it may be sent.

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};

use redis::{Cmd, Script};

use super::slots::Slot;

/// A Lua script.
pub(in crate::stores) struct Source {
    script: LazyLock<Script>,
    /// Whether one call answers several requests. Otherwise each request is a call of its own.
    pub(super) is_shared: bool,
}

impl Source {
    /// A script that answers one request a call.
    pub(in crate::stores) const fn single(load: fn() -> Script) -> Self {
        Self { script: LazyLock::new(load), is_shared: false }
    }

    /// A script that answers several requests a call, each with an element of an array.
    pub(in crate::stores) const fn shared(load: fn() -> Script) -> Self {
        Self { script: LazyLock::new(load), is_shared: true }
    }

    pub(super) fn script(&self) -> &Script {
        &self.script
    }
}

/// What the requests of one call have in common: its first key and its first arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::stores) enum Header {
    None,
    /// The counter of tokens. The arguments are those of `tokens.lua`, and are known when the call is sent.
    Tokens(Arc<str>),
    /// The same, and how waiters of this process are notified: `counted channel`, see `line.lua`.
    Acquire {
        counter: Arc<str>,
        channel: Arc<str>,
    },
    /// What the scripts of a Redlock node begin with.
    Mark(Arc<Mark>),
}

/// The mark of a Redlock node, and what it is compared with.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::stores) struct Mark {
    /// Where it is stored.
    pub(in crate::stores) name: Arc<str>,
    /// The run of the server that was greeted.
    pub(in crate::stores) run: Arc<str>,
    /// How far a proposed token may be from the server's clock, in microseconds.
    pub(in crate::stores) tolerance: u64,
}

/// A request to execute a script.
#[derive(Clone)]
pub(in crate::stores) struct Step {
    pub(super) source: &'static Source,
    pub(super) header: Header,
    /// The slot of its keys, in a Cluster.
    pub(super) slot: Option<Slot>,
    /// It may be executed twice without harm, so it is sent again over a new connection if the old one turns out to
    /// be broken.
    pub(super) is_repeatable: bool,
    /// How many tokens it asks for, of a request that shares its call with others.
    tokens: u32,
    /// It may be sent only over this connection.
    pub(super) only_over: Option<u64>,
    /// How many of the words are keys; the others are arguments.
    keys: usize,
    words: Words,
}

impl Header {
    /// Whether the call may draw tokens.
    pub(super) const fn draws(&self) -> bool {
        matches!(self, Self::Tokens(_) | Self::Acquire { .. })
    }
}

impl Step {
    pub(in crate::stores) fn new(source: &'static Source) -> Self {
        Self {
            source,
            header: Header::None,
            slot: None,
            is_repeatable: false,
            tokens: 0,
            only_over: None,
            keys: 0,
            words: Words::default(),
        }
    }

    pub(in crate::stores) fn header(mut self, header: Header) -> Self {
        self.header = header;
        self
    }

    /// Adds a key. All keys come before the first argument.
    pub(in crate::stores) fn key(self, key: &str) -> Self {
        self.key_of(&[key])
    }

    /// Adds a key that consists of these parts.
    pub(in crate::stores) fn key_of(mut self, parts: &[&str]) -> Self {
        debug_assert_eq!(self.keys, self.words.len(), "keys come before arguments");
        self.words.push(|text| parts.iter().for_each(|part| text.push_str(part)));
        self.keys += 1;
        self
    }

    pub(in crate::stores) fn arg(mut self, arg: &str) -> Self {
        self.words.push(|text| text.push_str(arg));
        self
    }

    /// Adds an argument that `write` appends to the text.
    pub(in crate::stores) fn arg_with(mut self, write: impl FnOnce(&mut String)) -> Self {
        self.words.push(write);
        self
    }

    pub(in crate::stores) fn number(mut self, number: u64) -> Self {
        self.words.push(|text| {
            // Writing into a `String` does not fail.
            let _ = write!(text, "{number}");
        });
        self
    }

    pub(in crate::stores) fn repeatable(mut self) -> Self {
        self.is_repeatable = true;
        self
    }

    pub(in crate::stores) fn only_over(mut self, generation: u64) -> Self {
        self.only_over = Some(generation);
        self
    }

    /// Asks for so many tokens. The call is told how many its requests ask for.
    pub(super) fn tokens(mut self, tokens: u32) -> Self {
        self.tokens = tokens;
        self.number(tokens.into())
    }

    pub(in crate::stores) fn size(&self) -> usize {
        self.words.text.len()
    }

    /// Whether both can be sent in one call.
    pub(super) fn shares_call_with(&self, other: &Self) -> bool {
        self.source.is_shared
            && std::ptr::eq(self.source, other.source)
            && self.slot == other.slot
            && self.header == other.header
    }
}

/// Words in one piece of memory.
#[derive(Clone, Default)]
struct Words {
    text: String,
    /// Where the first words end.
    ends: [u32; 10],
    /// Where the others end.
    more: Vec<u32>,
    len: usize,
}

impl Words {
    fn len(&self) -> usize {
        self.len
    }

    /// Adds what `write` appends to the text.
    fn push(&mut self, write: impl FnOnce(&mut String)) {
        if self.len == 0 {
            // Enough for a usual request.
            self.text.reserve(320);
        }
        write(&mut self.text);
        let end = u32::try_from(self.text.len()).expect("a request is far below 4 GiB");
        match self.ends.get_mut(self.len) {
            Some(one) => *one = end,
            None => self.more.push(end),
        }
        self.len += 1;
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        let ends = self.ends.iter().take(self.len).chain(&self.more);
        let mut start = 0;
        ends.map(move |end| {
            let end = *end as usize;
            let word = &self.text[start..end];
            start = end;
            word
        })
    }
}

/// Builds the command that executes these requests in one call. `draws` are the arguments of `tokens.lua`.
pub(super) fn command(steps: &[&Step], draws: Draws) -> Cmd {
    let bytes = steps.iter().map(|step| step.size()).sum::<usize>();
    let words = steps.iter().map(|step| step.words.len()).sum::<usize>();
    let first = steps[0];
    let mut command = Cmd::with_capacity(words + 8, bytes + 128);
    command.arg("EVALSHA").arg(first.source.script().get_hash());
    let keys = steps.iter().map(|step| step.keys).sum::<usize>();
    command.arg(keys + usize::from(first.header != Header::None));
    match &first.header {
        Header::None => {}
        Header::Tokens(counter) | Header::Acquire { counter, .. } => {
            command.arg(&**counter);
        }
        Header::Mark(mark) => {
            command.arg(&*mark.name);
        }
    }
    for key in steps.iter().flat_map(|step| step.words.iter().take(step.keys)) {
        command.arg(key);
    }
    match &first.header {
        Header::None => {}
        Header::Tokens(_) => {
            command.arg(draws.largest).arg(draws.reason.code());
        }
        Header::Acquire { channel, .. } => {
            command.arg(draws.largest).arg(draws.reason.code());
            command.arg(steps.iter().map(|step| u64::from(step.tokens)).sum::<u64>());
            command.arg(&**channel);
        }
        Header::Mark(mark) => {
            command.arg(&*mark.run).arg(mark.tolerance);
        }
    }
    for arg in steps.iter().flat_map(|step| step.words.iter().skip(step.keys)) {
        command.arg(arg);
    }
    command
}

/// The arguments of `tokens.lua`.
#[derive(Clone, Copy, Default)]
pub(super) struct Draws {
    /// The largest token that was drawn over this connection.
    pub(super) largest: u64,
    pub(super) reason: Reason,
}

/// Why a draw raises the counter to the server's time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reason {
    #[default]
    None,
    /// Nothing has been drawn over this connection yet.
    First,
    /// Nothing has been drawn for a while, or the counter was not raised for long.
    InAWhile,
}

impl Reason {
    const fn code(self) -> &'static str {
        match self {
            Self::None => "0",
            Self::First => "1",
            Self::InAWhile => "2",
        }
    }
}
