//! One side of a comparison, and the loop that its tasks run.

use std::future::Future;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt, join_all};
use serde::{Deserialize, Serialize};

use crate::usage;

/// What a contender stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// dlock itself.
    Dlock,
    /// The least that any client could send for a lock, without a lock library.
    Limit,
    /// Another lock library.
    Peer,
}

/// One side of a comparison.
pub struct Contender {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) remark: &'static str,
    pub(crate) is_in_process: bool,
    run: Box<dyn Fn(Duration) -> BoxFuture<'static, Slice> + Send + Sync>,
}

impl Contender {
    /// A contender that runs this for each slice of time.
    pub fn new<Running>(
        role: Role,
        name: &str,
        run: impl Fn(Duration) -> Running + Send + Sync + 'static,
    ) -> Self
    where
        Running: Future<Output = Slice> + Send + 'static,
    {
        let run = Box::new(move |length| run(length).boxed());
        Self { name: name.to_owned(), role, remark: "", is_in_process: true, run }
    }

    /// dlock.
    pub fn dlock<Running>(run: impl Fn(Duration) -> Running + Send + Sync + 'static) -> Self
    where
        Running: Future<Output = Slice> + Send + 'static,
    {
        Self::new(Role::Dlock, "dlock", run)
    }

    /// What a reader must know to compare fairly.
    #[must_use]
    pub fn remark(mut self, remark: &'static str) -> Self {
        self.remark = remark;
        self
    }

    /// Its clients are processes of their own, so this process's CPU time says nothing about it.
    #[must_use]
    pub fn in_other_processes(mut self) -> Self {
        self.is_in_process = false;
        self
    }

    /// Runs for this long.
    pub(crate) async fn run(&self, length: Duration) -> Slice {
        (self.run)(length).await
    }
}

/// What a contender did in a slice of time.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Slice {
    /// How many times it acquired and released a lock. A cycle that was cut off counts in part.
    pub cycles: f64,
    /// The same, with what was begun within the time and ended later: what the server did belongs to these.
    pub all_cycles: f64,
    /// Each time that the lock was held, if the contest asked for that.
    pub entries: Vec<Entry>,
}

impl Slice {
    fn add(&mut self, other: Self) {
        self.cycles += other.cycles;
        self.all_cycles += other.all_cycles;
        self.entries.extend(other.entries);
    }
}

impl FromIterator<Self> for Slice {
    fn from_iter<T: IntoIterator<Item = Self>>(slices: T) -> Self {
        let mut sum = Self::default();
        slices.into_iter().for_each(|slice| sum.add(slice));
        sum
    }
}

/// One time that a lock was held.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Entry {
    /// When, in nanoseconds of the machine's monotonic clock, which all processes share.
    pub at: u64,
    /// How long it was waited for, in nanoseconds.
    pub waited: u64,
    /// Which process, or which task of a process that is alone.
    pub who: u32,
}

/// The loop of one task: counts its cycles until the slice is over.
#[derive(Debug)]
pub struct Turns {
    until: Instant,
    began: Option<Instant>,
    cycles: f64,
    all_cycles: f64,
    who: u32,
    entries: Option<Vec<Entry>>,
}

impl Turns {
    fn new(until: Instant, who: u32, notes_entries: bool) -> Self {
        Self {
            until,
            began: None,
            cycles: 0.0,
            all_cycles: 0.0,
            who,
            entries: notes_entries.then(Vec::new),
        }
    }

    /// Ends a cycle and begins the next one. False if the time is up.
    pub fn again(&mut self) -> bool {
        let now = Instant::now();
        if let Some(began) = self.began.take() {
            let within = self.until.saturating_duration_since(began);
            let share = within.as_secs_f64() / (now - began).as_secs_f64().max(1e-9);
            self.cycles += share.min(1.0);
            self.all_cycles += 1.0;
        }
        if now < self.until {
            self.began = Some(now);
        }
        self.began.is_some()
    }

    /// To be called while the lock is held.
    pub fn inside(&mut self) {
        let (Some(entries), Some(began)) = (&mut self.entries, self.began) else { return };
        let now = Instant::now();
        if now < self.until {
            let waited = u64::try_from((now - began).as_nanos()).unwrap_or(u64::MAX);
            entries.push(Entry { at: usage::monotonic(), waited, who: self.who });
        }
    }

    fn slice(self) -> Slice {
        let all_cycles = self.all_cycles;
        match self.entries {
            // Who waits in a queue has done no part of a cycle.
            Some(entries) => Slice { cycles: count(entries.len()), all_cycles, entries },
            None => Slice { cycles: self.cycles, all_cycles, entries: vec![] },
        }
    }
}

/// Runs this many tasks at once, each with its number.
pub fn in_tasks<Running>(
    tasks: u32,
    task: impl Fn(u32, Turns) -> Running + Send + Sync + 'static,
) -> impl Fn(Duration) -> BoxFuture<'static, Slice> + Send + Sync + 'static
where
    Running: Future<Output = Turns> + Send + 'static,
{
    spawn_all(tasks, false, task)
}

/// The same, with a note of each time that the lock is held.
pub fn in_tasks_with_entries<Running>(
    tasks: u32,
    task: impl Fn(u32, Turns) -> Running + Send + Sync + 'static,
) -> impl Fn(Duration) -> BoxFuture<'static, Slice> + Send + Sync + 'static
where
    Running: Future<Output = Turns> + Send + 'static,
{
    spawn_all(tasks, true, task)
}

fn spawn_all<Running>(
    tasks: u32,
    notes_entries: bool,
    task: impl Fn(u32, Turns) -> Running + Send + Sync + 'static,
) -> impl Fn(Duration) -> BoxFuture<'static, Slice> + Send + Sync + 'static
where
    Running: Future<Output = Turns> + Send + 'static,
{
    move |length| {
        let until = Instant::now() + length;
        let running = (0..tasks)
            .map(|number| tokio::spawn(task(number, Turns::new(until, number, notes_entries))));
        let running = join_all(running.collect::<Vec<_>>());
        async move {
            let ended = running.await.into_iter();
            ended.map(|turns| turns.expect("no panic").slice()).collect()
        }
        .boxed()
    }
}

/// A number of things, to calculate with.
#[must_use]
pub fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
