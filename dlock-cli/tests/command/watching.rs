//! `dlock top`, in a terminal and without one.

use dlock_tests::servers::first_missing;
use dlock_tests::trials::Trials;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::dlock::{Bench, Running, complete, dlock, has_ended, text, until};
use crate::stores::{OnRedis, OnSqlite, Store};
use crate::tmux::Terminal;

/// The tests in a terminal.
pub fn add(trials: &mut Trials) {
    let name = "sqlite_the_screen_shows_who_is_waited_for";
    trials.needs("tmux", name, the_screen_shows_who_is_waited_for::<OnSqlite>);
    let both = first_missing(&["tmux", "redis-server"]);
    let name = "redis_the_screen_shows_who_is_waited_for";
    trials.needs(both, name, the_screen_shows_who_is_waited_for::<OnRedis>);
    let test = the_picture_stays_if_the_store_fails;
    trials.needs(both, "the_picture_stays_if_the_store_fails", test);
    macro_rules! in_a_terminal {
        ($($test:ident),* $(,)?) => { $(
            trials.needs("tmux", stringify!($test), $test);
        )* };
    }
    in_a_terminal!(
        a_signal_gives_the_terminal_back,
        it_can_be_stopped_and_continued,
        it_ends_with_its_terminal,
        without_a_terminal_it_says_what_to_do,
    );
}

const HOLDS: &str = "touch started; sleep 600";

impl<S: Store> Bench<S> {
    /// A line for a shell that starts the screen.
    fn top(&self) -> String {
        let program = env!("CARGO_BIN_EXE_dlock");
        format!("{program} -b {} top --interval 100ms", self.store.url())
    }

    /// The same, with its process id in the file `top`.
    fn top_with_id(&self) -> String {
        format!("sh -c 'echo $$ > top; exec {}'", self.top())
    }

    fn terminal(&self) -> Terminal {
        Terminal::open(&self.path(""), 120, 20)
    }

    /// One that waits for the lock in the order of all.
    fn waiter(&self) -> Running {
        let waiter = self.spawn(&["--fair"], "true");
        until("it waits", || self.waiters() == 1);
        waiter
    }
}

async fn the_screen_shows_who_is_waited_for<S: Store>() {
    let bench = Bench::<S>::new();
    let terminal = bench.terminal();
    let modes = terminal.writes("stty -g", &bench.path("modes"));
    terminal.line(&bench.top());
    terminal.shows("no lock is held or waited for");
    let holder = bench.start(&[], HOLDS);
    terminal.until("a lock that is held", |screen| row(screen, "k ").contains("dlock run sh"));
    let _waiter = bench.waiter();
    terminal.until("its waiter", |screen| row(screen, "k ").starts_with("k 1 "));

    terminal.types("/other");
    terminal.shows("nothing matches the filter");
    terminal.press("Escape");
    terminal.until("all locks", |screen| !row(screen, "k ").is_empty());
    terminal.shows("WAITERS▼");
    terminal.types("S");
    terminal.shows("KEY▲");
    terminal.types("r");
    terminal.shows("KEY▼");

    terminal.press("Enter");
    terminal.shows("1 waiter");
    assert!(
        terminal.screen().contains(&format!("/{}  since", holder.id())),
        "{}",
        terminal.screen()
    );
    terminal.press("Escape");
    terminal.shows("KEY▼");
    terminal.press("Tab");
    terminal.shows("[blame]");
    terminal.until("the blame", |screen| {
        row(screen, "dlock run sh ").contains(" 100% 1 dlock run sh k ")
    });

    for (width, height, part) in
        [(20, 5, "dlock top  locks [b…"), (2, 2, "d…"), (200, 40, "WORST HOLD")]
    {
        terminal.resize(width, height);
        terminal.shows(part);
    }

    terminal.types("q");
    terminal.is_given_back();
    assert_eq!(terminal.writes("stty -g", &bench.path("modes")), modes);
}

/// The line that begins so, with single spaces.
fn row(screen: &str, start: &str) -> String {
    let row = screen.lines().find(|line| line.starts_with(start)).unwrap_or_default();
    row.split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn a_signal_gives_the_terminal_back() {
    let bench = Bench::<OnSqlite>::new();
    let _holder = bench.start(&[], HOLDS);
    let terminal = bench.terminal();
    let modes = terminal.writes("stty -g", &bench.path("modes"));
    for (signal, code) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130), (Signal::SIGHUP, 129)] {
        let _ = std::fs::remove_file(bench.path("top"));
        terminal.line(&bench.top_with_id());
        terminal.until("a lock", |screen| !row(screen, "k ").is_empty());
        kill(Pid::from_raw(bench.id("top")), signal).expect("it runs");
        terminal.is_given_back();
        assert_eq!(
            terminal.writes("echo $?", &bench.path("code")),
            format!("{code}\n"),
            "{signal}"
        );
        assert_eq!(terminal.writes("stty -g", &bench.path("modes")), modes, "{signal}");
    }
}

