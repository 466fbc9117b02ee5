//! Which options a backend supports.

use std::time::Duration;

use crate::backend::{Capabilities, Mode};
use crate::options::LockOptions;
use crate::stores::STORES;

/// Returns why a backend with these capabilities cannot honour the options or the ttl, or `None` if it can.
pub(crate) fn refuses(able: &Capabilities, ttl: Duration, options: &LockOptions) -> Option<String> {
    if let Some(grace) = options.grace {
        if !able.min_hold {
            return Some("grace: it cannot keep a lock after its hold has ended".to_owned());
        }
        if able.session {
            return Some(
                "grace: its locks end with the session of their process, however long their leases"
                    .to_owned(),
            );
        }
        if ttl.checked_add(grace).is_none_or(|both| both > able.max_ttl) {
            let longest = able.max_ttl;
            return Some(format!(
                "ttl = {ttl:?} with grace = {grace:?}: together at most {longest:?}"
            ));
        }
    }
    if ttl < able.min_ttl {
        return Some(format!("ttl = {ttl:?}: its shortest is {:?}", able.min_ttl));
    }
    if ttl > able.max_ttl {
        return Some(format!("ttl = {ttl:?}: its longest is {:?}", able.max_ttl));
    }
    if options.min_hold.is_some() && !able.min_hold {
        return Some("min_hold: it cannot keep a lock after its release".to_owned());
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
        return Some("fair = true: it does not order its waiters".to_owned());
    }
    None
}

/// Lists the kinds of the bundled backends that can honour these options, separated by commas.
pub(crate) fn supporting_backends(ttl: Duration, options: &LockOptions) -> String {
    let able = STORES.iter().filter(|store| refuses(&store.capabilities, ttl, options).is_none());
    able.map(|store| store.kind).collect::<Vec<_>>().join(", ")
}
