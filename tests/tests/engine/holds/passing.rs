//! A lease passes from task to task of one process, and each task has a hold of its own.

use std::num::NonZeroU32;

use dlock_runtime::{FencingToken, Handover, Lock, LockGuard, Mode};
use tokio::task::{JoinHandle, yield_now};

use super::*;

const TTL: Duration = Duration::from_secs(3);
/// No limit that matters here.
const ALWAYS: Handover = Handover::up_to(Handover::MAX_PASSES, Duration::from_mins(1));

struct World {
    store: Intercepted,
    memory: Memory,
    locks: Registry,
}

impl World {
    fn new() -> Self {
        let memory = Memory::new();
        let store = Intercepted::new(memory.clone());
        Self { locks: on(store.clone()), store, memory }
    }

    /// Another process.
    fn other(&self) -> Registry {
        on(self.memory.clone())
    }

    fn lock(&self) -> Lock {
        self.locks.lock("k").ttl(TTL).wait(Duration::from_mins(1))
    }

    /// A task that waits for the lock.
    async fn waiter(&self, lock: Lock) -> JoinHandle<LockGuard> {
        let waiter = tokio::spawn(async move { lock.acquire().await.expect("in turn") });
        // It runs until it has to wait.
        yield_now().await;
        waiter
    }

    /// A hold that was granted when a task was waiting behind it, so that its lease may pass. And that task.
    async fn contended(&self) -> (LockGuard, JoinHandle<LockGuard>) {
        let first = self.lock().acquire().await.expect("free");
        let second = self.waiter(self.lock().handover(ALWAYS)).await;
        let third = self.waiter(self.lock().handover(ALWAYS)).await;
        first.release().await.expect("held");
        (second.await.expect("no panic"), third)
    }

    fn requests(&self) -> (usize, usize) {
        (self.store.count(Call::Acquire), self.store.count(Call::Release))
    }

    async fn is_free(&self) -> bool {
        self.memory.inspect(&"k".into()).await.expect("memory").is_none()
    }
}

fn token(guard: &LockGuard) -> FencingToken {
    guard.fencing_token()
}

#[tokio::test(start_paused = true)]
async fn a_lease_passes_to_the_next_task_without_a_request() {
    let world = World::new();
    let (second, third) = world.contended().await;
    assert_eq!(world.requests(), (2, 1));
    let before = token(&second);
    second.release().await.expect("held");
    let third = third.await.expect("no panic");
    assert!(token(&third) > before);
    assert!(third.is_held());
    assert_eq!(world.requests(), (2, 1), "it was passed on");
    third.release().await.expect("held");
    assert_eq!(world.requests(), (2, 2));
    assert!(world.is_free().await);
    world.locks.shutdown(Duration::ZERO).await.expect("nothing is held");
}

#[tokio::test(start_paused = true)]
async fn a_guard_that_is_dropped_passes_the_lease_too() {
    let world = World::new();
    let (second, third) = world.contended().await;
    drop(second);
    let third = third.await.expect("no panic");
    assert_eq!(world.requests(), (2, 1));
    third.release().await.expect("held");
}

#[tokio::test(start_paused = true)]
async fn tasks_are_served_in_order_with_growing_tokens_and_few_requests() {
    const TASKS: usize = 1_000;
    let world = World::new();
    let served = Arc::new(std::sync::Mutex::new(Vec::new()));
    let tasks = (0..TASKS).map(|number| {
        let (lock, served) = (world.lock(), Arc::clone(&served));
        tokio::spawn(async move {
            let guard = lock.acquire().await.expect("in turn");
            served.lock().expect("no panic").push((number, token(&guard)));
            yield_now().await;
            guard.release().await.expect("held");
        })
    });
    for task in join_all(tasks).await {
        task.expect("no panic");
    }
    let served = std::mem::take(&mut *served.lock().expect("no panic"));
    assert!(served.iter().map(|(number, _)| *number).eq(0..TASKS), "first come, first served");
    assert!(served.is_sorted_by(|(_, one), (_, next)| one < next), "tokens grow");
    // The first task has no block, because nobody waited when it asked.
    let leases = 1 + (TASKS - 1).div_ceil(65);
    assert_eq!(world.requests(), (leases, leases));
    assert!(world.is_free().await);
}

