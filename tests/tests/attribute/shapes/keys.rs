//! Forms of keys.

use std::collections::BTreeMap;

use dlock_runtime::{LockError, LockKey, distributed_lock};

use super::{Room, assert_exclusive, together};

const TENANT: &str = "acme/eu";

struct Account {
    number: (u32, u32),
    owner: Owner,
}

#[derive(Clone)]
struct Owner {
    r#type: String,
}

impl Owner {
    fn kind(&self) -> String {
        self.r#type.to_uppercase()
    }
}

fn account() -> Account {
    Account { number: (4, 2), owner: Owner { r#type: "private".to_owned() } }
}

#[distributed_lock(
    key = "<TENANT>:<account.number.0>-x:<account.owner.r#type>:<account.owner.kind().len()>",
    guard = lock
)]
async fn path(account: Account, room: &Room) -> Result<String, LockError> {
    room.visit().await;
    assert_eq!(account.number.1, 2);
    Ok(lock.key().to_string())
}

#[tokio::test]
async fn fields_indices_methods_and_constants() {
    let room = Room::default();
    let key = "acme%2Feu:4-x:private:7";
    assert_exclusive(&room, key, path(account(), &room), path(account(), &room)).await;
}

#[distributed_lock(key = "<<literal>>:{<id>}:100%", guard = lock)]
async fn brackets(id: u8, room: &Room) -> Result<String, LockError> {
    room.visit().await;
    Ok(lock.key().to_string())
}

#[tokio::test]
async fn literal_brackets() {
    let room = Room::default();
    assert_exclusive(&room, "<literal>:{1}:100%", brackets(1, &room), brackets(1, &room)).await;
}

fn key_of(map: &BTreeMap<u8, String>, id: u8) -> String {
    map[&id].clone()
}

#[distributed_lock(key = key_of(map, id), guard = lock)]
async fn expression(map: &BTreeMap<u8, String>, id: u8, room: &Room) -> Result<String, LockError> {
    room.visit().await;
    Ok(lock.key().to_string())
}

#[distributed_lock(key = LockKey::of("of", &[&id, &first]), guard = lock)]
async fn expression_over_parts(
    id: u8,
    (first, ..): (u8, u8),
    room: &Room,
) -> Result<String, LockError> {
    room.visit().await;
    assert_eq!(first, 2);
    Ok(lock.key().to_string())
}

#[tokio::test]
async fn expressions() {
    let map = BTreeMap::from([(1, "mapped".to_owned())]);
    let room = Room::default();
    let call = || expression(&map, 1, &room);
    assert_exclusive(&room, "mapped", call(), call()).await;
    let room = Room::default();
    let call = || expression_over_parts(1, (2, 3), &room);
    assert_exclusive(&room, "of:1:2", call(), call()).await;
}

#[distributed_lock(keys = ["account:<from>", "account:<to>", format!("all:{}", 1)], guard = locks)]
async fn transfer(from: u32, to: u32, room: &Room) -> Result<String, LockError> {
    room.visit().await;
    let keys: Vec<_> = locks.holds().iter().map(|hold| hold.key().as_str()).collect();
    Ok(keys.join(" "))
}

#[tokio::test]
async fn several_keys_in_either_order() {
    let room = Room::default();
    let key = "account:1 account:2 all:1";
    assert_exclusive(&room, key, transfer(1, 2, &room), transfer(2, 1, &room)).await;
    let room = Room::default();
    let key = "account:1 all:1";
    assert_exclusive(&room, key, transfer(1, 1, &room), transfer(1, 1, &room)).await;
}

#[distributed_lock(key = "empty:<name>")]
async fn empty_value(name: &str) -> Result<(), LockError> {
    panic!("ran with {name:?}")
}

#[tokio::test]
async fn a_value_that_renders_to_nothing_is_an_error() {
    let (one, other) = together(empty_value(""), empty_value("")).await;
    for error in [one.unwrap_err(), other.unwrap_err()] {
        assert!(matches!(error, LockError::InvalidKey { .. }), "{error}");
        assert!(error.to_string().contains("<name>"), "{error}");
    }
}

#[tokio::test]
async fn sites_are_listed_whether_or_not_they_are_called() {
    let (shapes, _) = module_path!().rsplit_once("::").expect("a module of `shapes`");
    let mut sites = dlock_runtime::Registry::sites();
    sites.retain(|site| site.module_path().starts_with(shapes));
    let site = |name: &str| {
        let found = sites.iter().find(|site| site.function() == name);
        found.unwrap_or_else(|| panic!("no site {name}"))
    };
    assert_eq!(site("transfer").keys()[..2], ["account:<from>", "account:<to>"]);
    assert_eq!(site("expression").keys(), ["{key_of(map, id)}"]);
    assert_eq!(site("move").keys(), ["raw:<r#type>"]);
    assert_eq!(site("all_options").backend_name(), Some("memory"));
    let brackets = site("brackets");
    assert!(brackets.file().ends_with("tests/attribute/shapes/keys.rs"), "{brackets}");
    assert_eq!(brackets.module_path(), module_path!());
    let line = include_str!("keys.rs").lines().position(|line| line.contains("{<id>}:100%"));
    assert_eq!(Some(brackets.line() as usize), line.map(|line| line + 1));
}
