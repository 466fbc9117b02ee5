//! Forms of arguments.

use std::fmt::Display;

use dlock_runtime::{LockError, distributed_lock};

use super::{Room, assert_exclusive};

/// A wrapper like those that web frameworks use for extracted values.
struct Path<T>(T);

struct Order {
    id: u64,
    customer: Customer,
}

struct Customer {
    name: String,
}

impl Customer {
    fn initial(&self) -> &str {
        &self.name[..1]
    }
}

fn order() -> Order {
    Order { id: 7, customer: Customer { name: "Ada".to_owned() } }
}

#[distributed_lock(key = "mut:<id>", guard = lock)]
async fn mutable(mut id: u64, room: &Room) -> Result<String, LockError> {
    id += 1;
    room.visit().await;
    assert_eq!(id, 2);
    Ok(lock.key().to_string())
}

#[tokio::test]
async fn a_mutable_argument() {
    let room = Room::default();
    assert_exclusive(&room, "mut:1", mutable(1, &room), mutable(1, &room)).await;
}

#[distributed_lock(key = "path:<id>", guard = lock)]
async fn tuple_struct(Path(id): Path<u64>, room: &Room) -> Result<String, LockError> {
    room.visit().await;
    Ok(format!("{}{}", lock.key(), id > 0))
}

#[tokio::test]
async fn a_destructured_tuple_struct() {
    let room = Room::default();
    let call = || tuple_struct(Path(1), &room);
    assert_exclusive(&room, "path:1true", call(), call()).await;
}

#[distributed_lock(key = "tuple:<a>:<b>:<c>", guard = lock)]
async fn nested(
    (a, Path((b, mut c))): (u8, Path<(String, u8)>),
    room: &Room,
) -> Result<String, LockError> {
    c += a;
    room.visit().await;
    drop(b);
    assert_eq!(c, 4);
    Ok(lock.key().to_string())
}

#[tokio::test]
async fn nested_patterns() {
    let room = Room::default();
    let call = || nested((1, Path(("x:y".to_owned(), 3))), &room);
    assert_exclusive(&room, "tuple:1:x%3Ay:3", call(), call()).await;
}

#[distributed_lock(key = "order:<id>:<customer.initial()>", guard = lock)]
async fn whole_struct(Order { id, customer }: Order, room: &Room) -> Result<String, LockError> {
    room.visit().await;
    assert_eq!(customer.name.len(), 3);
    let _ = id;
    Ok(lock.key().to_string())
}

#[distributed_lock(key = "order:<id>", guard = lock)]
async fn part_of_a_struct(Order { mut id, .. }: Order, room: &Room) -> Result<String, LockError> {
    id += 1;
    room.visit().await;
    assert_eq!(id, 8);
    Ok(lock.key().to_string())
}

#[distributed_lock(key = "parts:<a>:<b>", guard = lock)]
async fn parts_of_a_tuple(
    (&a, _, (ref b, ..)): (&u8, u8, (String, String)),
    room: &Room,
) -> Result<String, LockError> {
    room.visit().await;
    assert_eq!((a, &**b), (1, "b"));
    Ok(lock.key().to_string())
}

#[tokio::test]
async fn patterns_that_ignore_parts() {
    let room = Room::default();
    assert_exclusive(
        &room,
        "order:7:A",
        whole_struct(order(), &room),
        whole_struct(order(), &room),
    )
    .await;
    let room = Room::default();
    let call = || part_of_a_struct(order(), &room);
    assert_exclusive(&room, "order:7", call(), call()).await;
    let room = Room::default();
    let call = || parts_of_a_tuple((&1, 2, ("b".to_owned(), String::new())), &room);
    assert_exclusive(&room, "parts:1:b", call(), call()).await;
}

#[distributed_lock(key = "unnamed", guard = lock)]
async fn unnamed(_: String, _: &str, room: &Room) -> Result<String, LockError> {
    room.visit().await;
    Ok(lock.key().to_string())
}

#[tokio::test]
async fn arguments_without_a_name() {
    let room = Room::default();
    let call = || unnamed(String::new(), "", &room);
    assert_exclusive(&room, "unnamed", call(), call()).await;
}

#[distributed_lock(key = "underscore:<_used>", guard = lock)]
async fn underscored(_used: u8, _unused: u8, room: &Room) -> Result<String, LockError> {
    room.visit().await;
    Ok(lock.key().to_string())
}

#[tokio::test]
async fn arguments_that_begin_with_an_underscore() {
    let room = Room::default();
    assert_exclusive(&room, "underscore:1", underscored(1, 2, &room), underscored(1, 3, &room))
        .await;
}

#[distributed_lock(key = "ref:<id>", guard = lock)]
async fn by_reference(&id: &u8, room: &mut &Room) -> Result<String, LockError> {
    room.visit().await;
    *room = &ELSEWHERE;
    Ok(format!("{}{}", lock.key(), u16::from(id)))
}

static ELSEWHERE: Room = Room {
    inside: std::sync::atomic::AtomicUsize::new(0),
    most: std::sync::atomic::AtomicUsize::new(0),
    visits: std::sync::atomic::AtomicUsize::new(0),
};

#[tokio::test]
async fn reference_patterns_and_mutable_references() {
    let room = Room::default();
    let (mut one, mut other) = (&room, &room);
    assert_exclusive(&room, "ref:11", by_reference(&1, &mut one), by_reference(&1, &mut other))
        .await;
    assert_eq!((one.most(), other.most()), (0, 0));
}

#[distributed_lock(key = "conditional:<id>", guard = lock)]
async fn conditional(
    id: u8,
    #[cfg(any())] never: NoSuchType,
    #[cfg(not(any()))] always: u8,
    room: &Room,
) -> Result<String, LockError> {
    room.visit().await;
    assert_eq!(always, 2);
    Ok(lock.key().to_string())
}

#[tokio::test]
async fn arguments_under_a_condition() {
    let room = Room::default();
    assert_exclusive(&room, "conditional:1", conditional(1, 2, &room), conditional(1, 2, &room))
        .await;
}

#[distributed_lock(key = "dyn:<id>", guard = lock)]
async fn dynamic(id: &(dyn Display + Sync), room: &Room) -> Result<String, LockError> {
    room.visit().await;
    Ok(lock.key().to_string())
}

#[tokio::test]
async fn a_trait_object() {
    let room = Room::default();
    assert_exclusive(&room, "dyn:1", dynamic(&1, &room), dynamic(&"1", &room)).await;
}
