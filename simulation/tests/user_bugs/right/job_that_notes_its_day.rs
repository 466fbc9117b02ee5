//! A scheduled job that holds its lock until every clock shows its time, and notes in the store, fenced, that it has begun:
//! if it is killed then, no other server repeats it.

use std::time::Duration;

use dlock_runtime::sim::{self, Remote};
use dlock_runtime::{FencingToken, distributed_lock};

use crate::user_bugs::shop::{self, Failed, Stale};

#[derive(Debug, Default)]
struct Days {
    begun: Vec<u32>,
    newest: Option<FencingToken>,
}

impl Days {
    /// Returns whether this is the first time.
    fn begin(&mut self, day: u32, token: FencingToken) -> Result<bool, Stale> {
        if self.newest > Some(token) {
            return Err(Stale);
        }
        self.newest = Some(token);
        let is_first = !self.begun.contains(&day);
        self.begun.push(day);
        Ok(is_first)
    }
}

#[derive(Clone)]
struct Hosts {
    database: Remote<Days>,
    mails: Remote<u32>,
}

#[distributed_lock(
    key = "newsletter",
    ttl = "2s",
    wait = "0s",
    on_busy = "skip",
    min_hold = "1s",
    backend = "redis",
    guard = lock
)]
async fn newsletter(hosts: &Hosts, day: u32) -> Result<(), Failed> {
    let token = lock.fencing_token();
    let begin = move |days: &mut Days| days.begin(day, token);
    if hosts.database.call(format!("begin day {day}"), begin).await?? {
        hosts.mails.call("send the newsletter", |sent| *sent += 1).await?;
    }
    Ok(())
}

pub async fn scenario() {
    let hosts = Hosts {
        database: Remote::new("database", Days::default()),
        mails: Remote::new("mail server", 0),
    };
    let mails = hosts.mails.clone();
    shop::on_servers(3, &mails, |_, _| {
        let hosts = hosts.clone();
        async move {
            tokio::time::sleep(Duration::from_millis(sim::random(50) as u64)).await;
            newsletter(&hosts, 1).await.ok();
        }
    })
    .await;
    let sent = mails.peek(|sent| *sent);
    assert!(sent < 2, "the newsletter was sent {sent} times");
}
