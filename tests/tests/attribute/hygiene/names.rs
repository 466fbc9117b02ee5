//! Name clashes between the user's code and the expansion, in both directions.

use dlock_runtime::{LockError, LockKey};

use super::registry;

/// A service that redefines every name that the expansion might use.
mod shadowed {
    #![allow(dead_code, reason = "they only exist to cause clashes")]

    use dlock_runtime::{LockError, distributed_lock};

    pub(super) struct Option;
    pub(super) struct Box;
    pub(super) struct Some;
    pub(super) struct None;
    pub(super) struct Ok;
    pub(super) struct Duration;
    pub(super) struct Site;
    #[allow(clippy::upper_case_acronyms, reason = "the name of the expansion's static")]
    pub(super) struct SITE;
    pub(super) struct Pin;
    pub(super) trait Future {}
    pub(super) trait Display {}
    pub(super) type Result<T> = std::result::Result<T, LockError>;
    mod core {}
    mod std_like {}
    mod dlock_runtime_like {}

    macro_rules! panic {
        () => {};
    }
    macro_rules! pin {
        () => {};
    }
    macro_rules! line {
        () => {};
    }
    macro_rules! module_path {
        () => {};
    }
    const _: () = {
        panic!();
        pin!();
        line!();
        module_path!();
    };

    #[distributed_lock(key = "shadowed:<id>", ttl = "5s", guard = lock)]
    pub(super) async fn function(id: u8) -> Result<::std::string::String> {
        let _: (Option, Box, SITE) = (Option, Box, SITE);
        Result::Ok(lock.key().to_string())
    }

    #[distributed_lock(key = "shadowed:<id>")]
    pub(super) fn boxed(
        id: u8,
    ) -> ::futures_util::future::BoxFuture<'static, Result<::std::string::String>> {
        ::std::boxed::Box::pin(async move { Result::Ok(::std::format!("{id}")) })
    }
}

#[dlock_runtime::distributed_lock(
    key = "<key>:<guard>:<body>:<site>:<run>:<this>:<result>:<slot>:<error>:<keys>",
    guard = lock
)]
#[allow(clippy::too_many_arguments, reason = "every name counts")]
async fn arguments(
    key: u8,
    guard: u8,
    body: u8,
    site: u8,
    run: u8,
    this: u8,
    result: u8,
    slot: u8,
    error: u8,
    keys: u8,
    argument_11: u8,
    _: u8,
) -> Result<String, LockError> {
    let sum = key + guard + body + site + run + this + result + slot + error + keys;
    assert_eq!(sum + argument_11, 66);
    Ok(lock.key().to_string())
}

struct Account {
    this: u8,
}

impl Account {
    #[dlock_runtime::distributed_lock(key = "<self.this>:<this>", guard = key)]
    async fn method(&self, this: u8) -> Result<LockKey, LockError> {
        Ok(key.key().clone())
    }

    #[dlock_runtime::distributed_lock(key = "<this>:<self.this>", guard = result)]
    async fn other_order(&self, this: u8) -> Result<LockKey, LockError> {
        Ok(result.key().clone())
    }
}

#[tokio::test]
async fn names_do_not_clash() {
    registry()
        .scope(async {
            assert_eq!(shadowed::function(1).await.unwrap(), "shadowed:1");
            assert_eq!(shadowed::boxed(1).await.unwrap(), "1");
            let all = arguments(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12).await.unwrap();
            assert_eq!(all, "1:2:3:4:5:6:7:8:9:10");
            let account = Account { this: 1 };
            assert_eq!(account.method(2).await.unwrap().as_str(), "1:2");
            assert_eq!(account.other_order(2).await.unwrap().as_str(), "2:1");
        })
        .await;
}

#[tokio::test]
async fn the_bodys_own_items_and_labels_stay_its_own() {
    const SITE: &str = "mine";

    #[dlock_runtime::distributed_lock(key = "<SITE>:items")]
    async fn function(id: u8) -> Result<u8, LockError> {
        fn expect() -> u8 {
            7
        }
        let found = 'body: loop {
            if id > 0 {
                break 'body expect();
            }
        };
        assert_eq!(SITE, "mine");
        Ok(found)
    }
    assert_eq!(registry().scope(function(1)).await.unwrap(), 7);
}