async fn it_can_be_stopped_and_continued() {
    let bench = Bench::<OnSqlite>::new();
    let _holder = bench.start(&[], HOLDS);
    let terminal = bench.terminal();
    let modes = terminal.writes("stty -g", &bench.path("modes"));
    terminal.line(&bench.top_with_id());
    terminal.until("a lock", |screen| !row(screen, "k ").is_empty());
    let id = Pid::from_raw(bench.id("top"));
    let stops: [&dyn Fn(); 2] =
        [&|| terminal.press("C-z"), &|| kill(id, Signal::SIGTSTP).expect("it runs")];
    for stop in stops {
        stop();
        terminal.is_given_back();
        assert_eq!(terminal.writes("stty -g", &bench.path("modes")), modes);
        terminal.line("fg");
        terminal.until("a lock", |screen| !row(screen, "k ").is_empty());
    }
    // The first key after that is not lost.
    terminal.types("?");
    terminal.shows("Esc back");
    terminal.types("q");
    terminal.is_given_back();
    assert_eq!(terminal.writes("stty -g", &bench.path("modes")), modes);
}

async fn it_ends_with_its_terminal() {
    let bench = Bench::<OnSqlite>::new();
    for before in ["", "trap '' HUP; "] {
        let _ = std::fs::remove_file(bench.path("top"));
        let terminal = bench.terminal();
        terminal.line(&format!("{before}{}", bench.top_with_id()));
        terminal.shows("no lock is held");
        let id = bench.id("top");
        terminal.close();
        until("it has ended", || has_ended(id));
    }
}

async fn the_picture_stays_if_the_store_fails() {
    let mut bench = Bench::<OnRedis>::new();
    let _holder = bench.start(&[], HOLDS);
    let terminal = bench.terminal();
    terminal.line(&bench.top());
    terminal.until("a lock", |screen| !row(screen, "k ").is_empty());
    bench.store.kill();
    terminal.shows("STORE FAILS (2×): picture ");
    assert!(!row(&terminal.screen(), "k ").is_empty(), "{}", terminal.screen());
    terminal.types("q");
    terminal.is_given_back();
}

pub async fn two_samples_can_be_printed<S: Store>() {
    let bench = Bench::<S>::new();
    let _holder = bench.start(&[], HOLDS);
    let _waiter = bench.waiter();
    let done = complete(&mut bench.on_store(&["top", "--once", "--interval", "200ms"]));
    let shown = text(&done.stdout);
    assert!(done.status.success() && row(shown, "k ").starts_with("k 1 "), "{done:?}");
    assert!(row(shown, "dlock run sh ").contains(" 100% 1 dlock run sh k token "), "{shown}");
    let done = complete(&mut bench.on_store(&["top", "--once", "--json", "--interval", "200ms"]));
    let json: Value = serde_json::from_slice(&done.stdout).expect("JSON");
    assert_eq!(json["locks"][0]["key"], "k", "{json}");
    let waited = json["waited_ms"].as_u64().expect("a number");
    assert!(waited >= 200, "{json}");
    let blamed = &json["blame"][0];
    assert_eq!((&blamed["site"], &blamed["waited_ms"]), (&"dlock run sh".into(), &waited.into()));
    let done = complete(&mut bench.on_store(&["top", "--once", "--interval", "200ms", "other:"]));
    assert_eq!(row(text(&done.stdout), "k "), "", "only keys that begin so");
}

async fn without_a_terminal_it_says_what_to_do() {
    let bench = Bench::<OnSqlite>::new();
    let done = complete(&mut bench.on_store(&["top"]));
    assert_eq!(done.status.code(), Some(64), "{done:?}");
    let said = text(&done.stderr);
    assert_eq!(said, "dlock: standard output is not a terminal: use `dlock top --once`");
    let terminal = bench.terminal();
    terminal.line(&format!("TERM=dumb {}", bench.top()));
    terminal.shows("dlock: a terminal is needed whose cursor can be moved");
    for arguments in [["top", "--json"], ["top", "--interval=99ms"]] {
        assert_eq!(complete(&mut dlock(&arguments)).status.code(), Some(64), "{arguments:?}");
    }
}
