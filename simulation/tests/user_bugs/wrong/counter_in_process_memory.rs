//! The next invoice number is kept in the memory of each process.

use std::sync::atomic::{AtomicU32, Ordering};

use dlock_runtime::distributed_lock;
use dlock_runtime::sim::Remote;

use crate::user_bugs::shop::{self, Failed};

struct Invoices {
    archive: Remote<Vec<u32>>,
    next: AtomicU32,
}

impl Invoices {
    async fn open(archive: &Remote<Vec<u32>>) -> Result<Self, Failed> {
        let last = archive.call("the last number", |invoices| invoices.last().copied()).await?;
        Ok(Self { archive: archive.clone(), next: AtomicU32::new(last.unwrap_or(0) + 1) })
    }

    #[distributed_lock(key = "invoices", ttl = "1s", wait = "2s", backend = "redis")]
    async fn write(&self) -> Result<(), Failed> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let write = move |invoices: &mut Vec<u32>| invoices.push(number);
        self.archive.call(format!("write invoice {number}"), write).await?;
        Ok(())
    }
}

pub async fn scenario() {
    let archive = Remote::new("archive", Vec::new());
    shop::on_servers(2, &archive, |archive, _| async move {
        let invoices = Invoices::open(&archive).await?;
        invoices.write().await?;
        invoices.write().await
    })
    .await;
    archive.peek(|numbers| {
        numbers.sort_unstable();
        assert!(
            numbers.is_sorted_by(|one, next| one < next),
            "numbers are used twice: {numbers:?}"
        );
    });
}
