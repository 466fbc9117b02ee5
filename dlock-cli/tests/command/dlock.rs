//! Runs of the command.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::stores::Store;

/// How long anything may take.
const LIMIT: Duration = Duration::from_mins(1);

/// A store, and a folder for the files of a test.
pub struct Bench<S> {
    pub store: S,
    folder: TempDir,
}

/// `dlock`, with these arguments. Whoever runs the tests may ignore signals, as `nohup` does.
pub fn dlock(arguments: &[&str]) -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal", env!("CARGO_BIN_EXE_dlock")]);
    // Nothing of the machine's own configuration.
    command.args(arguments).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

pub fn complete(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).output().expect("a program that can be run")
}

pub fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8").trim_end()
}

/// Waits until the condition is true.
pub fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Has this process ended, whether or not its parent has asked for its code?
pub fn has_ended(id: i32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{id}/stat"));
    let state = state.ok().and_then(|stat| stat.rsplit(") ").next().map(str::to_owned));
    state.is_none_or(|state| state.starts_with('Z'))
}

impl<S: Store> Bench<S> {
    pub fn new() -> Self {
        Self { store: S::start(), folder: tempfile::tempdir().expect("a temporary directory") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `dlock` on the store of this test.
    pub fn on_store(&self, arguments: &[&str]) -> Command {
        let url = self.store.url();
        let mut command = dlock(&["--backend", &url]);
        command.args(arguments).current_dir(self.folder.path());
        command
    }

    /// `dlock run` with these options of the key `k` and a shell script.
    pub fn run(&self, options: &[&str], script: &str) -> Command {
        let arguments = [&["run"], options, &["k", "--", "sh", "-c", script]].concat();
        self.on_store(&arguments)
    }

    /// Starts it, and waits until its script has written the file `started`.
    pub fn start(&self, options: &[&str], script: &str) -> Running {
        let started = self.path("started");
        let _ = std::fs::remove_file(&started);
        let running = self.spawn(options, script);
        until("the command runs", || started.exists());
        running
    }

    pub fn spawn(&self, options: &[&str], script: &str) -> Running {
        let mut command = self.run(options, script);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Running(command.spawn().expect("a program that can be run"))
    }

    /// Can somebody else have the lock at once?
    pub fn is_free(&self) -> bool {
        complete(&mut self.run(&["--wait", "0"], "true")).status.success()
    }

    /// How many wait for the lock in the store's own queue.
    pub fn waiters(&self) -> usize {
        let shown = complete(&mut self.on_store(&["who", "k", "--json"]));
        let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("JSON");
        shown["waiters"].as_array().map_or(0, Vec::len)
    }

    /// The process id that a script has written to this file.
    pub fn id(&self, file: &str) -> i32 {
        let path = self.path(file);
        until("a process id", || read_id(&path).is_some());
        read_id(&path).expect("a process id")
    }
}

fn read_id(path: &Path) -> Option<i32> {
    std::fs::read_to_string(path).ok()?.strip_suffix('\n')?.parse().ok()
}

/// A `dlock` that runs.
pub struct Running(pub Child);

impl Running {
    pub fn id(&self) -> i32 {
        i32::try_from(self.0.id()).expect("a process id")
    }

    pub fn send(&self, signal: Signal) {
        kill(Pid::from_raw(self.id()), signal).expect("it runs");
    }

    /// Its supervisor.
    pub fn supervisor(&self) -> i32 {
        let children = format!("/proc/{0}/task/{0}/children", self.id());
        let mut supervisor = None;
        until("a supervisor", || {
            // A thread of the runtime has started it.
            supervisor = children_of(self.id()).first().copied();
            supervisor.is_some()
        });
        supervisor.unwrap_or_else(|| panic!("no child in {children}"))
    }

    /// Waits for its end. What `dlock` itself has written to standard error comes with its code.
    pub fn end(&mut self) -> (Option<i32>, String) {
        let mut status = None;
        until("its end", || {
            status = self.0.try_wait().expect("a child");
            status.is_some()
        });
        let mut said = String::new();
        if let Some(stderr) = &mut self.0.stderr {
            stderr.read_to_string(&mut said).expect("UTF-8");
        }
        // A shell writes there which signal has ended a child.
        let said: Vec<_> = said.lines().filter(|line| line.starts_with("dlock: ")).collect();
        (status.as_ref().and_then(ExitStatus::code), said.join("\n"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let id = Pid::from_raw(self.id());
        for child in children_of(self.id()) {
            let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
        }
        let _: Result<(), Errno> = kill(id, Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

fn children_of(id: i32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let children =
        tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let children: Vec<String> = children.collect();
    children
        .iter()
        .flat_map(|text| text.split_whitespace())
        .filter_map(|id| id.parse().ok())
        .collect()
}
