//! Functions that return a future instead of being `async`.

use std::pin::Pin;

use dlock_runtime::{LockError, distributed_lock};
use futures_util::future::{BoxFuture, FutureExt, LocalBoxFuture};

use super::{Room, assert_exclusive};

#[distributed_lock(key = "impl:<id>", guard = lock)]
fn impl_future(id: u8, room: &Room) -> impl Future<Output = Result<String, LockError>> + Send {
    let before = id;
    async move {
        room.visit().await;
        assert_eq!(before, id);
        Ok(lock.key().to_string())
    }
}

#[tokio::test]
async fn a_function_that_returns_impl_future() {
    let room = Room::default();
    assert_exclusive(&room, "impl:1", impl_future(1, &room), impl_future(1, &room)).await;
}

#[distributed_lock(key = "infers:<text>")]
fn infers(text: &str) -> impl Future<Output = Result<String, Box<dyn std::error::Error>>> {
    async move {
        let number: u8 = text.parse()?;
        if number > 9 {
            return Err("too large".into());
        }
        Ok(text.to_owned())
    }
}

#[tokio::test]
async fn the_question_mark_is_inferred_in_such_a_function() {
    super::registry()
        .scope(async {
            assert_eq!(infers("7").await.unwrap(), "7");
            assert!(infers("x").await.is_err());
            assert!(infers("77").await.is_err());
        })
        .await;
}

#[distributed_lock(key = "early:<id>", guard = lock)]
fn early_return<'a>(
    id: u8,
    room: &'a Room,
) -> Pin<Box<dyn Future<Output = Result<String, LockError>> + Send + 'a>> {
    if id == 0 {
        return Box::pin(async { Ok("zero".to_owned()) });
    }
    Box::pin(async move {
        room.visit().await;
        Ok(lock.key().to_string())
    })
}

#[tokio::test]
async fn a_boxed_future() {
    let room = Room::default();
    assert_exclusive(&room, "early:1", early_return(1, &room), early_return(1, &room)).await;
}

#[distributed_lock(key = "static:<id>", guard = lock)]
fn boxed_without_lifetime(
    id: u8,
    room: &'static Room,
) -> Pin<Box<dyn Future<Output = Result<String, LockError>> + Send>> {
    Box::pin(async move {
        room.visit().await;
        Ok(format!("{}{id}", lock.key()))
    })
}

#[tokio::test]
async fn a_boxed_future_that_borrows_nothing_but_its_guard() {
    let room: &'static Room = Box::leak(Box::default());
    let call = || boxed_without_lifetime(1, room);
    assert_exclusive(room, "static:11", call(), call()).await;
}

#[distributed_lock(key = "alias:<id>", guard = lock)]
fn box_future(id: u8, room: &Room) -> BoxFuture<'_, Result<String, LockError>> {
    async move {
        room.visit().await;
        Ok(lock.key().to_string())
    }
    .boxed()
}

#[distributed_lock(key = "local:<id>", guard = lock)]
fn local_box_future(id: u8, room: &Room) -> LocalBoxFuture<'_, Result<String, LockError>> {
    let not_send = std::rc::Rc::new(id);
    Box::pin(async move {
        room.visit().await;
        drop(not_send);
        Ok(lock.key().to_string())
    })
}

type AnswerFuture<'a> = BoxFuture<'a, Result<String, LockError>>;
type AnswerFut = BoxFuture<'static, Result<String, LockError>>;

#[distributed_lock(key = "own:<id>", guard = lock)]
fn own_alias(id: u8, room: &Room) -> AnswerFuture<'_> {
    Box::pin(async move {
        room.visit().await;
        Ok(lock.key().to_string())
    })
}

#[distributed_lock(key = "short:<id>")]
fn static_alias(id: u8, room: &'static Room) -> AnswerFut {
    Box::pin(async move {
        room.visit().await;
        Ok(format!("short:{id}"))
    })
}

#[tokio::test]
async fn aliases_of_boxed_futures() {
    let room = Room::default();
    assert_exclusive(&room, "alias:1", box_future(1, &room), box_future(1, &room)).await;
    let room = Room::default();
    assert_exclusive(&room, "local:1", local_box_future(1, &room), local_box_future(1, &room))
        .await;
    let room = Room::default();
    assert_exclusive(&room, "own:1", own_alias(1, &room), own_alias(1, &room)).await;
    let room: &'static Room = Box::leak(Box::default());
    assert_exclusive(room, "short:1", static_alias(1, room), static_alias(1, room)).await;
}

struct Shop {
    id: u8,
    room: Room,
}

impl Shop {
    #[distributed_lock(key = "shop:<self.id>", guard = lock)]
    fn visit(&self) -> BoxFuture<'_, Result<String, LockError>> {
        Box::pin(async move {
            self.room.visit().await;
            Ok(lock.key().to_string())
        })
    }

    #[distributed_lock(key = "shop:<self.id>", guard = lock)]
    fn visit_opaque(&self) -> impl Future<Output = Result<String, LockError>> {
        async move {
            self.room.visit().await;
            Ok(lock.key().to_string())
        }
    }
}

#[tokio::test]
async fn methods_that_return_futures() {
    let shop = Shop { id: 1, room: Room::default() };
    assert_exclusive(&shop.room, "shop:1", shop.visit(), shop.visit_opaque()).await;
}
