//! A command never runs beyond its lock.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::dlock::{Bench, complete, has_ended, until};
use crate::stores::Store;

/// Runs until it is ended, and notes that it was asked to.
const OBEYS: &str =
    "echo $$ > child; trap 'touch told; exit 0' TERM; touch started; while :; do sleep 0.02; done";
/// Runs on and on.
const IGNORES: &str =
    "echo $$ > child; trap 'touch told' TERM; touch started; while :; do sleep 0.02; done";

pub async fn a_revoked_lock_ends_the_command<S: Store>() {
    let bench = Bench::<S>::new();
    let mut running = bench.start(&["--ttl", S::SHORT], OBEYS);
    let revoked = complete(&mut bench.on_store(&["revoke", "k"]));
    assert!(revoked.status.success(), "{revoked:?}");
    let (code, said) = running.end();
    assert_eq!(code, Some(70), "{said}");
    assert!(said.starts_with("dlock: lock `k` was lost") && said.lines().count() == 1, "{said}");
    assert!(bench.path("told").exists(), "it was not asked to end");
    until("the lock is free", || bench.is_free());
}

pub async fn a_command_that_ignores_the_loss_is_killed_in_time<S: Store>() {
    let bench = Bench::<S>::new();
    let mut running = bench.start(&["--ttl", S::SHORT, "--kill-after", "1h"], IGNORES);
    let next = bench.spawn(&[], "touch next");
    let revoked = complete(&mut bench.on_store(&["revoke", "k"]));
    assert!(revoked.status.success(), "{revoked:?}");
    let child = bench.id("child");
    until("the next one has the lock", || {
        let has_next = bench.path("next").exists();
        assert!(!has_next || has_ended(child), "both run");
        has_next
    });
    assert!(bench.path("told").exists(), "it was not asked to end");
    assert_eq!(running.end().0, Some(70));
    drop(next);
}

pub async fn a_killed_store_ends_the_command<S: Store>() {
    let mut bench = Bench::<S>::new();
    let mut running = bench.start(&["--ttl", "2s"], OBEYS);
    bench.store.kill();
    let killed = Instant::now();
    until("the command has ended", || has_ended(bench.id("child")));
    let took = killed.elapsed();
    assert!(took < Duration::from_secs(2), "it ran for {took:?} without its store");
    assert!(bench.path("told").exists(), "it was not asked to end");
    let (code, said) = running.end();
    assert_eq!(code, Some(70), "{said}");
}

pub async fn a_stopped_dlock_does_not_keep_the_command_running<S: Store>() {
    let bench = Bench::<S>::new();
    let mut running = bench.start(&["--ttl", "2s"], IGNORES);
    let child = bench.id("child");
    running.send(Signal::SIGSTOP);
    let next = bench.spawn(&[], "touch next");
    until("the next one has the lock", || {
        let has_next = bench.path("next").exists();
        assert!(!has_next || has_ended(child), "both run");
        has_next
    });
    running.send(Signal::SIGCONT);
    assert_eq!(running.end().0, Some(70));
    drop(next);
}

pub async fn a_killed_dlock_does_not_leave_the_command_running<S: Store>() {
    let bench = Bench::<S>::new();
    let running = bench.start(&["--ttl", S::SHORT, "--kill-after", "1h"], IGNORES);
    let child = bench.id("child");
    let next = bench.spawn(&[], "touch next");
    running.send(Signal::SIGKILL);
    until("the next one has the lock", || {
        let has_next = bench.path("next").exists();
        assert!(!has_next || has_ended(child), "both run");
        has_next
    });
    assert!(bench.path("told").exists(), "it was not asked to end");
    drop(next);
}

/// As a service manager ends everything of a service.
pub async fn the_command_ends_in_peace_although_its_supervisor_is_told_too<S: Store>() {
    let bench = Bench::<S>::new();
    let script = "echo $$ > child; trap 'sleep 0.3; touch told; exit 4' TERM; touch started; while :; do sleep 0.02; done";
    let mut running = bench.start(&[], script);
    for id in [running.supervisor(), bench.id("child"), running.id()] {
        kill(Pid::from_raw(id), Signal::SIGTERM).expect("it runs");
    }
    assert_eq!(running.end(), (Some(4), String::new()));
    assert!(bench.path("told").exists());
}

pub async fn a_killed_supervisor_takes_the_command_with_it<S: Store>() {
    let bench = Bench::<S>::new();
    let script = format!("sleep 600 & echo $! > grandchild; {OBEYS}");
    let mut running = bench.start(&[], &script);
    kill(Pid::from_raw(running.supervisor()), Signal::SIGKILL).expect("it runs");
    let (code, said) = running.end();
    assert_eq!(code, Some(69), "{said}");
    until("the command has ended", || has_ended(bench.id("child")));
    until("its child has ended", || has_ended(bench.id("grandchild")));
    assert!(bench.is_free());
}