#[tokio::test(start_paused = true)]
async fn after_its_time_a_lease_is_released() {
    let world = World::new();
    let first = world.lock().acquire().await.expect("free");
    let mut waiters = Vec::new();
    for _ in 0..4 {
        waiters.push(world.waiter(world.lock()).await);
    }
    first.release().await.expect("held");
    let mut acquires = Vec::new();
    for waiter in waiters {
        let guard = waiter.await.expect("no panic");
        acquires.push(world.store.count(Call::Acquire));
        // 10 ms pass after the second of these.
        advance(Duration::from_millis(6)).await;
        guard.release().await.expect("held");
    }
    assert_eq!(acquires, [2, 2, 3, 3]);
}

#[tokio::test(start_paused = true)]
async fn other_processes_have_their_turn() {
    let world = World::new();
    let other = world.other();
    let first = world.lock().acquire().await.expect("free");
    let once = Handover::up_to(1, Duration::from_mins(1));
    let second = world.waiter(world.lock().handover(once)).await;
    let third = world.waiter(world.lock()).await;
    first.release().await.expect("held");
    let second = second.await.expect("no panic");
    let outside = other.lock("k").ttl(TTL).wait(Duration::from_mins(1));
    let outside = world.waiter(outside).await;
    // It is passed once, although there is time for more.
    second.release().await.expect("held");
    let third = third.await.expect("no panic");
    let (last, fourth) = (token(&third), world.waiter(world.lock()).await);
    third.release().await.expect("held");
    let outside = outside.await.expect("no panic");
    assert!(token(&outside) > last);
    let last = token(&outside);
    outside.release().await.expect("held");
    let fourth = fourth.await.expect("no panic");
    assert!(token(&fourth) > last);
}

