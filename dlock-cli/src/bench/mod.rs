//! `dlock bench`: how fast locks are on a store from here, beside the store's own limit.

mod figures;
mod limit;
mod locks;
mod pace;
mod report;

use std::io::{IsTerminal as _, stdin};
use std::process::ExitCode;
use std::time::Duration;

use dlock_runtime::{LockError, Registry};
use nix::sys::signal::Signal;

use self::figures::{Figures, Times};
use self::limit::{Limit, Unmeasured};
use self::pace::{Pace, Stop};
use self::report::{Line, Report};
use crate::arguments::{BenchArguments, StoreArguments};
use crate::confirm::is_confirmed;
use crate::exit::{self, Failure, USAGE, say};
use crate::received::Signals;
use crate::store;

/// Signals that end it.
const ENDS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];

/// Four of dlock, three of the limit.
const MEASUREMENTS: u32 = 7;

/// How often dlock and the limit take turns.
const TURNS: u32 = 5;

const WARMING_UP: Duration = Duration::from_millis(50);

pub async fn bench(
    arguments: &StoreArguments,
    options: BenchArguments,
) -> Result<ExitCode, Failure> {
    let (name, url) = store::find(arguments)?;
    let shown = store::shown(&name, &url);
    if !options.yes {
        ask(&shown, options.seconds)?;
    }
    let mut signals = Signals::listen(ENDS.into_iter())?;
    let bench = Bench {
        prefix: format!("dlock:bench:{:016x}:", rand::random::<u64>()),
        stop: Stop::default(),
        url,
        options,
    };
    let measuring = bench.measure(arguments, shown);
    tokio::pin!(measuring);
    let mut ended_by = None;
    let done = loop {
        tokio::select! {
            done = &mut measuring => break done,
            signal = signals.next() => {
                // The second one does not wait for a store that hangs.
                if ended_by.replace(signal).is_some() {
                    return Ok(exit::of_signal(signal as i32));
                }
                bench.stop.set();
            }
        }
    };
    let cleaned = limit::clean_up(&bench.url, &bench.prefix).await;
    let report = done?;
    cleaned.map_err(|Unmeasured(why)| {
        Failure::unavailable(format!("cannot delete the keys `{}…`: {why}", bench.prefix))
    })?;
    if let Some(signal) = ended_by {
        say("ended early; nothing is left in the store");
        return Ok(exit::of_signal(signal as i32));
    }
    if bench.options.json {
        println!("{:#}", report.json());
    } else {
        print!("{}", report.text());
    }
    Ok(ExitCode::SUCCESS)
}

/// Others notice a server that is fully loaded.
fn ask(store: &str, length: Duration) -> Result<(), Failure> {
    if !stdin().is_terminal() {
        let problem = "this loads the server as much as it can take: pass `--yes` if that is fine";
        return Err(Failure::new(USAGE, problem));
    }
    let time = (length * MEASUREMENTS).as_secs().max(1);
    let question = format!(
        "This loads {store} as much as it can take, for about {time}s, and others notice. Measure it?"
    );
    if is_confirmed(&question) { Ok(()) } else { Err(Failure::new(USAGE, "nothing was measured")) }
}

struct Bench {
    /// All keys begin with it.
    prefix: String,
    stop: Stop,
    url: String,
    options: BenchArguments,
}

impl Bench {
    async fn measure(&self, arguments: &StoreArguments, store: String) -> Result<Report, Failure> {
        let keys: Vec<_> = (0..self.options.keys).map(|number| self.key(number)).collect();
        let (first, tasks) = (&keys[0], keys.len());
        let locks = store::connect(arguments).await?.locks;
        // Opens connections, and creates tables.
        locks::cycles(&locks, &keys, &self.pace(WARMING_UP)).await?;
        let mut limit = Limit::connect(&self.url, &self.prefix, tasks).await;
        let read = async |pace: &Pace| locks::reads(&locks, first, pace).await;
        let read = self.beside(read, &mut limit, Plain::Read).await?;
        let alone = async |pace: &Pace| locks::cycles(&locks, &keys[..1], pace).await;
        let alone = self.beside(alone, &mut limit, Plain::Pairs(1)).await?;
        let together = async |pace: &Pace| locks::cycles(&locks, &keys, pace).await;
        let together = self.beside(together, &mut limit, Plain::Pairs(tasks)).await?;
        let hand_over = (self.hand_overs(arguments, first).await?, alone.1);
        let waiters = usize::from(self.options.waiters);
        let line = |name, title: &str, tasks, (figures, limit)| {
            let title = title.to_owned();
            Line { name, title, tasks, figures, limit }
        };
        let lines = vec![
            line("read", "a read", 1, read),
            line("alone", "acquire and release, 1 task", 1, alone),
            line("together", &format!("the same, {tasks} tasks on {tasks} keys"), tasks, together),
            line(
                "hand_over",
                &format!("hand-over of a key, {waiters} connections"),
                waiters,
                hand_over,
            ),
        ];
        let limit = limit.map(|limit| limit.what());
        Ok(Report { store, length: self.options.seconds, lines, limit })
    }

    /// dlock and the limit take turns, so that both have the same part of what else loads the server and this machine.
    async fn beside(
        &self,
        ours: impl AsyncFn(&Pace) -> Result<Vec<Duration>, LockError>,
        limit: &mut Result<Limit, Unmeasured>,
        plain: Plain,
    ) -> Result<(Figures, Option<Figures>), Failure> {
        let (mut times, mut of_limit) = (Times::default(), Times::default());
        for _ in 0..TURNS {
            let pace = self.pace(self.options.seconds / TURNS);
            times.add(ours(&pace).await?, pace.elapsed());
            let Ok(known) = limit else { continue };
            let pace = self.pace(self.options.seconds / TURNS);
            match plain.send(known, &pace).await {
                Ok(more) => of_limit.add(more, pace.elapsed()),
                Err(problem) => *limit = Err(problem),
            }
        }
        Ok((times.figures(), limit.as_ref().ok().map(|_| of_limit.figures())))
    }

    async fn hand_overs(&self, arguments: &StoreArguments, key: &str) -> Result<Figures, Failure> {
        let connections = self.connections(arguments).await?;
        locks::hand_overs(&connections, key, &self.pace(WARMING_UP)).await?;
        let (pace, mut times) = (self.pace(self.options.seconds), Times::default());
        times.add(locks::hand_overs(&connections, key, &pace).await?, pace.elapsed());
        Ok(times.figures())
    }

    /// Each is as another process: it has its own connections and its own waiters.
    async fn connections(&self, arguments: &StoreArguments) -> Result<Vec<Registry>, Failure> {
        let mut connections = Vec::new();
        for _ in 0..self.options.waiters {
            if self.stop.is_set() {
                break;
            }
            connections.push(store::connect(arguments).await?.locks);
        }
        Ok(connections)
    }

    fn pace(&self, length: Duration) -> Pace {
        Pace::begin(&self.stop, length)
    }

    fn key(&self, number: u16) -> String {
        format!("{}{number}", self.prefix)
    }
}

/// What the limit is measured with.
#[derive(Clone, Copy)]
enum Plain {
    Read,
    /// By so many tasks.
    Pairs(usize),
}

impl Plain {
    async fn send(self, limit: &Limit, pace: &Pace) -> Result<Vec<Duration>, Unmeasured> {
        match self {
            Self::Read => limit.reads(pace).await,
            Self::Pairs(tasks) => limit.pairs(tasks, pace).await,
        }
    }
}
