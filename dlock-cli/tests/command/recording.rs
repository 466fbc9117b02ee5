//! `dlock watch`: what is on the page.

use std::path::PathBuf;
use std::process::Stdio;

use dlock_tests::trials::Trials;
use nix::sys::signal::Signal;

use crate::dlock::{Bench, Running, complete, text, until};
use crate::stores::{OnRedis, OnSqlite, Store};

pub fn add(trials: &mut Trials) {
    on_each!(trials, recording: two_holders_are_recorded);
    let test = a_store_that_fails_does_not_end_the_recording;
    trials.needs("redis-server", "a_store_that_fails_does_not_end_the_recording", test);
    macro_rules! once {
        ($($test:ident),* $(,)?) => { $( trials.add(stringify!($test), $test); )* };
    }
    once!(
        a_holder_that_is_killed_is_marked,
        a_signal_completes_the_page,
        a_killed_recording_leaves_a_page,
        a_page_that_cannot_be_written_has_one_clear_line,
    );
}

const HOLDS: &str = "touch started; until test -e go; do sleep 0.02; done";

impl<S: Store> Bench<S> {
    fn page(&self) -> PathBuf {
        self.path("page.html")
    }

    /// What the page shows now; nothing if it is not there yet.
    fn shown(&self) -> String {
        std::fs::read_to_string(self.page()).unwrap_or_default()
    }

    /// Records until it is ended, and waits for the first sample.
    fn record(&self) -> Running {
        let mut command = self.on_store(&["watch", "--html", "page.html", "--interval", "100ms"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let running = Running(command.spawn().expect("a program that can be run"));
        until("a page", || self.page().exists());
        running
    }
}

/// The bars of a page: their class, and their tooltip.
fn bars(page: &str) -> Vec<(&str, &str)> {
    let bars = page.split("<rect class=\"").skip(1);
    let bars = bars.filter_map(|bar| {
        let class = bar.split(' ').next()?;
        let title = bar.split_once("<title>")?.1.split_once("</title>")?.0;
        Some((class, title))
    });
    bars.collect()
}

/// Long enough for two samples.
fn a_while() {
    std::thread::sleep(std::time::Duration::from_millis(400));
}

pub async fn two_holders_are_recorded<S: Store>() {
    let bench = Bench::<S>::new();
    let mut recording = bench.record();
    let mut first = bench.start(&[], HOLDS);
    let mut second = bench.spawn(&["--fair"], "sleep 0.4");
    until("it waits", || bench.waiters() == 1);
    a_while();
    std::fs::write(bench.path("go"), "").expect("a file");
    assert_eq!((first.end().0, second.end().0), (Some(0), Some(0)));
    let evil = ["run", "<script>x</script>", "--", "sleep", "0.4"];
    assert!(complete(&mut bench.on_store(&evil)).status.success());
    a_while();
    recording.send(Signal::SIGINT);
    assert_eq!(recording.end().0, Some(0));

    let page = bench.shown();
    let bars = bars(&page);
    let is_of = |title: &str, running: &Running| title.contains(&format!("/{}", running.id()));
    let count = |class: &str, part: &str, running: &Running| {
        let bars = bars.iter().filter(|(kind, title)| {
            *kind == class && title.starts_with(part) && is_of(title, running)
        });
        bars.count()
    };
    assert_eq!(count("hold", "dlock run sh holds k\n", &first), 1, "{bars:#?}");
    assert_eq!(count("hold", "dlock run sh holds k\n", &second), 1, "{bars:#?}");
    assert_eq!(count("wait", "dlock run sh waits for k\n", &second), 1, "{bars:#?}");
    assert_eq!(page.matches("class=\"mark\"").count(), 0, "both have released it");
    assert!(page.contains("<td>dlock run sh</td>"), "the blame");
    assert!(page.contains(">complete</span>"));
    assert_eq!(page.matches("<script").count(), 1, "the page's own");
    assert!(page.contains("dlock run sleep holds &lt;script&gt;x&lt;/script&gt;\n"), "{bars:#?}");
    let only = ["watch", "other:", "--html", "other.html", "--for", "300ms"];
    let done = complete(&mut bench.on_store(&only));
    let said = text(&done.stdout);
    assert!(said.starts_with("other.html: 0 holds and 0 waits in "), "{done:?}");
}

async fn a_holder_that_is_killed_is_marked() {
    let bench = Bench::<OnSqlite>::new();
    let mut recording = bench.record();
    let holder = bench.start(&["--ttl", "2s"], "touch started; sleep 600");
    a_while();
    let supervisor = nix::unistd::Pid::from_raw(holder.supervisor());
    // Stopped first, so that neither sees the end of the other.
    holder.send(Signal::SIGSTOP);
    nix::sys::signal::kill(supervisor, Signal::SIGKILL).expect("it runs");
    holder.send(Signal::SIGKILL);
    until("the lock is free", || {
        let shown = complete(&mut bench.on_store(&["who", "k"]));
        shown.status.code() == Some(1)
    });
    a_while();
    recording.send(Signal::SIGTERM);
    assert_eq!(recording.end().0, Some(0));
    let page = bench.shown();
    assert_eq!(page.matches("class=\"mark\"").count(), 1, "{page}");
    assert!(page.contains("vanished: its lease was not renewed, and ran out"), "{page}");
}

async fn a_signal_completes_the_page() {
    let bench = Bench::<OnSqlite>::new();
    let _holder = bench.start(&[], "touch started; sleep 600");
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        let _ = std::fs::remove_file(bench.page());
        let mut recording = bench.record();
        until("a hold", || bars(&bench.shown()).len() == 1);
        recording.send(signal);
        assert_eq!(recording.end().0, Some(0), "{signal}");
        assert!(bench.shown().contains(">complete</span>"), "{signal}");
    }
}

async fn a_killed_recording_leaves_a_page() {
    let bench = Bench::<OnSqlite>::new();
    let _holder = bench.start(&[], "touch started; sleep 600");
    let recording = bench.record();
    // It is written again while the recording goes on.
    until("many samples", || bench.shown().contains(" samples, one every 100ms</p>"));
    recording.send(Signal::SIGKILL);
    drop(recording);
    let page = bench.shown();
    assert!(page.ends_with("</html>\n") && page.contains("recording; reload"), "{page}");
    assert_eq!(bars(&page).len(), 1, "{page}");
    let files = std::fs::read_dir(bench.path("")).expect("a folder").flatten();
    let names: Vec<_> = files.map(|file| file.file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().ends_with(".new")), "{names:?}");
}

