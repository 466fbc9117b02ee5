//! One run of the sale and its result.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use dlock_runtime::backend::Memory;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

use crate::event::{Command, Event, LINGER, Micros, Outcome, Told, now};
use crate::fleet::Server;
use crate::server::Duty;
use crate::store::Store;

/// The parameters of a sale.
pub struct Plan<'a> {
    pub backend: &'a str,
    /// The store of a backend that lives inside this process.
    pub memory: Option<&'a Memory>,
    pub ttl: Duration,
    pub servers: usize,
    pub customers: u32,
    pub stock: u64,
    pub folder: &'a Path,
}

/// What differs between the runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    WithoutLock,
    WithLock,
    /// With the lock; one server is killed and one paused beyond its ttl, both during a purchase.
    WithCrash,
}

/// One purchase on the timeline.
#[derive(Clone, Copy, Debug)]
pub struct Hold {
    pub server: usize,
    pub began: Micros,
    pub ended: Micros,
    pub outcome: Outcome,
}

/// The result of a run.
#[derive(Debug)]
pub struct Sale {
    pub kind: Kind,
    pub servers: usize,
    pub stock: u64,
    pub sold: u64,
    /// Writes that the store rejected because of their token.
    pub refused: usize,
    /// Purchases that did not get the lock.
    pub failed: usize,
    pub took: Duration,
    /// The longest time without service after a holder was killed or paused.
    pub longest_wait: Duration,
    /// How many crashes happened. A run without its crashes proves nothing.
    pub crashes: usize,
    pub holds: Vec<Hold>,
}

/// The upper bound for a run.
const LIMIT: Duration = Duration::from_mins(3);

/// The servers that are killed and paused in the run with a crash.
const KILLED: usize = 0;
const PAUSED: usize = 1;

/// The fewest servers of a run with a crash: one killed, one paused, one that continues.
pub const FEWEST_FOR_A_CRASH: usize = 3;

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::WithoutLock => "without_lock",
            Self::WithLock => "with_lock",
            Self::WithCrash => "with_crash",
        }
    }
}

impl Sale {
    pub fn oversold(&self) -> u64 {
        self.sold.saturating_sub(self.stock)
    }
}

/// Runs the sale.
pub async fn hold(plan: &Plan<'_>, kind: Kind, progress: impl Fn(usize)) -> Result<Sale> {
    let path = plan.folder.join(format!("{}-{}.sales", kind.name(), now()));
    let store = Store::open(path.clone(), plan.stock)?;
    let servers = match kind {
        Kind::WithCrash => plan.servers.max(FEWEST_FOR_A_CRASH),
        Kind::WithoutLock | Kind::WithLock => plan.servers,
    };
    let (inbox, events) = mpsc::unbounded_channel();
    let mut fleet = Vec::new();
    for (server, customers) in shares(plan.customers, servers).enumerate() {
        let duty = Duty {
            server,
            backend: plan.backend.to_owned(),
            store: path.clone(),
            stock: plan.stock,
            customers,
            locked: kind != Kind::WithoutLock,
        };
        fleet.push(Server::start(duty, plan.memory, inbox.clone())?);
    }
    drop(inbox);
    let mut run = Run::new(fleet, events, plan.ttl);
    match timeout(LIMIT, run.follow(kind, progress)).await {
        Ok(ended) => ended?,
        Err(_) => bail!("the sale did not finish within {LIMIT:?}"),
    }
    Ok(Sale {
        kind,
        servers,
        stock: plan.stock,
        sold: store.sold()?,
        refused: run.holds.iter().filter(|hold| hold.outcome == Outcome::Refused).count(),
        failed: run.failed,
        took: run.opened.elapsed(),
        longest_wait: run.longest_wait,
        crashes: run.crashes,
        holds: run.holds,
    })
}

/// Splits the customers into equal shares.
fn shares(customers: u32, servers: usize) -> impl Iterator<Item = std::ops::Range<u32>> {
    let servers = u32::try_from(servers).unwrap_or(u32::MAX);
    let border = move |server: u32| {
        u32::try_from(u64::from(customers) * u64::from(server) / u64::from(servers)).unwrap_or(0)
    };
    (0..servers).map(move |server| border(server)..border(server + 1))
}

