//! The next invoice number is the one after the last that was written, which is read under the lock.

use dlock_runtime::sim::Remote;
use dlock_runtime::{FencingToken, distributed_lock};

use crate::user_bugs::shop::{self, Failed, Stale};

#[derive(Debug, Default)]
struct Archive {
    numbers: Vec<u32>,
    newest: Option<FencingToken>,
}

impl Archive {
    fn fence(&mut self, token: FencingToken) -> Result<&mut Vec<u32>, Stale> {
        if self.newest > Some(token) {
            return Err(Stale);
        }
        self.newest = Some(token);
        Ok(&mut self.numbers)
    }
}

#[distributed_lock(key = "invoices", ttl = "1s", wait = "3s", backend = "redis", guard = lock)]
async fn write(archive: &Remote<Archive>) -> Result<(), Failed> {
    let token = lock.fencing_token();
    let last =
        move |archive: &mut Archive| archive.fence(token).map(|numbers| numbers.last().copied());
    let number = archive.call("the last number", last).await??.unwrap_or(0) + 1;
    let write =
        move |archive: &mut Archive| archive.fence(token).map(|numbers| numbers.push(number));
    archive.call(format!("write invoice {number}"), write).await??;
    Ok(())
}

pub async fn scenario() {
    let archive = Remote::new("archive", Archive::default());
    shop::on_servers(3, &archive, |archive, _| async move {
        write(&archive).await.ok();
        write(&archive).await.ok();
    })
    .await;
    archive.peek(|Archive { numbers, .. }| {
        assert!(numbers.iter().copied().eq((1..).take(numbers.len())), "numbers: {numbers:?}");
    });
}
