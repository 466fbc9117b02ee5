//! Free functions.

use std::fmt::Display;

use dlock_runtime::{LockError, LockGuard, distributed_lock};

use super::{Room, assert_exclusive, together};

#[distributed_lock(key = "product:<id>", guard = lock)]
async fn plain(id: u64, room: &Room) -> Result<String, LockError> {
    room.visit().await;
    Ok(lock.key().to_string())
}

#[tokio::test]
async fn a_free_function() {
    let room = Room::default();
    assert_exclusive(&room, "product:7", plain(7, &room), plain(7, &room)).await;
}

#[tokio::test]
async fn different_keys_do_not_exclude_each_other() {
    let room = Room::default();
    let (one, other) = together(plain(1, &room), plain(2, &room)).await;
    assert_eq!((one.unwrap(), other.unwrap()), ("product:1".to_owned(), "product:2".to_owned()));
    assert_eq!(room.most(), 2);
}

#[distributed_lock(key = "generic:<id>:<N>", guard = lock)]
async fn generic<'a, T, R, const N: usize>(id: T, room: &'a R) -> Result<String, LockError>
where
    T: Display + Send,
    R: AsRef<Room> + ?Sized,
{
    room.as_ref().visit().await;
    Ok(lock.key().to_string())
}

impl AsRef<Room> for Room {
    fn as_ref(&self) -> &Room {
        self
    }
}

#[tokio::test]
async fn generics_lifetimes_and_where_clauses() {
    let room = Room::default();
    let call = || generic::<_, Room, 3>("a b", &room);
    assert_exclusive(&room, "generic:a%20b:3", call(), call()).await;
}

#[distributed_lock(key = "impl:<id>", guard = lock)]
async fn impl_argument(id: impl Display, room: &Room) -> Result<String, LockError> {
    room.visit().await;
    Ok(lock.key().to_string())
}

#[tokio::test]
async fn impl_trait_arguments() {
    let room = Room::default();
    assert_exclusive(&room, "impl:x", impl_argument("x", &room), impl_argument('x', &room)).await;
}

#[distributed_lock(key = "opaque", guard = lock)]
async fn opaque(room: &Room) -> Result<impl Display + use<>, LockError> {
    room.visit().await;
    Ok(lock.key().to_string())
}

#[tokio::test]
async fn a_return_type_with_impl_trait_inside() {
    let room = Room::default();
    let call = async || opaque(&room).await.map(|shown| shown.to_string());
    assert_exclusive(&room, "opaque", call(), call()).await;
}

type Shared<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[distributed_lock(key = "alias:<id>", guard = lock)]
async fn aliased(id: &str, room: &Room) -> Shared<String> {
    let id: u32 = id.parse()?;
    room.visit().await;
    if id == 0 {
        return Err("zero".into());
    }
    Ok(lock.key().to_string())
}

#[tokio::test]
async fn an_alias_of_result_and_a_question_mark_in_the_body() {
    let room = Room::default();
    assert_exclusive(&room, "alias:5", aliased("5", &room), aliased("5", &room)).await;
    let (parsed, zero) = together(aliased("x", &room), aliased("0", &room)).await;
    assert_eq!(parsed.unwrap_err().to_string(), "invalid digit found in string");
    assert_eq!(zero.unwrap_err().to_string(), "zero");
}

/// An error type that cannot implement `From<LockError>`: neither the tuple nor its fields are
/// ours.
type Response = (u16, String);

#[allow(clippy::needless_pass_by_value, reason = "`map_err` passes the error by value")]
fn unavailable(error: LockError) -> Response {
    (503, error.to_string())
}

#[distributed_lock(key = "mapped:<id>", map_err = unavailable, wait = "0s", guard = lock)]
async fn mapped(id: u8, room: &Room) -> Result<String, Response> {
    room.visit().await;
    Ok(lock.key().to_string())
}

#[tokio::test]
async fn an_error_by_map_err() {
    let room = Room::default();
    let (one, other) = together(mapped(1, &room), mapped(1, &room)).await;
    assert_eq!(one.unwrap(), "mapped:1");
    assert_eq!(other.unwrap_err().0, 503);
    assert_eq!(room.most(), 1);
}

#[distributed_lock(key = "skip:<id>", on_busy = "skip", wait = "0s", backend = "memory")]
async fn optional(id: u8, room: &Room) -> Result<Option<u8>, LockError> {
    room.visit().await;
    Ok(Some(id))
}

