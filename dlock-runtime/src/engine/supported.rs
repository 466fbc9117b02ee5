//! Which options a backend can honour.

use std::time::Duration;

use crate::backend::{Capabilities, Mode};
use crate::options::LockOptions;
use crate::stores::STORES;

/// Why a backend of these capabilities cannot honour these options with this ttl, if it cannot.
pub(crate) fn refuses(able: &Capabilities, ttl: Duration, options: &LockOptions) -> Option<String> {
    if ttl < able.min_ttl {
        return Some(format!("ttl = {ttl:?}: its shortest is {:?}", able.min_ttl));
    }
    if ttl > able.max_ttl {
        return Some(format!("ttl = {ttl:?}: its longest is {:?}", able.max_ttl));
    }
    if options.min_hold.is_some() && !able.min_hold {
        return Some("min_hold: it cannot keep a lock that nobody holds".to_owned());
    }
    if let Some(min_hold) = options.min_hold.filter(|min_hold| *min_hold > able.max_ttl) {
        return Some(format!("min_hold = {min_hold:?}: its longest is {:?}", able.max_ttl));
    }
    match options.mode {
        Mode::Shared if !able.shared => {
            return Some("mode = \"shared\": it grants a key to one holder at a time".to_owned());
        }
        Mode::Permits(permits) if !able.permits => {
            return Some(format!("permits = {permits}: it does not count holders"));
        }
        _ => {}
    }
    if options.fair && !able.fair {
        return Some("fair = true: its waiters stand in no order".to_owned());
    }
    None
}

/// The kinds of backends that come with dlock and can honour these options, in a list for people.
pub(crate) fn able_kinds(ttl: Duration, options: &LockOptions) -> String {
    let able = STORES.iter().filter(|store| refuses(&store.capabilities, ttl, options).is_none());
    able.map(|store| store.kind).collect::<Vec<_>>().join(", ")
}
