//! Batches over a carrier that waits until the test lets it go on.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::Semaphore;

use super::*;

#[derive(Clone)]
struct Store(Arc<Shared>);

struct Shared {
    /// One permit lets one request or batch go on.
    gate: Semaphore,
    sent: Mutex<Vec<Vec<u32>>>,
    in_flight: AtomicUsize,
    limit: Duration,
}

impl Store {
    fn new() -> Self {
        Self::with_limit(Duration::from_hours(1))
    }

    fn with_limit(limit: Duration) -> Self {
        let (gate, sent, in_flight) = (Semaphore::new(0), Mutex::default(), AtomicUsize::new(0));
        Self(Arc::new(Shared { gate, sent, in_flight, limit }))
    }

    fn sent(&self) -> Vec<Vec<u32>> {
        self.0.sent.lock().unwrap().clone()
    }

    async fn execute(&self, requests: &[u32]) {
        self.0.sent.lock().unwrap().push(requests.to_vec());
        self.0.in_flight.fetch_add(1, Ordering::SeqCst);
        self.0.gate.acquire().await.unwrap().forget();
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    /// Yields until this many requests and batches are in flight.
    async fn until_in_flight(&self, count: usize) {
        while self.0.in_flight.load(Ordering::SeqCst) != count {
            tokio::task::yield_now().await;
        }
    }
}

/// Requests above 1000 fail.
fn answer(request: u32) -> Result<u32, BackendError> {
    if request > 1_000 { Err(BackendError::transient("refused")) } else { Ok(request * 10) }
}

impl Carrier for Store {
    type Request = u32;
    type Answer = Result<u32, BackendError>;

    const MOST: usize = 4;
    const MOST_BYTES: usize = 100;

    fn limit(&self) -> Duration {
        self.0.limit
    }

    fn size(request: &u32) -> usize {
        if *request == 99 { 1_000 } else { 1 }
    }

    async fn carry_one(&self, request: u32) -> Result<u32, BackendError> {
        self.execute(&[request]).await;
        answer(request)
    }

    async fn carry(&self, requests: Vec<u32>) -> Vec<Result<u32, BackendError>> {
        self.execute(&requests).await;
        requests.into_iter().map(answer).collect()
    }

    fn failed(error: BackendError) -> Result<u32, BackendError> {
        Err(error)
    }
}

fn start() -> (Store, Batcher<Store>) {
    let store = Store::new();
    (store.clone(), Batcher::new(store))
}

/// Polls the future once.
macro_rules! begin {
    ($future:expr) => {
        assert!($future.as_mut().now_or_never().is_none(), "it waits")
    };
}

#[tokio::test]
async fn with_nothing_in_flight_a_request_leaves_at_once() {
    let (store, batcher) = start();
    for request in 1..=3 {
        store.0.gate.add_permits(1);
        // Without a single pass of the scheduler.
        let answer = batcher.send(request).now_or_never().expect("sent by its own caller");
        assert_eq!(answer.unwrap(), request * 10);
    }
    assert_eq!(store.sent(), [[1], [2], [3]]);
}

#[tokio::test]
async fn requests_gather_while_a_batch_is_in_flight() {
    let (store, batcher) = start();
    let mut all: Vec<_> = (1..=8).map(|request| Box::pin(batcher.send(request))).collect();
    for one in &mut all {
        begin!(one);
        // The background task takes what there is, once.
        if store.sent().len() < 2 {
            tokio::task::yield_now().await;
        }
    }
    store.0.gate.add_permits(10);
    let answers: Vec<_> = join_all(all).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers, [10, 20, 30, 40, 50, 60, 70, 80]);
    assert_eq!(store.sent(), [vec![1], vec![2], vec![3, 4, 5, 6], vec![7, 8]]);
}

#[tokio::test]
async fn a_large_request_goes_alone() {
    let (store, batcher) = start();
    let mut all: Vec<_> = [1, 2, 99, 3].map(|request| Box::pin(batcher.send(request))).into();
    for one in &mut all {
        begin!(one);
    }
    store.0.gate.add_permits(10);
    join_all(all).await;
    assert_eq!(store.sent(), [[1], [2], [99], [3]]);
}

#[tokio::test]
async fn a_failure_of_one_is_not_that_of_its_neighbours() {
    let (store, batcher) = start();
    let mut all: Vec<_> = [1, 2, 1_001, 3].map(|request| Box::pin(batcher.send(request))).into();
    for one in &mut all {
        begin!(one);
    }
    store.0.gate.add_permits(10);
    let answers: Vec<_> = join_all(all).await.into_iter().map(Result::ok).collect();
    assert_eq!(answers, [Some(10), Some(20), None, Some(30)]);
    assert_eq!(store.sent(), [vec![1], vec![2, 1_001, 3]]);
}

#[tokio::test]
async fn a_request_whose_caller_is_gone_is_not_sent() {
    let (store, batcher) = start();
    let mut first = Box::pin(batcher.send(1));
    begin!(first);
    let mut dropped = Box::pin(batcher.send(2));
    begin!(dropped);
    drop(dropped);
    store.0.gate.add_permits(1);
    first.await.unwrap();
    // The background task ends without a batch, and later requests are sent.
    tokio::task::yield_now().await;
    store.0.gate.add_permits(1);
    batcher.send(3).await.unwrap();
    assert_eq!(store.sent(), [[1], [3]]);
}

