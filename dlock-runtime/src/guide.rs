//! Guides: which decisions a user has to make, and what happens when something fails.

#[doc = include_str!("guide/backends.md")]
pub mod backends {}

#[doc = include_str!("guide/coming_from.md")]
pub mod coming_from {}

#[doc = include_str!("guide/contention.md")]
pub mod contention {}

#[doc = include_str!("stores/etcd/guide.md")]
pub mod etcd {}

#[doc = include_str!("guide/failures.md")]
pub mod failures {}

#[doc = include_str!("guide/fencing.md")]
pub mod fencing {}

#[doc = include_str!("guide/kinds.md")]
pub mod kinds {}

#[doc = include_str!("stores/mysql/guide.md")]
pub mod mysql {}

#[doc = include_str!("guide/operators.md")]
pub mod operators {}

#[doc = include_str!("stores/postgres/guide.md")]
pub mod postgres {}

#[doc = include_str!("stores/redis/guide.md")]
#[doc = "```lua"]
#[doc = include_str!("stores/redis/clock.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redis/tokens.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redis/announce.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redis/line.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redis/hand_over.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redis/free.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redis/acquire.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redis/renew.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redis/release.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redis/released.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redis/end.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redis/queue_times.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redis/group.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redis/glance.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redis/enter.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redis/stay.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redis/leave.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redis/inspect.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redis/revoke.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redis/force_release.lua")]
#[doc = "```"]
pub mod redis {}

#[doc = include_str!("stores/redlock/guide.md")]
#[doc = "```lua"]
#[doc = include_str!("stores/redis/clock.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redlock/mark.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redlock/last_token.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redlock/acquire.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redlock/raise.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redlock/renew.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redlock/release.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redlock/greet.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redlock/bar.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redlock/force_release.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redis/queue_times.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redis/group.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("stores/redis/inspect.lua")]
#[doc = "```"]
pub mod redlock {}

#[doc = include_str!("guide/row_locks.md")]
pub mod row_locks {}

#[doc = include_str!("guide/reentrancy.md")]
pub mod reentrancy {}

#[doc = include_str!("guide/scheduled_jobs.md")]
pub mod scheduled_jobs {}

#[cfg_attr(feature = "sim", doc = include_str!("guide/simulation.md"))]
#[cfg_attr(
    not(feature = "sim"),
    doc = "Deterministic simulation of your own service. Needs the feature `sim`."
)]
pub mod simulation {}

#[doc = include_str!("guide/telemetry.md")]
pub mod telemetry {}

#[doc = include_str!("guide/testing.md")]
pub mod testing {}

#[doc = include_str!("guide/web.md")]
pub mod web {}

#[doc = include_str!("stores/zookeeper/guide.md")]
pub mod zookeeper {}