/// A run in progress.
struct Run {
    ttl: Duration,
    fleet: Vec<Server>,
    events: mpsc::UnboundedReceiver<(usize, Option<Told>)>,
    opened: Instant,
    /// Purchases that have begun, by server and customer.
    open: HashMap<(usize, u32), Micros>,
    holds: Vec<Hold>,
    done: Vec<bool>,
    failed: usize,
    crashes: usize,
    /// The server that caused the current interruption, and when it began.
    out_of_service: Option<(usize, Micros)>,
    longest_wait: Duration,
}

impl Run {
    fn new(
        fleet: Vec<Server>,
        events: mpsc::UnboundedReceiver<(usize, Option<Told>)>,
        ttl: Duration,
    ) -> Self {
        Self {
            ttl,
            done: vec![false; fleet.len()],
            fleet,
            events,
            opened: Instant::now(),
            open: HashMap::new(),
            holds: Vec::new(),
            failed: 0,
            crashes: 0,
            out_of_service: None,
            longest_wait: Duration::ZERO,
        }
    }

    async fn follow(&mut self, kind: Kind, progress: impl Fn(usize)) -> Result<()> {
        let mut ready = 0;
        while ready < self.fleet.len() {
            if let Event::Ready = self.next().await?.1.event {
                ready += 1;
            }
        }
        self.opened = Instant::now();
        if kind == Kind::WithCrash {
            // One after the other, so that each server holds the lock when it is killed or paused.
            self.fleet[KILLED].tell(Command::Linger)?;
            self.fleet[KILLED].tell(Command::Open)?;
        } else {
            for server in &mut self.fleet {
                server.tell(Command::Open)?;
            }
        }
        while !self.done.iter().all(|&done| done) {
            let (server, told) = self.next().await?;
            self.take_in(server, told).await?;
            progress(self.holds.len());
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<(usize, Told)> {
        loop {
            match self.events.recv().await {
                Some((server, Some(told))) => return Ok((server, told)),
                // This server is done or was killed.
                Some((server, None)) if self.done[server] => {}
                Some((server, None)) => bail!("server {server} exited unexpectedly"),
                None => bail!("all servers have exited"),
            }
        }
    }

    async fn take_in(&mut self, server: usize, told: Told) -> Result<()> {
        if self.done[server] {
            // Sent before it was killed.
            return Ok(());
        }
        match told.event {
            Event::Began { customer } => {
                self.open.insert((server, customer), told.at);
                self.served_again(server, told.at);
            }
            Event::Ended { customer, began, outcome } => {
                self.open.remove(&(server, customer));
                self.holds.push(Hold { server, began, ended: told.at, outcome });
            }
            Event::Lingers { .. } => self.crash(server).await?,
            Event::Failed { .. } => self.failed += 1,
            Event::Done => self.done[server] = true,
            Event::Ready => {}
        }
        Ok(())
    }

    /// Kills or pauses a server that is in the middle of a purchase. The other servers are already
    /// waiting for the lock by then.
    async fn crash(&mut self, server: usize) -> Result<()> {
        self.crashes += 1;
        if server == PAUSED {
            for other in &mut self.fleet[PAUSED + 1..] {
                other.tell(Command::Open)?;
            }
            self.out_of_service = Some((server, now()));
            // Long enough for the others to continue first.
            return self.fleet[server].pause(self.ttl + Duration::from_millis(800));
        }
        self.fleet[PAUSED].tell(Command::Linger)?;
        self.fleet[PAUSED].tell(Command::Open)?;
        tokio::time::sleep(LINGER / 3).await;
        let at = now();
        self.out_of_service = Some((server, at));
        self.fleet[server].kill();
        self.done[server] = true;
        let began = self.open.extract_if(|(of, _), _| *of == server).map(|(_, began)| began);
        let ended = began.map(|began| Hold { server, began, ended: at, outcome: Outcome::Killed });
        self.holds.extend(ended);
        Ok(())
    }

    fn served_again(&mut self, server: usize, at: Micros) {
        if let Some((culprit, since)) = self.out_of_service
            && culprit != server
            && at > since
        {
            self.longest_wait = self.longest_wait.max(Duration::from_micros(at - since));
            self.out_of_service = None;
        }
    }
}
