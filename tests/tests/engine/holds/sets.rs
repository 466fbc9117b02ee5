use super::*;

#[tokio::test(start_paused = true)]
async fn a_waiting_set_leaves_its_free_keys_to_others() {
    let store = Memory::new();
    let (locks, other) = (on(store.clone()), on(store));
    let busy = other.lock("b").acquire().await.expect("free");
    let set = locks.lock_all(["a", "b", "c"]).wait(Duration::from_mins(1));
    let mut waiting = pin!(set.acquire());
    tokio::select! {
        _ = waiting.as_mut() => panic!("`b` is busy"),
        () = sleep(Duration::from_secs(2)) => {}
    }
    for key in ["a", "c"] {
        let free = locks.lock(key).wait(Duration::ZERO).acquire();
        let free = tokio::select! {
            _ = waiting.as_mut() => panic!("`b` is busy"),
            free = free => free,
        };
        free.expect("free in the store").release().await.expect("held");
    }
    busy.release().await.expect("held");
    waiting.await.expect("all are free").release().await.expect("held");
}

#[tokio::test(start_paused = true)]
async fn a_set_that_waits_for_a_local_holder_leaves_its_free_keys_to_others() {
    let locks = on(Memory::new());
    let held = locks.lock("b").run(async {
        let set = locks.lock_all(["a", "b"]).wait(Duration::from_mins(1)).acquire();
        let set = tokio::spawn(set);
        sleep(Duration::from_secs(1)).await;
        // In reverse key order: if the set held `a` while waiting, this would deadlock.
        let a = locks.lock("a").wait(Duration::ZERO).acquire().await;
        a.expect("free in the store").release().await.expect("held");
        set
    });
    let set = held.await.expect("free").await.expect("no panic");
    set.expect("both are free").release().await.expect("held");
}

#[tokio::test]
async fn many_overlapping_sets_of_one_process_are_all_acquired() {
    let locks = on(Memory::new());
    let tasks = (0..200_usize).map(|task| {
        let locks = locks.clone();
        tokio::spawn(async move {
            for round in 0..5 {
                let keys = [0, 1, 3].map(|step| format!("k{}", (task + round * step) % 7));
                let set = locks.lock_all(keys).wait(Duration::from_mins(1));
                let set = set.acquire().await.expect("in turn");
                tokio::task::yield_now().await;
                set.release().await.expect("held");
            }
        })
    });
    for task in join_all(tasks).await {
        task.expect("no panic");
    }
}
