//! A terminal, and a container.

use std::process::{Command, Stdio};

use crate::dlock::{Bench, complete, text};
use crate::stores::OnSqlite;

/// `script` runs a command in a terminal of its own.
pub async fn the_command_has_the_terminal() {
    let bench = Bench::<OnSqlite>::new();
    let url = bench.on_store(&[]);
    let words = url.get_args().map(|word| word.display().to_string()).collect::<Vec<_>>().join(" ");
    let line = format!("env {words} run k -- sh -c 'read word; test -t 1 && echo has read $word'");
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
    script.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = script.spawn().expect("`script` is a part of util-linux");
    std::io::Write::write_all(child.stdin.as_mut().expect("a pipe"), b"something\n")
        .expect("it reads");
    let done = child.wait_with_output().expect("a child");
    let shown = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && shown.contains("has read something"), "{shown}");

    // Ctrl-C ends the command, and the lock is free.
    let line = line.replace("read word", "touch started; sleep 60");
    let mut script = Command::new("script");
    script
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .current_dir(bench.path("").as_path());
    script.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = script.spawn().expect("a program that can be run");
    crate::dlock::until("it runs", || bench.path("started").exists());
    std::io::Write::write_all(child.stdin.as_mut().expect("a pipe"), b"\x03").expect("it reads");
    let code = child.wait().expect("a child").code();
    assert_eq!(code, Some(130));
    assert!(bench.is_free());
}

pub async fn it_runs_as_the_first_process_of_a_container() {
    let bench = Bench::<OnSqlite>::new();
    let inner = bench.run(&[], "sleep 600 & echo $PPID; exit 5");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]);
    command.arg(inner.get_program()).args(inner.get_args());
    let done = complete(command.current_dir(bench.path("")));
    if text(&done.stderr).starts_with("unshare: ") {
        eprintln!(
            "not tested, because this machine allows no such container: {}",
            text(&done.stderr)
        );
        return;
    }
    assert_eq!(done.status.code(), Some(5), "{done:?}");
    // Its parent is the supervisor, the child of the first process.
    assert_ne!(text(&done.stdout), "1");
    assert!(bench.is_free());
}
