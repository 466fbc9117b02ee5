//! What a command sees, and what its caller gets.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::dlock::{Bench, complete, text, until};
use crate::stores::Store;

pub async fn its_exit_code_is_passed_on<S: Store>() {
    let bench = Bench::<S>::new();
    for code in [0, 1, 7, 75, 255] {
        let done = complete(&mut bench.run(&[], &format!("exit {code}")));
        assert_eq!(done.status.code(), Some(code), "{done:?}");
        assert_eq!(text(&done.stderr), "");
    }
}

pub async fn a_signal_that_kills_it_shows_in_the_exit_code<S: Store>() {
    let bench = Bench::<S>::new();
    for (signal, code) in [("KILL", 137), ("TERM", 143), ("SEGV", 139)] {
        let done = complete(&mut bench.run(&[], &format!("kill -{signal} $$")));
        assert_eq!(done.status.code(), Some(code), "{done:?}");
    }
    assert!(bench.is_free());
}

pub async fn a_command_that_cannot_run_has_the_codes_of_a_shell<S: Store>() {
    let bench = Bench::<S>::new();
    let plain = bench.path("plain");
    std::fs::write(&plain, "not a program").expect("a file");
    let plain = plain.to_str().expect("UTF-8");
    for (program, code) in [("no-such-program", 127), (plain, 126)] {
        let done = complete(&mut bench.on_store(&["run", "k", "--", program]));
        assert_eq!(done.status.code(), Some(code), "{done:?}");
        let said = text(&done.stderr);
        assert!(said.starts_with(&format!("dlock: cannot run `{program}`: ")), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert!(bench.is_free());
}

pub async fn its_streams_are_untouched<S: Store>() {
    let bench = Bench::<S>::new();
    let mut command = bench.run(&[], "cat; echo of the error stream >&2");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("a program that can be run");
    let bytes: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let mut stdin = child.stdin.take().expect("a pipe");
    let sent = bytes.clone();
    let writer = std::thread::spawn(move || stdin.write_all(&sent));
    let done = child.wait_with_output().expect("a child");
    writer.join().expect("no panic").expect("all is read");
    assert!(done.stdout == bytes, "{} of {} bytes", done.stdout.len(), bytes.len());
    assert_eq!(text(&done.stderr), "of the error stream");
}

pub async fn no_descriptor_is_left_open<S: Store>() {
    let bench = Bench::<S>::new();
    // `ls` itself opens the folder. The caller of this test may have left others open.
    let plain = complete(Command::new("ls").arg("/proc/self/fd"));
    let done = complete(&mut bench.on_store(&["run", "k", "--", "ls", "/proc/self/fd"]));
    assert_eq!(text(&done.stdout), text(&plain.stdout));
}

pub async fn a_reader_that_goes_away_ends_it_by_a_signal<S: Store>() {
    let bench = Bench::<S>::new();
    let mut command = bench.on_store(&["run", "k", "--", "yes"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("a program that can be run");
    drop(child.stdout.take());
    // 128 + SIGPIPE.
    assert_eq!(child.wait().expect("a child").code(), Some(141));
    assert!(bench.is_free());
}

pub async fn its_environment_has_the_key_and_a_growing_token<S: Store>() {
    let bench = Bench::<S>::new();
    let mut last = 0;
    for _ in 0..3 {
        let done = complete(&mut bench.run(&[], "echo $DLOCK_KEY $DLOCK_TOKEN"));
        let (key, token) = text(&done.stdout).split_once(' ').expect("two words");
        let token: u64 = token.parse().expect("a number");
        assert_eq!(key, "k");
        assert!(token > last, "{token} after {last}");
        last = token;
    }
}

pub async fn a_busy_lock_has_a_code_of_its_own<S: Store>() {
    let bench = Bench::<S>::new();
    let _holder = bench.start(&[], "touch started; sleep 60");
    let done = complete(&mut bench.run(&["--wait", "0"], "touch wrong"));
    assert_eq!(done.status.code(), Some(75), "{done:?}");
    let said = text(&done.stderr);
    assert!(said.starts_with("dlock: lock `k` is busy"), "{said}");
    let done = complete(&mut bench.run(&["--wait", "0", "--busy-code", "9"], "touch wrong"));
    assert_eq!(done.status.code(), Some(9), "{done:?}");
    assert!(!bench.path("wrong").exists(), "it ran without the lock");
}

pub async fn a_busy_lock_can_be_skipped<S: Store>() {
    let bench = Bench::<S>::new();
    let holder = bench.start(&[], "touch started; sleep 60");
    let done = complete(&mut bench.run(&["--skip-if-busy"], "touch wrong"));
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
    let waits = &mut bench.run(&["--skip-if-busy", "--wait", "300ms"], "touch wrong");
    let began = Instant::now();
    assert!(complete(waits).status.success() && began.elapsed() > Duration::from_millis(250));
    assert!(!bench.path("wrong").exists(), "it ran without the lock");
    drop(holder);
}

pub async fn it_waits_until_the_lock_is_free<S: Store>() {
    let bench = Bench::<S>::new();
    let mut holder =
        bench.start(&[], "touch started; until test -e go; do sleep 0.01; done; echo 1 >> order");
    let mut waiter = bench.spawn(&["--fair"], "echo 2 >> order");
    until("it waits", || bench.waiters() == 1);
    // It can have the lock only after the first one.
    std::fs::write(bench.path("go"), "").expect("a file");
    assert_eq!(holder.end().0, Some(0));
    assert_eq!(waiter.end().0, Some(0));
    assert_eq!(std::fs::read_to_string(bench.path("order")).expect("a file"), "1\n2\n");
}

pub async fn it_waits_no_longer_than_it_may<S: Store>() {
    let bench = Bench::<S>::new();
    let _holder = bench.start(&[], "touch started; sleep 60");
    let began = Instant::now();
    let done = complete(&mut bench.run(&["--wait", "300ms"], "touch wrong"));
    assert_eq!(done.status.code(), Some(75), "{done:?}");
    assert!(began.elapsed() >= Duration::from_millis(300));
}

pub async fn a_long_command_is_not_disturbed<S: Store>() {
    let bench = Bench::<S>::new();
    let done = complete(&mut bench.run(&["--ttl", S::SHORT], "sleep 8; echo done"));
    assert!(done.status.success() && text(&done.stdout) == "done", "{done:?}");
}

pub async fn shared_locks_are_held_together<S: Store>() {
    let bench = Bench::<S>::new();
    let _holder = bench.start(&["--shared"], "touch started; sleep 60");
    let done = complete(&mut bench.run(&["--shared", "--wait", "0"], "true"));
    assert!(done.status.success(), "{done:?}");
    assert!(!bench.is_free(), "held by a reader");
}

pub async fn permits_are_counted<S: Store>() {
    let bench = Bench::<S>::new();
    let options = ["--permits", "2", "--wait", "0"];
    let _first = bench.start(&options, "touch started; sleep 60");
    let _second = bench.start(&options, "touch started; sleep 60");
    let third = complete(&mut bench.run(&options, "true"));
    assert_eq!(third.status.code(), Some(75), "{third:?}");
}

pub async fn a_lock_can_be_kept_for_a_while<S: Store>() {
    let bench = Bench::<S>::new();
    let began = Instant::now();
    let done = complete(&mut bench.run(&["--min-hold", "2s"], "true"));
    assert!(done.status.success(), "{done:?}");
    if began.elapsed() < Duration::from_secs(1) {
        assert!(!bench.is_free(), "kept for two seconds");
    }
    until("it is free", || bench.is_free());
    assert!(began.elapsed() >= Duration::from_millis(1_900));
}