async fn a_store_that_fails_does_not_end_the_recording() {
    let mut bench = Bench::<OnRedis>::new();
    let _holder = bench.start(&[], "touch started; sleep 600");
    let mut recording = bench.record();
    a_while();
    bench.store.kill();
    a_while();
    recording.send(Signal::SIGINT);
    let (code, said) = recording.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("dlock: the store fails, and is asked again: "), "{said}");
    let page = bench.shown();
    assert!(page.contains("then the store did not answer"), "{page}");
    assert_eq!(page.matches("class=\"mark\"").count(), 0, "nobody saw a holder vanish: {page}");
}

async fn a_page_that_cannot_be_written_has_one_clear_line() {
    let bench = Bench::<OnSqlite>::new();
    for (file, part) in [
        ("no/such/folder/page.html", "cannot write `no/such/folder/page.html`: No such file"),
        ("/", "cannot write `/`: it is not a regular file"),
        ("/dev/null", "cannot write `/dev/null`: it is not a regular file"),
    ] {
        let done = complete(&mut bench.on_store(&["watch", "--html", file]));
        let said = text(&done.stderr);
        assert_eq!(done.status.code(), Some(64), "{file}: {said}");
        assert!(said.starts_with("dlock: ") && said.contains(part), "{file}: {said}");
        assert_eq!(said.lines().count(), 1, "{file}: {said}");
    }
    assert!(!bench.path("locks.db").exists(), "it did not even connect");
    for arguments in [&["watch"][..], &["watch", "--html=x", "--interval=99ms"]] {
        let done = complete(&mut bench.on_store(arguments));
        assert_eq!(done.status.code(), Some(64), "{arguments:?}");
    }
}
