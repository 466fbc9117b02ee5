//! A scheduled job that ends before the clocks of other servers show its time: it runs there again.

use std::time::Duration;

use dlock_runtime::distributed_lock;
use dlock_runtime::sim::{self, Remote};

use crate::user_bugs::shop::{self, Failed};

#[distributed_lock(
    key = "newsletter",
    ttl = "10s",
    wait = "0s",
    on_busy = "skip",
    backend = "redis"
)]
async fn newsletter(mails: &Remote<u32>) -> Result<(), Failed> {
    mails.call("send the newsletter", |sent| *sent += 1).await?;
    Ok(())
}

pub async fn scenario() {
    let mails = Remote::new("mail server", 0);
    shop::on_servers(2, &mails, |mails, _| async move {
        // Each server starts it when its own clock shows 3:00.
        tokio::time::sleep(Duration::from_millis(sim::random(50) as u64)).await;
        newsletter(&mails).await.ok();
    })
    .await;
    let sent = mails.peek(|sent| *sent);
    assert!(sent < 2, "the newsletter was sent {sent} times");
}
