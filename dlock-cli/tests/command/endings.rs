//! Signals, and what a command leaves behind.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::dlock::{Bench, Running, has_ended, until};
use crate::stores::Store;

pub async fn a_signal_reaches_the_command<S: Store>() {
    let bench = Bench::<S>::new();
    for (signal, name) in [
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGINT, "INT"),
        (Signal::SIGHUP, "HUP"),
        (Signal::SIGUSR1, "USR1"),
    ] {
        let script = format!("trap 'exit 3' {name}; touch started; while :; do sleep 0.02; done");
        let mut running = bench.start(&[], &script);
        running.send(signal);
        assert_eq!(running.end(), (Some(3), String::new()), "{name}");
        assert!(bench.is_free(), "{name}");
    }
}

pub async fn a_stream_of_signals_does_not_keep_the_lease_from_the_command<S: Store>() {
    let bench = Bench::<S>::new();
    let script = "trap '' USR1; touch started; until test -e go; do sleep 0.02; done; exit 6";
    let mut running = bench.start(&["--ttl", "2s"], script);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        running.send(Signal::SIGUSR1);
        std::thread::sleep(Duration::from_millis(10));
    }
    std::fs::write(bench.path("go"), "").expect("a file");
    assert_eq!(running.end(), (Some(6), String::new()));
}

pub async fn a_signal_reaches_its_children<S: Store>() {
    let bench = Bench::<S>::new();
    let script = "sh -c 'trap \"touch told; exit\" TERM; touch started; while :; do sleep 0.02; done' & wait";
    let mut running = bench.start(&[], script);
    running.send(Signal::SIGTERM);
    assert_eq!(running.end().0, Some(143));
    assert!(bench.path("told").exists(), "the child was not told");
}

pub async fn a_signal_while_waiting_leaves_nothing_behind<S: Store>() {
    let bench = Bench::<S>::new();
    let mut holder = bench.start(&[], "touch started; until test -e go; do sleep 0.01; done");
    let mut waiter = bench.spawn(&["--fair"], "touch wrong");
    until("it waits", || bench.waiters() == 1);
    // Not an end.
    waiter.send(Signal::SIGWINCH);
    waiter.send(Signal::SIGTERM);
    assert_eq!(waiter.end(), (Some(143), String::new()));
    std::fs::write(bench.path("go"), "").expect("a file");
    assert_eq!(holder.end().0, Some(0));
    assert!(bench.is_free());
    assert!(!bench.path("wrong").exists());
}

pub async fn what_it_leaves_running_ends_before_the_lock_is_free<S: Store>() {
    let bench = Bench::<S>::new();
    let mut running = bench.start(&[], "sleep 600 & echo $! > child; touch started");
    assert_eq!(running.end().0, Some(0));
    assert!(has_ended(bench.id("child")), "it still runs");
    assert!(bench.is_free());
}

pub async fn what_ignores_the_end_is_killed<S: Store>() {
    let bench = Bench::<S>::new();
    let script = "(trap '' TERM; echo $$ > started; while :; do sleep 0.02; done) & echo $! > child; until test -e started; do :; done";
    let began = Instant::now();
    let mut running = bench.start(&["--kill-after", "200ms"], script);
    assert_eq!(running.end().0, Some(0));
    assert!(has_ended(bench.id("child")), "it still runs");
    assert!(began.elapsed() >= Duration::from_millis(200), "it had no time to end");
}

/// `timeout` is in a process group of its own, and so is what a shell with job control starts.
pub async fn other_process_groups_end_too<S: Store>() {
    let bench = Bench::<S>::new();
    let script = "timeout 1h sh -c 'echo $$ > child; exec sleep 600' & until test -s child; do sleep 0.01; done; touch started";
    let mut running = bench.start(&[], script);
    assert_eq!(running.end().0, Some(0));
    assert!(has_ended(bench.id("child")), "it still runs");
    assert!(bench.is_free());
}

pub async fn a_hang_up_is_ignored_under_nohup<S: Store>() {
    let bench = Bench::<S>::new();
    let inner = bench.run(&[], "touch started; until test -e go; do sleep 0.01; done; exit 6");
    // Ends of children may be ignored as well.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP CHLD; exec \"$0\" \"$@\""]);
    // Without `env`, which would undo that.
    command.args(inner.get_args().skip(1)).current_dir(bench.path(""));
    let mut running = Running(command.stdin(Stdio::null()).spawn().expect("a shell"));
    until("it runs", || bench.path("started").exists());
    running.send(Signal::SIGHUP);
    std::fs::write(bench.path("go"), "").expect("a file");
    assert_eq!(running.end().0, Some(6));
}

pub async fn a_stopped_child_ends_too<S: Store>() {
    let bench = Bench::<S>::new();
    let mut running = bench.start(
        &["--kill-after", "200ms"],
        "sleep 600 & echo $! > child; touch started; until test -e go; do sleep 0.01; done",
    );
    let child = bench.id("child");
    kill(Pid::from_raw(child), Signal::SIGSTOP).expect("it runs");
    std::fs::write(bench.path("go"), "").expect("a file");
    assert_eq!(running.end().0, Some(0));
    assert!(has_ended(child), "it still exists");
}

/// `dlock`, its supervisor and the command are killed at once.
pub async fn the_lock_is_free_after_a_crash<S: Store>() {
    let bench = Bench::<S>::new();
    let script = "echo $$ > child; trap '' TERM; touch started; while :; do sleep 0.02; done";
    let running = bench.start(&["--ttl", "2s"], script);
    let supervisor = running.supervisor();
    // Stopped first, so that neither sees the end of the other.
    running.send(Signal::SIGSTOP);
    kill(Pid::from_raw(supervisor), Signal::SIGKILL).expect("it runs");
    running.send(Signal::SIGKILL);
    until("the kernel has killed the command", || has_ended(bench.id("child")));
    until("the lock is free", || bench.is_free());
}