#[tokio::test(start_paused = true)]
async fn what_differs_is_not_passed_on() {
    type Differs = fn(&World) -> Lock;
    let differing: [(&str, Differs); 8] = [
        ("a shorter ttl", |world| world.lock().ttl(TTL / 2)),
        ("another mode", |world| world.lock().mode(Mode::Shared)),
        ("permits", |world| world.lock().permits(NonZeroU32::new(2).expect("two"))),
        ("no renewal", |world| world.lock().renew(false)),
        ("a min_hold", |world| world.lock().min_hold(Duration::from_millis(1))),
        ("no passing", |world| world.lock().handover(Handover::OFF)),
        ("a longer ttl", |world| world.lock().ttl(TTL * 2)),
        ("nothing: passed on", World::lock),
    ];
    for (what, differs) in differing {
        let world = World::new();
        let first = world.lock().acquire().await.expect("free");
        let second = world.waiter(world.lock()).await;
        let third = world.waiter(differs(&world)).await;
        let fourth = world.waiter(world.lock()).await;
        first.release().await.expect("held");
        let second = second.await.expect("no panic");
        second.release().await.expect("held");
        let is_passed = what.ends_with("passed on");
        let releases = if is_passed { 1 } else { 2 };
        assert_eq!(world.store.count(Call::Release), releases, "{what}");
        let third = third.await.expect("no panic");
        third.release().await.expect("held");
        fourth.await.expect("no panic").release().await.expect("held");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_with_a_min_hold_or_in_doubt_is_released() {
    let world = World::new();
    // Its own `min_hold`: from the store's view a lock of another kind.
    let first = world.lock().acquire().await.expect("free");
    let second = world.waiter(world.lock().min_hold(Duration::from_millis(5))).await;
    let third = world.waiter(world.lock()).await;
    first.release().await.expect("held");
    second.await.expect("no panic").release().await.expect("held");
    third.await.expect("no panic").release().await.expect("held");
    assert_eq!(world.store.count(Call::Release), 3);

    // A renewal that gets no answer: the store may execute it later.
    let world = World::new();
    let (second, third) = world.contended().await;
    world.store.delay(Call::Renew);
    let extending = tokio::spawn({
        let renewing = Arc::new(second);
        let extended = Arc::clone(&renewing);
        let extension = tokio::spawn(async move { extended.extend(TTL).await });
        world.store.reached(Call::Renew, 1).await;
        extension.abort();
        let _ = extension.await;
        async move { Arc::into_inner(renewing).expect("the only one").release().await }
    });
    extending.await.expect("no panic").expect("held");
    assert_eq!(world.store.count(Call::Release), 2, "the lease did not pass");
    world.store.heal();
    third.await.expect("no panic").release().await.expect("held");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_renewed_is_released() {
    let world = World::new();
    let (second, third) = world.contended().await;
    world.store.reached(Call::Renew, 1).await;
    yield_now().await;
    second.release().await.expect("held");
    third.await.expect("no panic").release().await.expect("held");
    assert_eq!(world.requests(), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_lease_for_a_task_that_gives_up_passes_to_the_one_behind_it() {
    let world = World::new();
    let first = world.lock().acquire().await.expect("free");
    let [second, third, fourth] = [(), (), ()].map(|()| world.lock().handover(ALWAYS));
    let second = world.waiter(second).await;
    let mut third = Box::pin(third.acquire());
    assert!(futures_util::poll!(third.as_mut()).is_pending());
    let fourth = world.waiter(fourth).await;
    first.release().await.expect("held");
    second.await.expect("no panic").release().await.expect("held");
    // The lease was passed to it, and it has not noticed.
    drop(third);
    let fourth = fourth.await.expect("no panic");
    assert_eq!(world.requests(), (2, 1));
    fourth.release().await.expect("held");
    assert!(world.is_free().await);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_nobody_wants_any_more_is_released() {
    let world = World::new();
    let first = world.lock().acquire().await.expect("free");
    let second = world.waiter(world.lock()).await;
    let mut third = Box::pin(world.lock().acquire());
    assert!(futures_util::poll!(third.as_mut()).is_pending());
    first.release().await.expect("held");
    second.await.expect("no panic").release().await.expect("held");
    assert!(!world.is_free().await);
    drop(third);
    // A shutdown waits for that release.
    world.locks.shutdown(TTL / 10).await.expect("released");
    assert!(world.is_free().await);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_a_lease_that_is_being_passed() {
    let world = World::new();
    let first = world.lock().acquire().await.expect("free");
    let second = world.waiter(world.lock()).await;
    let third = tokio::spawn(world.lock().acquire());
    yield_now().await;
    first.release().await.expect("held");
    second.await.expect("no panic").release().await.expect("held");
    // The third task has not noticed yet. It is refused the lock, because the shutdown has begun.
    world.locks.shutdown(TTL / 10).await.expect("released");
    let refused = third.await.expect("no panic");
    assert!(matches!(refused, Err(LockError::ShutDown { began: false, .. })), "{refused:?}");
    assert!(world.is_free().await);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_notices_too_late_acquires_a_lease_of_its_own() {
    let world = World::new();
    let first = world.lock().acquire().await.expect("free");
    let second = world.waiter(world.lock()).await;
    let mut third = Box::pin(world.lock().acquire());
    assert!(futures_util::poll!(third.as_mut()).is_pending());
    first.release().await.expect("held");
    let second = second.await.expect("no panic");
    let before = token(&second);
    second.release().await.expect("held");
    // The task is not polled, or its process is stopped, until the lease has ended.
    advance(TTL * 2).await;
    let third = third.await.expect("a lease of its own");
    assert_eq!(world.store.count(Call::Acquire), 3);
    assert!(third.is_held());
    assert!(token(&third) > before);
    third.release().await.expect("held");
    world.locks.shutdown(TTL).await.expect("nothing is held");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_not_polled_delays_other_processes_only_briefly() {
    let world = World::new();
    let other = world.other();
    let first = world.lock().acquire().await.expect("free");
    let second = world.waiter(world.lock()).await;
    let mut third = Box::pin(world.lock().acquire());
    assert!(futures_util::poll!(third.as_mut()).is_pending());
    first.release().await.expect("held");
    second.await.expect("no panic").release().await.expect("held");
    // Nothing polls the third task, to which the lease was passed.
    let began = Instant::now();
    let outside = other.lock("k").ttl(TTL).wait(TTL).acquire().await.expect("released");
    assert!(began.elapsed() <= Duration::from_millis(200), "{:?}", began.elapsed());
    let before = token(&outside);
    outside.release().await.expect("held");
    // The key is free, and nobody here can say that it is busy.
    let tried = world.lock().wait(Duration::ZERO).acquire().await;
    assert!(matches!(tried, Err(LockError::Backend { .. })), "{tried:?}");
    let outside = other.lock("k").ttl(TTL).wait(Duration::ZERO).acquire().await.expect("free");
    let before = before.max(token(&outside));
    assert!(futures_util::poll!(third.as_mut()).is_pending(), "the lease is gone");
    outside.release().await.expect("held");
    let third = third.await.expect("a lease of its own");
    assert!(token(&third) > before);
    third.release().await.expect("held");
    world.locks.shutdown(TTL).await.expect("nothing is held");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_was_taken_away_ends_the_hold_of_the_moment() {
    let world = World::new();
    let other = world.other();
    let (second, third) = world.contended().await;
    let fourth = world.waiter(world.lock()).await;
    other.lock("k").force_release().await.expect("memory");
    let outside = other.lock("k").ttl(TTL).acquire().await.expect("free");
    // Nobody here knows.
    second.release().await.expect("not known to be lost");
    let third = third.await.expect("no panic");
    assert!(token(&outside) > token(&third), "above the whole block");
    // The next renewal finds out.
    let lost = timeout(TTL, third.lost()).await.expect("it is lost");
    assert!(matches!(lost, LockError::Lost { reason: LostReason::NotHeld, .. }), "{lost:?}");
    outside.release().await.expect("held");
    let fourth = fourth.await.expect("no panic");
    assert!(token(&fourth) > token(&third));
    fourth.release().await.expect("held");
}

#[tokio::test(start_paused = true)]
async fn max_hold_counts_for_each_hold() {
    let world = World::new();
    let limit = Duration::from_millis(100);
    let first = world.lock().acquire().await.expect("free");
    let within = Handover::up_to(9, Duration::from_secs(1));
    let second = world.waiter(world.lock().handover(within)).await;
    let third = world.waiter(world.lock().handover(within).max_hold(limit)).await;
    first.release().await.expect("held");
    let second = second.await.expect("no panic");
    advance(limit * 2).await;
    second.release().await.expect("held");
    let third = third.await.expect("no panic");
    assert_eq!(world.requests(), (2, 1), "it was passed on");
    advance(limit * 9 / 10).await;
    assert!(third.is_held());
    let ended = timeout(limit, third.lost()).await.expect("it ends");
    assert!(matches!(ended, LockError::HeldTooLong { .. }), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_passed_lease_is_renewed_for_its_holder() {
    let world = World::new();
    let (second, third) = world.contended().await;
    advance(TTL / 10).await;
    second.release().await.expect("held");
    let third = third.await.expect("no panic");
    sleep(TTL * 10).await;
    assert!(third.is_held());
    third.release().await.expect("held");
}

#[tokio::test(start_paused = true)]
async fn a_busy_lock_is_busy_while_its_lease_is_passed() {
    let world = World::new();
    let (second, third) = world.contended().await;
    second.release().await.expect("held");
    let tried = world.lock().wait(Duration::ZERO).acquire().await;
    assert!(matches!(tried, Err(LockError::Busy { .. })), "{tried:?}");
    third.await.expect("no panic").release().await.expect("held");
}

#[tokio::test(start_paused = true)]
async fn the_registry_sets_the_default() {
    let store = Intercepted::new(Memory::new());
    let locks = Registry::builder().backend("store", store.clone());
    let locks = locks.default_handover(Handover::OFF).build().expect("a registry");
    let each = [(); 20].map(|()| locks.lock("k").wait(Duration::from_mins(1)).run(async {}));
    for one in join_all(each).await {
        one.expect("in turn");
    }
    assert_eq!(store.count(Call::Acquire), 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn bodies_of_many_threads_and_processes_exclude_each_other() {
    const TASKS: usize = 64;
    const ROUNDS: usize = 300;
    let memory = Memory::new();
    let processes: Vec<_> = (0..3).map(|_| on(memory.clone())).collect();
    let (inside, last) = (Arc::new(AtomicU32::new(0)), Arc::new(std::sync::Mutex::new(0)));
    let tasks = (0..TASKS).map(|task| {
        let locks = processes[task % processes.len()].clone();
        let (inside, last) = (Arc::clone(&inside), Arc::clone(&last));
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                let lock = locks.lock("k").wait(Duration::from_mins(1));
                if (task + round) % 7 == 0 {
                    // Gives up at some point, often just when it is its turn.
                    let _ = timeout(Duration::from_micros(200), lock.run(yield_now())).await;
                    continue;
                }
                let guard = lock.acquire().await.expect("in turn");
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two at once");
                let token = token(&guard).get();
                let before = std::mem::replace(&mut *last.lock().expect("no panic"), token);
                assert!(token > before, "{token} after {before}");
                yield_now().await;
                assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1, "two at once");
                if round % 2 == 0 { drop(guard) } else { guard.release().await.expect("held") }
            }
        })
    });
    for task in join_all(tasks).await {
        task.expect("no panic");
    }
    for locks in processes {
        locks.shutdown(Duration::from_secs(10)).await.expect("nothing is held");
    }
    assert!(memory.inspect(&"k".into()).await.expect("memory").is_none());
}