#[tokio::test]
async fn a_caller_that_is_no_longer_polled_delays_nobody() {
    let (store, batcher) = start();
    let mut forgotten = Box::pin(batcher.send(1));
    begin!(forgotten);
    store.0.gate.add_permits(3);
    assert_eq!(batcher.send(2).await.unwrap(), 20);
    assert_eq!(batcher.send(3).await.unwrap(), 30);
    drop(forgotten);
}

#[test]
fn when_the_runtime_of_the_batches_is_gone_its_callers_fail_and_the_next_ones_do_not() {
    let (store, batcher) = start();
    let one = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (failed, failures) = mpsc::channel();
    let mut alone = Box::pin(batcher.send(1));
    one.block_on(async {
        begin!(alone);
        for request in 2..=4 {
            let (batcher, failed) = (batcher.clone(), failed.clone());
            // These callers outlive the runtime.
            std::thread::spawn({
                let runtime = Handle::current();
                move || {
                    let _within = runtime.enter();
                    failed.send(block_without_runtime(batcher.send(request))).unwrap();
                }
            });
        }
        store.until_in_flight(2).await;
    });
    drop(one);
    for _ in 2..=4 {
        let answer = failures.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(answer.unwrap_err().is_transient());
    }
    drop(alone);
    store.0.gate.add_permits(10);
    let another = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(another.block_on(batcher.send(5)).unwrap(), 50);
}

/// Blocks this thread until the future is ready, without a runtime.
fn block_without_runtime<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        if let std::task::Poll::Ready(value) =
            future.as_mut().poll(&mut std::task::Context::from_waker(&waker))
        {
            return value;
        }
        std::thread::park();
    }
}

#[test]
fn a_runtime_that_stands_still_delays_nobody_else() {
    let (store, batcher) = start();
    let stalled = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut alone = Box::pin(batcher.send(1));
    let mut second = Box::pin(batcher.send(2));
    stalled.block_on(async {
        begin!(alone);
        begin!(second);
        store.until_in_flight(2).await;
    });
    store.0.gate.add_permits(10);
    // Nobody polls the other runtime any more.
    let running = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(running.block_on(batcher.send(3)).unwrap(), 30);
    assert_eq!(stalled.block_on(second).unwrap(), 20);
    assert_eq!(running.block_on(batcher.send(4)).unwrap(), 40);
}

#[test]
fn a_runtime_that_shuts_down_while_a_request_enters_fails_the_request() {
    let (_store, batcher) = start();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let handle = runtime.handle().clone();
    drop(runtime);
    let _within = handle.enter();
    let mut alone = Box::pin(batcher.send(1));
    begin!(alone);
    // Its background task is dropped as soon as it is spawned.
    let answer = batcher.send(2).now_or_never().expect("it fails at once");
    assert!(!answer.unwrap_err().may_have_been_sent());
}

#[tokio::test]
async fn requests_leave_with_another_batch_when_one_hangs() {
    let store = Store::with_limit(Duration::ZERO);
    let batcher = Batcher::new(store.clone());
    let mut all: Vec<_> = (1..=3).map(|request| Box::pin(batcher.send(request))).collect();
    for (number, one) in all.iter_mut().enumerate() {
        begin!(one);
        store.until_in_flight(number + 1).await;
    }
    assert_eq!(store.sent(), [[1], [2], [3]]);
    store.0.gate.add_permits(10);
    assert!(join_all(all).await.iter().all(Result::is_ok));
    store.0.gate.add_permits(1);
    assert_eq!(batcher.send(4).await.unwrap(), 40);
}

/// A store that gains from several batches in flight.
#[derive(Clone)]
struct Pipelined(Store);

impl Carrier for Pipelined {
    type Request = u32;
    type Answer = Result<u32, BackendError>;

    const MOST: usize = 4;
    const MOST_BYTES: usize = 100;
    const ENOUGH: usize = 2;
    const MOST_IN_FLIGHT: usize = 2;

    fn limit(&self) -> Duration {
        self.0.limit()
    }

    fn size(_: &u32) -> usize {
        1
    }

    async fn carry_one(&self, request: u32) -> Result<u32, BackendError> {
        self.0.carry_one(request).await
    }

    async fn carry(&self, requests: Vec<u32>) -> Vec<Result<u32, BackendError>> {
        self.0.carry(requests).await
    }

    fn failed(error: BackendError) -> Result<u32, BackendError> {
        Err(error)
    }
}

#[tokio::test]
async fn enough_requests_leave_although_a_batch_is_in_flight() {
    let store = Store::new();
    let batcher = Batcher::new(Pipelined(store.clone()));
    let mut all: Vec<_> = (1..=6).map(|request| Box::pin(batcher.send(request))).collect();
    let (first, rest) = all.split_at_mut(2);
    for one in first {
        begin!(one);
    }
    // The first request and the first batch.
    store.until_in_flight(2).await;
    let (next, last) = rest.split_at_mut(2);
    for one in next {
        begin!(one);
    }
    store.until_in_flight(3).await;
    for one in last {
        begin!(one);
    }
    // Two batches are in flight, and no third one leaves.
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.sent(), [vec![1], vec![2], vec![3, 4]]);
    store.0.gate.add_permits(10);
    let answers: Vec<_> = join_all(all).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(answers, [10, 20, 30, 40, 50, 60]);
    assert_eq!(store.sent(), [vec![1], vec![2], vec![3, 4], vec![5, 6]]);
}
