//! The attribute combined with other attributes, in either order.

use std::sync::Arc;

use async_trait::async_trait;
use dlock_runtime::{LockError, distributed_lock};
use tracing::instrument;

use super::{Room, assert_exclusive};

/// Not `Debug`, so an instrumented function must not record it.
struct Opaque;

/// A documented function.
#[distributed_lock(key = "outside:<id>", guard = lock)]
#[instrument(skip(room), fields(seen = id), err)]
async fn lock_outside(id: u8, _: Opaque, room: &Room) -> Result<String, LockError> {
    room.visit().await;
    Ok(lock.key().to_string())
}

#[instrument(skip(room, other), ret)]
#[distributed_lock(key = "inside:<id>:<other>", guard = lock)]
#[inline]
async fn lock_inside((id, other): (u8, u8), _: Opaque, room: &Room) -> Result<String, LockError> {
    room.visit().await;
    Ok(lock.key().to_string())
}

#[tokio::test]
async fn instrument_on_functions() {
    let room = Room::default();
    let call = || lock_outside(1, Opaque, &room);
    assert_exclusive(&room, "outside:1", call(), call()).await;
    let room = Room::default();
    let call = || lock_inside((1, 2), Opaque, &room);
    assert_exclusive(&room, "inside:1:2", call(), call()).await;
}

#[async_trait]
trait Service {
    async fn outside(&self, id: u8) -> Result<String, LockError>;
    async fn inside(&self, id: u8) -> Result<String, LockError>;
}

#[async_trait]
impl Service for Arc<Room> {
    #[distributed_lock(key = "outside:<id>", guard = lock)]
    #[instrument(skip(self))]
    async fn outside(&self, id: u8) -> Result<String, LockError> {
        self.visit().await;
        Ok(lock.key().to_string())
    }

    #[instrument(skip(self))]
    #[distributed_lock(key = "inside:<id>", guard = lock)]
    async fn inside(&self, id: u8) -> Result<String, LockError> {
        self.visit().await;
        Ok(lock.key().to_string())
    }
}

#[tokio::test]
async fn instrument_on_methods_under_async_trait() {
    let room = Arc::<Room>::default();
    assert_exclusive(&room, "outside:1", room.outside(1), room.outside(1)).await;
    let room = Arc::<Room>::default();
    assert_exclusive(&room, "inside:1", room.inside(1), room.inside(1)).await;
}

#[distributed_lock(key = "inner:<id>")]
async fn inner(id: u8, room: &Room) -> Result<String, LockError> {
    room.visit().await;
    Ok(format!("nested:{id}"))
}

#[distributed_lock(key = "outer:<id>")]
async fn outer(id: u8, room: &Room) -> Result<String, LockError> {
    inner(id, room).await
}

#[tokio::test]
async fn annotated_functions_call_each_other() {
    let room = Room::default();
    assert_exclusive(&room, "nested:1", outer(1, &room), inner(1, &room)).await;
}

#[cfg(any())]
#[distributed_lock(key = "never")]
async fn never() -> NoSuchType {}

#[cfg_attr(all(), distributed_lock(key = "conditional:<id>", guard = lock))]
#[must_use = "it is"]
pub(crate) async fn conditional(id: u8, room: &Room) -> Result<String, LockError> {
    room.visit().await;
    Ok(lock.key().to_string())
}

#[tokio::test]
async fn the_attribute_under_a_condition() {
    let room = Room::default();
    assert_exclusive(&room, "conditional:1", conditional(1, &room), conditional(1, &room)).await;
}
