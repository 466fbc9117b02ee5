//! The owner column of a row.

use crate::lock_table::words;
use crate::owner::OwnerId;

/// Stands for a foreign owner, in an unknown form. No claim draws this id.
const FOREIGN: OwnerId = OwnerId::from_bytes([0xff; 16]);

/// Precedes the owner id of a waiter that the lock is reserved for.
const RESERVED: u8 = b'>';

/// The owner of a row's lease, as stored: nobody, an owner id, or foreign bytes, written by another program or another
/// version. Foreign bytes exclude others until the lease ends, like an owner id, and can be revoked and forcibly
/// released.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RowOwner {
    id: Option<OwnerId>,
    revoked: bool,
    /// The foreign bytes, without the mark of a revoked hold.
    foreign: Option<Vec<u8>>,
}

impl RowOwner {
    pub(crate) fn id(&self) -> Option<OwnerId> {
        self.id
    }

    pub(crate) fn is_revoked(&self) -> bool {
        self.revoked
    }

    /// Is the lock reserved for a waiter, whose owner id follows the mark?
    pub(crate) fn is_reserved(&self) -> bool {
        self.foreign.as_ref().is_some_and(|bytes| bytes.first() == Some(&RESERVED))
    }

    /// The waiter that the lock is reserved for, if it can be read.
    pub(crate) fn reserved_for(&self) -> Option<OwnerId> {
        let waiter = self.foreign.as_ref()?.strip_prefix(&[RESERVED])?;
        let (owner, _) = words::read(std::str::from_utf8(waiter).ok()?)?;
        Some(owner)
    }

    /// The stored owner for a grant of `id`. Keeps the foreign bytes if `id` stands for them.
    pub(crate) fn with_owner(&self, id: Option<OwnerId>, revoked: bool) -> Self {
        let foreign = if id == Some(FOREIGN) { self.foreign.clone() } else { None };
        Self { id, revoked, foreign }
    }

    fn foreign(bytes: &[u8], revoked: bool) -> Self {
        Self { id: Some(FOREIGN), revoked, foreign: Some(bytes.to_vec()) }
    }
}

/// The text form: 32 hexadecimal digits, preceded by `~` if the hold was revoked.
#[cfg(any(feature = "postgres", feature = "mysql"))]
impl RowOwner {
    pub(crate) fn read(text: Option<&str>) -> Self {
        let Some(text) = text else { return Self::default() };
        match (words::read(text), text.strip_prefix(words::REVOKED)) {
            (Some((id, revoked)), _) => Self { id: Some(id), revoked, foreign: None },
            (None, Some(foreign)) => Self::foreign(foreign.as_bytes(), true),
            (None, None) => Self::foreign(text.as_bytes(), false),
        }
    }

    pub(crate) fn written(&self) -> Option<String> {
        let id = self.id?;
        Some(match &self.foreign {
            None => words::written(id, self.revoked),
            Some(foreign) => {
                let mut text = String::from_utf8_lossy(foreign).into_owned();
                if self.revoked {
                    text.insert(0, words::REVOKED);
                }
                text
            }
        })
    }
}

/// Follows the bytes of the owner of a revoked hold.
#[cfg(feature = "sqlite")]
const REVOKED: &[u8] = b"~";

/// The binary form: empty for nobody, sixteen bytes for an owner id.
#[cfg(feature = "sqlite")]
impl RowOwner {
    pub(crate) fn from_blob(bytes: &[u8]) -> Self {
        let (owner, revoked) = match bytes.strip_suffix(REVOKED) {
            // The last byte of an owner id may also be `~`.
            Some(owner) if bytes.len() != 16 => (owner, true),
            _ => (bytes, false),
        };
        match <[u8; 16]>::try_from(owner) {
            Ok(id) => Self { id: Some(OwnerId::from_bytes(id)), revoked, foreign: None },
            Err(_) if bytes.is_empty() => Self::default(),
            Err(_) => Self::foreign(owner, revoked),
        }
    }

    pub(crate) fn to_blob(&self) -> Vec<u8> {
        let mut bytes = match (&self.foreign, self.id) {
            (Some(foreign), _) => foreign.clone(),
            (None, Some(id)) => id.as_bytes().to_vec(),
            (None, None) => vec![],
        };
        if self.revoked {
            bytes.extend(REVOKED);
        }
        bytes
    }
}

#[cfg(all(test, feature = "sqlite", feature = "postgres"))]
mod tests {
    use super::*;

    #[test]
    fn stored_owners_are_read_back() {
        let mut id = *OwnerId::random().as_bytes();
        id[15] = b'~';
        for owner in [
            RowOwner::default(),
            RowOwner::default().with_owner(Some(OwnerId::from_bytes(id)), false),
            RowOwner::default().with_owner(Some(OwnerId::from_bytes(id)), true),
            RowOwner::foreign(b"maintenance", false),
            RowOwner::foreign(b"maintenance", true),
        ] {
            assert_eq!(RowOwner::from_blob(&owner.to_blob()), owner);
            assert_eq!(RowOwner::read(owner.written().as_deref()), owner);
        }
    }
}
