//! The text form of a record: `v1|seen|g owner kind token end client-info|…|w owner kind flags end client-info|…`.
//! The owner of a revoked hold is preceded by `~`. A kind is `x`, `s`, or `p` and the number of permits. A waiter's
//! flags are `f` (fair) or `n`, followed by `a` if it is absent.
//!
//! A later version that adds something changes the version, or the text no longer parses. Text that does not parse
//! is rejected as a whole. Text from before there were versions begins with `seen`.
//!
//! The scripts of Redis use the same format.

use std::fmt::Write as _;

use super::record::{Grant, Record, Waiter};
use crate::client_info::ClientInfo;
use crate::error::BackendError;
use crate::key::LockKey;
use crate::lock_table::words::{mode, read, written};
use crate::owner::OwnerId;

/// The version prefix.
const VERSION: &str = "v1";

/// Stands for nobody: a hold that is kept for the rest of a `min_hold`, or unknown client info.
const NOBODY: &str = "-";

/// Text that this version cannot read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// The version it claims to have.
    version: Option<String>,
}

impl Unreadable {
    fn new(text: &str) -> Self {
        let first = text.split('|').next().unwrap_or_default();
        let is_version = first.strip_prefix('v').is_some_and(|number| {
            (1..=9).contains(&number.len()) && number.bytes().all(|digit| digit.is_ascii_digit())
        });
        Self { version: is_version.then(|| first.to_owned()) }
    }

    /// The error for a caller that wants to change it. Transient, because it ends with the holds in the text.
    pub(crate) fn explain(&self, key: &LockKey) -> BackendError {
        let version = self.version.as_deref().unwrap_or("unknown");
        BackendError::transient(format!(
            "lock `{key}`: its holders and waiters were written by another version of dlock (`{version}`, this one reads `{VERSION}`): update this process, or end the holds with `force_release`"
        ))
        .not_sent()
    }
}

impl Record {
    /// Parses the output of [`to_text`](Self::to_text), all of it or nothing.
    pub(crate) fn from_text(text: &str) -> Result<Self, Unreadable> {
        Self::read(text).ok_or_else(|| Unreadable::new(text))
    }

    fn read(text: &str) -> Option<Self> {
        let mut records = text.split('|');
        let mut first = records.next()?;
        if first == VERSION {
            first = records.next()?;
        }
        let mut entry = Self { head_seen: first.parse().ok()?, ..Self::default() };
        for record in records {
            let words: Vec<&str> = record.split(' ').collect();
            match words[..] {
                ["g", owner, kind, token, ends, client_info] => {
                    entry.granted.push(grant([owner, kind, token, ends], client_info)?);
                }
                ["w", owner, kind, flags, ends, client_info] => {
                    entry.queue.push(waiter([owner, kind, flags, ends], client_info)?);
                }
                _ => return None,
            }
        }
        Some(entry)
    }

    /// Encodes the record as text.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("{VERSION}|{}", self.head_seen);
        for Grant { owner, mode, token, ends, revoked, client_info } in &self.granted {
            let owner = owner.map_or_else(|| NOBODY.to_owned(), |owner| written(owner, *revoked));
            let client_info = word(client_info.as_ref());
            let _ = write!(text, "|g {owner} {} {token} {ends} {client_info}", mode.code());
        }
        for Waiter { owner, mode, fair, absent, gives_up, client_info } in &self.queue {
            let client_info = word(client_info.as_ref());
            let fair = if *fair { 'f' } else { 'n' };
            let absent = if *absent { "a" } else { "" };
            let kind = mode.code();
            let _ = write!(text, "|w {owner} {kind} {fair}{absent} {gives_up} {client_info}");
        }
        text
    }
}

fn word(client_info: Option<&ClientInfo>) -> String {
    client_info.map_or_else(|| NOBODY.to_owned(), ClientInfo::to_text)
}

fn grant([owner, kind, token, ends]: [&str; 4], client_info: &str) -> Option<Grant> {
    let (owner, revoked) = match owner {
        NOBODY => (None, false),
        owner => read(owner).map(|(owner, revoked)| (Some(owner), revoked))?,
    };
    let (token, ends) = (token.parse().ok()?, ends.parse().ok()?);
    let client_info = ClientInfo::parse(client_info);
    Some(Grant { owner, mode: mode(kind)?, token, ends, revoked, client_info })
}

fn waiter([owner, kind, flags, ends]: [&str; 4], client_info: &str) -> Option<Waiter> {
    let (owner, gives_up) = (OwnerId::parse(owner)?, ends.parse().ok()?);
    let (fair, absent) = match flags {
        "f" => (true, false),
        "fa" => (true, true),
        "n" => (false, false),
        "na" => (false, true),
        _ => return None,
    };
    let client_info = ClientInfo::parse(client_info);
    Some(Waiter { owner, mode: mode(kind)?, fair, absent, gives_up, client_info })
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::backend::Mode;

    #[test]
    fn encoded_records_parse_back() {
        let permits = Mode::Permits(NonZeroU32::MIN.saturating_add(4));
        let owner = OwnerId::random();
        let known = ClientInfo::parse("host,7,1000,shop::purchase");
        assert!(known.is_some());
        let grant = |owner, mode, revoked, client_info: &Option<ClientInfo>| Grant {
            owner,
            mode,
            token: 7,
            ends: 1 << 52,
            revoked,
            client_info: client_info.clone(),
        };
        let waiter = |mode, fair, absent, client_info: &Option<ClientInfo>| Waiter {
            owner,
            mode,
            fair,
            absent,
            gives_up: 3,
            client_info: client_info.clone(),
        };
        let entry = Record {
            granted: vec![
                grant(Some(owner), Mode::Shared, false, &known),
                grant(Some(owner), Mode::Shared, true, &None),
                grant(None, permits, false, &known),
            ],
            queue: vec![
                waiter(Mode::Exclusive, true, true, &known),
                waiter(permits, false, false, &None),
            ],
            head_seen: 12,
        };
        assert_eq!(Record::from_text(&entry.to_text()), Ok(entry.clone()));
        assert_eq!(Record::from_text(&Record::default().to_text()), Ok(Record::default()));
        assert!(entry.to_text().starts_with("v1|12|g "), "{}", entry.to_text());
        // As the previous version wrote it.
        let without_version = entry.to_text().replacen("v1|", "", 1);
        assert_eq!(Record::from_text(&without_version), Ok(entry));
    }

    #[test]
    fn unknown_text_is_rejected_as_a_whole() {
        let owner = OwnerId::random();
        for text in [
            format!("v2|5|g {owner} s 7 9 -"),
            format!("v1|5|g {owner} s 7 9 - more"),
            format!("5|g {owner} s 7 9 -|"),
            format!("5|g {owner} z 7 9 -"),
            format!("5|h {owner} s 7 9 -"),
            format!("5|w {owner} s fx 9 -"),
            format!("g {owner} s 7 9 -"),
            String::new(),
        ] {
            assert!(Record::from_text(&text).is_err(), "{text}");
        }
        assert_eq!(Unreadable::new("v2|5").version.as_deref(), Some("v2"));
        assert_eq!(Unreadable::new("volatile|5").version, None);
    }
}