#[distributed_lock(keys = ["skip:<id>"], on_busy = "skip", wait = "0s")]
async fn nothing(id: u8, room: &Room) -> Result<(), LockError> {
    room.visit().await;
    Ok(())
}

#[tokio::test]
async fn a_busy_lock_skips_the_body() {
    let room = Room::default();
    let (one, other) = together(optional(1, &room), optional(1, &room)).await;
    assert_eq!((one.unwrap(), other.unwrap()), (Some(1), None));
    let (one, other) = together(nothing(1, &room), nothing(1, &room)).await;
    assert!(one.is_ok() && other.is_ok());
    assert_eq!(room.visits.into_inner(), 2);
}

#[distributed_lock(key = "raw:<r#type>", guard = r#match)]
async fn r#move(r#type: u8, room: &Room) -> Result<String, LockError> {
    room.visit().await;
    Ok(r#match.key().to_string())
}

#[tokio::test]
async fn raw_identifiers() {
    let room = Room::default();
    assert_exclusive(&room, "raw:1", r#move(1, &room), r#move(1, &room)).await;
}

/// The runtime crate under another name.
mod renamed {
    pub(crate) use ::dlock_runtime as locks;
}

#[distributed_lock(
    key = "all:<id>",
    ttl = "5s",
    wait = "1m 30s",
    backend = "memory",
    renew = true,
    max_hold = "1m",
    min_hold = "1ms",
    on_busy = "error",
    on_lost = "finish",
    reentrant = false,
    guard = lock,
    map_err = LockError::from,
    crate = renamed::locks,
)]
async fn all_options(id: u64, room: &Room) -> Result<String, LockError> {
    let held: &LockGuard = lock;
    room.visit().await;
    Ok(held.key().to_string())
}

#[tokio::test]
async fn all_options_together() {
    let room = Room::default();
    assert_exclusive(&room, "all:1", all_options(1, &room), all_options(1, &room)).await;
}

macro_rules! locked_function {
    ($name:ident, $key:literal, $ttl:expr, $value:expr) => {
        #[distributed_lock(key = $key, ttl = $ttl)]
        async fn $name(id: u8, room: &Room) -> Result<String, LockError> {
            let _ = room;
            $value
        }
    };
}

locked_function!(from_a_macro, "macro", "5s", Ok("macro".to_owned()));

macro_rules! locked_with_own_names {
    ($name:ident) => {
        #[distributed_lock(key = "macro:<id>", guard = lock)]
        async fn $name(id: u8, room: &Room) -> Result<String, LockError> {
            room.visit().await;
            Ok(lock.key().to_string())
        }
    };
}

locked_with_own_names!(with_names_of_a_macro);

#[tokio::test]
async fn a_function_made_by_a_macro() {
    let room = Room::default();
    let call = || with_names_of_a_macro(1, &room);
    assert_exclusive(&room, "macro:1", call(), call()).await;
    let (one, other) = together(from_a_macro(1, &room), from_a_macro(1, &room)).await;
    assert_eq!(one.unwrap(), other.unwrap());
}

#[distributed_lock(key = "diverges:<id>")]
async fn diverges(id: u8) -> Result<(), LockError> {
    panic!("body {id}")
}

#[distributed_lock(key = "returns:<id>")]
async fn only_returns(id: u8) -> Result<u8, LockError> {
    return Ok(id);
}

#[tokio::test]
async fn bodies_that_never_reach_their_end() {
    let (one, other) = together(only_returns(1), only_returns(1)).await;
    assert_eq!((one.unwrap(), other.unwrap()), (1, 1));
    let task = tokio::spawn(async { super::registry().scope(diverges(3)).await });
    assert!(task.await.unwrap_err().is_panic());
}

#[distributed_lock(key = "inner-attributes")]
async fn inner_attributes(room: &Room) -> Result<String, LockError> {
    #![allow(unused_variables, reason = "the inner attribute is what is tested")]
    room.visit().await;
    let unused = 1;
    Ok("inner-attributes".to_owned())
}

#[tokio::test]
async fn inner_attributes_of_the_body() {
    let room = Room::default();
    let call = || inner_attributes(&room);
    assert_exclusive(&room, "inner-attributes", call(), call()).await;
}
