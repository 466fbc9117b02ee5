//! Locks that are nested in different orders are reported, before two tasks wait for each other.

use super::*;

/// Holds the locks, the first one outermost.
async fn nest(locks: &Registry, nested: &[(&'static str, &str)]) {
    let Some(((template, key), inner)) = nested.split_first() else { return };
    let lock = locks.lock(*key).template(template).label(format!("in {}", nested.len()));
    lock.run(Box::pin(nest(locks, inner))).await.expect("free");
}

fn found(locks: &Registry) -> Vec<String> {
    locks.inversions().iter().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn two_templates_in_both_orders_are_an_inversion() {
    let locks = on(Memory::new());
    for _ in 0..3 {
        nest(&locks, &[("account", "account:1"), ("vault", "vault:1")]).await;
    }
    assert!(found(&locks).is_empty());
    for key in ["account:2", "account:3"] {
        nest(&locks, &[("vault", "vault:9"), ("account", key)]).await;
    }
    let once = "account locks vault > account, but vault locks account > vault";
    assert_eq!(found(&locks), [once]);
}

#[tokio::test(start_paused = true)]
async fn an_inversion_may_go_through_other_locks() {
    let locks = on(Memory::new());
    nest(&locks, &[("a", "a"), ("b", "b")]).await;
    nest(&locks, &[("x", "x"), ("b", "b"), ("c", "c")]).await;
    assert!(found(&locks).is_empty());
    nest(&locks, &[("c", "c"), ("a", "a")]).await;
    let once = "a locks c > a, but b locks a > b, and c locks x > b > c";
    assert_eq!(found(&locks), [once]);
}

#[tokio::test(start_paused = true)]
async fn locks_of_one_template_are_ordered_by_their_keys() {
    let locks = on(Memory::new());
    nest(&locks, &[("account", "account:1"), ("account", "account:2")]).await;
    nest(&locks, &[("account", "account:2"), ("account", "account:7")]).await;
    assert!(found(&locks).is_empty());
    nest(&locks, &[("account", "account:7"), ("account", "account:1")]).await;
    assert_eq!(found(&locks).len(), 1, "{:?}", found(&locks));
}

#[tokio::test(start_paused = true)]
async fn nested_calls_for_one_key_and_sets_are_no_inversion() {
    let locks = on(Memory::new());
    nest(&locks, &[("a", "a"), ("a", "a"), ("b", "b"), ("a", "a")]).await;
    for keys in [["x:1", "x:2"], ["x:2", "x:1"]] {
        locks.lock_all(keys).template("x").run(async {}).await.expect("free");
    }
    assert!(found(&locks).is_empty(), "{:?}", found(&locks));
    // Under another lock, a set has an order as any other lock has.
    let set = locks.lock_all(["a", "c"]).template("set");
    locks.lock("b").template("b").run(set.run(async {})).await.expect("free").expect("free");
    locks.lock("c").template("set").run(nest(&locks, &[("b", "b")])).await.expect("free");
    assert_eq!(found(&locks).len(), 1, "{:?}", found(&locks));
}

/// The same key in two registries is two locks.
#[tokio::test(start_paused = true)]
async fn registries_have_orders_of_their_own() {
    let (one, other) = (on(Memory::new()), on(Memory::new()));
    nest(&one, &[("a", "a"), ("b", "b")]).await;
    nest(&other, &[("b", "b"), ("a", "a")]).await;
    assert!(found(&one).is_empty() && found(&other).is_empty());
}

#[tokio::test(start_paused = true)]
async fn manual_locks_without_a_template_and_calls_that_do_not_wait_have_no_order() {
    let locks = on(Memory::new());
    for [outer, inner] in [["account", "vault"], ["product", "order"], ["vault", "account"]] {
        let inner = locks.lock(inner).run(async {});
        locks.lock(outer).run(inner).await.expect("free").expect("free");
    }
    let lock = |template| locks.lock(template).template(template).wait(Duration::ZERO);
    lock("a").run(lock("b").run(async {})).await.expect("free").expect("free");
    lock("b").run(lock("a").run(async {})).await.expect("free").expect("free");
    assert!(found(&locks).is_empty(), "{:?}", found(&locks));
}
