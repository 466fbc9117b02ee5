//! The limit of a store: the least that any client could send for a lock. An acquire is one plain write, a release another
//! one; no token, no owner that is compared, nobody who is told.

// Without any of these stores, there is nothing to measure, and nothing to wait for.
#![cfg_attr(
    not(any(feature = "redis", feature = "sqlite", feature = "postgres", feature = "mysql")),
    allow(dead_code, unused_imports)
)]
#![cfg_attr(
    not(any(feature = "sqlite", feature = "postgres", feature = "mysql")),
    allow(clippy::unused_async)
)]

#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod rows;

use std::fmt::Display;
use std::time::Duration;

use tokio::task::JoinSet;

use super::pace::{Pace, all, timed};

/// Why it could not be measured.
#[derive(Debug)]
pub struct Unmeasured(pub String);

impl<E: Display> From<E> for Unmeasured {
    fn from(error: E) -> Self {
        // The rest may be a whole page.
        Self(error.to_string().lines().next().unwrap_or_default().to_owned())
    }
}

/// Plain requests to a store, of tasks with a key each.
trait Requests: Clone + Send + Sync + 'static {
    const WHAT: &'static str;

    fn read(&self, task: usize) -> impl Future<Output = Result<(), Unmeasured>> + Send;

    fn write_twice(&self, task: usize) -> impl Future<Output = Result<(), Unmeasured>> + Send;
}

/// A store whose plain requests are known.
pub enum Limit {
    #[cfg(feature = "redis")]
    Redis(redis::Commands),
    #[cfg(feature = "sqlite")]
    Sqlite(rows::Sqlite),
    #[cfg(feature = "postgres")]
    Postgres(rows::Postgres),
    #[cfg(feature = "mysql")]
    MySql(rows::MySql),
}

/// Does this with the requests of the store.
macro_rules! with_requests {
    ($limit:expr, $requests:ident => $do:expr) => {
        match *$limit {
            #[cfg(feature = "redis")]
            Limit::Redis(ref $requests) => $do,
            #[cfg(feature = "sqlite")]
            Limit::Sqlite(ref $requests) => $do,
            #[cfg(feature = "postgres")]
            Limit::Postgres(ref $requests) => $do,
            #[cfg(feature = "mysql")]
            Limit::MySql(ref $requests) => $do,
        }
    };
}

impl Limit {
    /// For so many tasks.
    #[allow(unused_variables)] // Some stores need less.
    pub async fn connect(url: &str, prefix: &str, tasks: usize) -> Result<Self, Unmeasured> {
        match url.split(':').next().unwrap_or_default() {
            #[cfg(feature = "redis")]
            "redis" | "rediss" => Ok(Self::Redis(redis::Commands::connect(url, prefix).await?)),
            #[cfg(feature = "sqlite")]
            "sqlite" => Ok(Self::Sqlite(rows::Sqlite::connect(url, prefix, tasks).await?)),
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => {
                Ok(Self::Postgres(rows::Postgres::connect(url, prefix, tasks).await?))
            }
            #[cfg(feature = "mysql")]
            "mysql" | "mariadb" => Ok(Self::MySql(rows::MySql::connect(url, prefix, tasks).await?)),
            _ => Err(Unmeasured::from("compare with the read, which is one round trip")),
        }
    }

    /// What is sent.
    pub fn what(&self) -> &'static str {
        with_requests!(self, requests => what_of(requests))
    }

    #[allow(unused_variables)] // Without any store.
    pub async fn reads(&self, pace: &Pace) -> Result<Vec<Duration>, Unmeasured> {
        with_requests!(self, requests => reads(requests, pace).await)
    }

    /// Pairs of writes by so many tasks.
    #[allow(unused_variables)] // Without any store.
    pub async fn pairs(&self, tasks: usize, pace: &Pace) -> Result<Vec<Duration>, Unmeasured> {
        with_requests!(self, requests => pairs(requests, tasks, pace).await)
    }
}

/// Deletes what is left of these keys. Other stores keep nothing of a lock that was released.
#[allow(unused_variables)] // Some stores need less.
pub async fn clean_up(url: &str, prefix: &str) -> Result<(), Unmeasured> {
    match url.split(':').next().unwrap_or_default() {
        #[cfg(feature = "sqlite")]
        "sqlite" => rows::Sqlite::clean_up(url, prefix).await,
        #[cfg(feature = "postgres")]
        "postgres" | "postgresql" => rows::Postgres::clean_up(url, prefix).await,
        #[cfg(feature = "mysql")]
        "mysql" | "mariadb" => rows::MySql::clean_up(url, prefix).await,
        _ => Ok(()),
    }
}

fn what_of<R: Requests>(_: &R) -> &'static str {
    R::WHAT
}

async fn reads(requests: &impl Requests, pace: &Pace) -> Result<Vec<Duration>, Unmeasured> {
    let mut tasks = JoinSet::new();
    let (requests, pace) = (requests.clone(), pace.clone());
    tasks.spawn(async move { timed(&pace, || requests.read(0)).await });
    all(tasks).await
}

async fn pairs(
    requests: &impl Requests,
    tasks: usize,
    pace: &Pace,
) -> Result<Vec<Duration>, Unmeasured> {
    let mut pairs = JoinSet::new();
    for task in 0..tasks {
        let (requests, pace) = (requests.clone(), pace.clone());
        pairs.spawn(async move { timed(&pace, || requests.write_twice(task)).await });
    }
    all(pairs).await
}
