//! Guides: what a user has to decide, and what happens when things go wrong.

#[doc = include_str!("guide/backends.md")]
pub mod backends {}

#[doc = include_str!("guide/coming_from.md")]
pub mod coming_from {}

#[doc = include_str!("guide/etcd.md")]
pub mod etcd {}

#[doc = include_str!("guide/failures.md")]
pub mod failures {}

#[doc = include_str!("guide/fencing.md")]
pub mod fencing {}

#[doc = include_str!("guide/kinds.md")]
pub mod kinds {}

#[doc = include_str!("guide/mysql.md")]
pub mod mysql {}

#[doc = include_str!("guide/operators.md")]
pub mod operators {}

#[doc = include_str!("guide/postgres.md")]
pub mod postgres {}

#[doc = include_str!("guide/redis.md")]
#[doc = "```lua"]
#[doc = include_str!("backend/redis/token.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("backend/redis/acquire.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("backend/redis/renew.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("backend/redis/release.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("backend/redis/group.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("backend/redis/enter.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("backend/redis/stay.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("backend/redis/leave.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("backend/redis/inspect.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("backend/redis/revoke.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("backend/redis/force_release.lua")]
#[doc = "```"]
pub mod redis {}

#[doc = include_str!("guide/redlock.md")]
#[doc = "```lua"]
#[doc = include_str!("backend/redis/mark.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("backend/redis/token.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("backend/redis/acquire.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("backend/redis/raise.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("backend/redis/renew.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("backend/redis/release.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("backend/redis/greet.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("backend/redis/group.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("backend/redis/inspect.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("backend/redis/bar.lua")]
#[doc = "```"]
#[doc = "```lua"]
#[doc = include_str!("backend/redis/force_release.lua")]
#[doc = "```"]
pub mod redlock {}

#[doc = include_str!("guide/row_locks.md")]
pub mod row_locks {}

#[doc = include_str!("guide/reentrancy.md")]
pub mod reentrancy {}

#[doc = include_str!("guide/testing.md")]
pub mod testing {}

#[doc = include_str!("guide/zookeeper.md")]
pub mod zookeeper {}
