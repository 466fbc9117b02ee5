//! `dlock watch`: records a timeline of the locks as a page for a browser.

mod file;
mod page;
mod record;

use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use self::file::PageFile;
use self::page::Subject;
use self::record::{Kind, Recording};
use crate::arguments::{StoreArguments, WatchArguments};
use crate::exit::{Failure, USAGE, say};
use crate::received::Signals;
use crate::store;
use crate::top::model::Model;
use crate::top::sampling::{Answer, Sampler};
use crate::top::shows::Shows;

/// How often the page is written while the recording goes on: a killed one leaves the last of them.
const WRITING: Duration = Duration::from_secs(5);

/// Signals that end a recording.
const ENDS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

pub async fn watch(
    arguments: &StoreArguments,
    options: WatchArguments,
) -> Result<ExitCode, Failure> {
    let name = options.html.display().to_string();
    let file = PageFile::prepare(&options.html)
        .map_err(|error| Failure::new(USAGE, format!("cannot write `{name}`: {error}")))?;
    let mut signals = Signals::listen(ENDS.into_iter())?;
    let (backend, url) = store::find(arguments)?;
    let shows = Shows::of(&url);
    let locks = store::connect(arguments).await?.locks;
    let subject = Subject {
        store: store::shown(&backend, &url),
        prefix: options.prefix.clone(),
        interval: options.interval,
        shows,
    };
    let sampler = Sampler::new(locks, options.prefix, options.interval);
    let end = options.duration.and_then(|duration| sampler.start().checked_add(duration));
    let mut session = Session {
        subject,
        file,
        recording: Recording::new(shows.knows_grants()),
        model: Model::new(shows.knows_grants()),
        written: None,
        store_fails: Outage::default(),
        file_fails: Outage::default(),
    };
    say(format_args!("recording to `{name}`; Ctrl-C ends it"));
    let (answer, mut answers) = mpsc::channel(1);
    tokio::spawn(sampler.run(answer));
    loop {
        tokio::select! {
            _ = signals.next() => break,
            () = until(end) => break,
            Some(answer) = answers.recv() => session.take(answer),
        }
    }
    session.complete(&name)
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

struct Session {
    subject: Subject,
    file: PageFile,
    recording: Recording,
    model: Model,
    /// When the page was written last.
    written: Option<Instant>,
    store_fails: Outage,
    file_fails: Outage,
}

/// Something fails. It is said once.
#[derive(Default)]
struct Outage(bool);

impl Outage {
    fn begin(&mut self, problem: std::fmt::Arguments<'_>) {
        if !std::mem::replace(&mut self.0, true) {
            say(problem);
        }
    }

    fn end(&mut self) {
        self.0 = false;
    }
}

impl Session {
    fn take(&mut self, answer: Answer) {
        match answer {
            Answer::Sample(at, locks) => {
                self.recording.sample(at, &locks);
                self.model.sample(at, locks);
                self.store_fails.end();
            }
            Answer::Failed { problem, .. } => {
                self.recording.interrupt();
                self.model.interrupt();
                self.store_fails
                    .begin(format_args!("the store fails, and is asked again: {problem}"));
            }
        }
        let is_due = self.written.is_none_or(|written| written.elapsed() >= WRITING);
        // An earlier page is not replaced by an empty one.
        if !is_due || self.recording.span().is_none() {
            return;
        }
        match self.write(false) {
            Ok(()) => self.file_fails.end(),
            Err(error) => self
                .file_fails
                .begin(format_args!("cannot write the page now, and will try again: {error}")),
        }
    }

    fn complete(mut self, name: &str) -> Result<ExitCode, Failure> {
        if self.recording.span().is_none() {
            return Err(Failure::unavailable("the store did not answer once, so there is no page"));
        }
        self.write(true)
            .map_err(|error| Failure::unavailable(format!("cannot write `{name}`: {error}")))?;
        println!("{name}: {}", self.summary());
        Ok(ExitCode::SUCCESS)
    }

    fn write(&mut self, is_complete: bool) -> std::io::Result<()> {
        let page = page::render(&self.subject, &self.recording, &self.model, is_complete);
        self.written = Some(Instant::now());
        self.file.replace(&page)
    }

    fn summary(&self) -> String {
        let sum = |kind| {
            let bars = self.recording.bars().filter(|bar| bar.kind == kind);
            bars.map(|bar| bar.count).sum::<u64>()
        };
        let samples = self.model.samples();
        format!("{} holds and {} waits in {samples} samples", sum(Kind::Hold), sum(Kind::Wait))
    }
}
