//! How values are serialized for people: durations in seconds, times of day as RFC 3339.

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::key::LockKey;
use crate::owner::OwnerId;

pub(crate) fn seconds<S: Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

pub(crate) fn time_of_day<S: Serializer>(
    time: &SystemTime,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    // A time before 1970 cannot be written so.
    let time = (*time).max(SystemTime::UNIX_EPOCH);
    serializer.collect_str(&humantime::format_rfc3339_micros(time))
}

impl Serialize for LockKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl Serialize for OwnerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use serde_json::json;

    use crate::ClientInfo;
    use crate::backend::{Holder, LockState, Waiter};
    use crate::mode::Mode;
    use crate::owner::OwnerId;
    use crate::token::FencingToken;
    use std::time::Duration;

    #[test]
    fn what_operators_see_is_written_for_people() {
        let info = ClientInfo::parse("shop-3,4711,1750000000000001,shop::purchase");
        let holder = Holder::new(None, FencingToken::new(7), Duration::from_millis(1500))
            .with_client_info(info.clone());
        let five = Mode::permits(NonZeroU32::MIN.saturating_add(4));
        let waiter = Waiter::new(Some(OwnerId::from_bytes([1; 16])), five, info);
        let state = LockState::new("product:1".into(), vec![holder], vec![waiter]);
        let client_info = json!({
            "host": "shop-3",
            "process_id": 4711,
            "label": "shop::purchase",
            "since": "2025-06-15T15:06:40.000001Z",
        });
        let expected = json!({
            "key": "product:1",
            "holders": [{
                "owner": null,
                "token": 7,
                "expires_in": 1.5,
                "mode": "exclusive",
                "client_info": client_info,
                "resting": true,
                "revoked": false,
                "shown_by": "store",
            }],
            "waiters": [{
                "owner": "01010101010101010101010101010101",
                "mode": { "permits": 5 },
                "client_info": client_info,
            }],
        });
        assert_eq!(serde_json::to_value(&state).expect("it can be written"), expected);
    }
}
