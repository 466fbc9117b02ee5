//! A document in two parts. Writers replace both under an exclusive lock, readers read them one after the other under a
//! shared one, and all of them present their tokens.

use dlock_runtime::sim::Remote;
use dlock_runtime::{FencingToken, distributed_lock};

use crate::user_bugs::shop::{self, Failed, Stale};

#[derive(Debug, Default)]
struct Document {
    title: u32,
    text: u32,
    /// The newest token of a writer, and that of anybody.
    written: Option<FencingToken>,
    seen: Option<FencingToken>,
}

impl Document {
    /// A reader is late if there was a later writer.
    fn read(&mut self, token: FencingToken) -> Result<(u32, u32), Stale> {
        if self.written > Some(token) {
            return Err(Stale);
        }
        self.seen = self.seen.max(Some(token));
        Ok((self.title, self.text))
    }

    /// A writer is late if there was anybody later.
    fn write(&mut self, version: u32, token: FencingToken) -> Result<(), Stale> {
        if self.seen > Some(token) {
            return Err(Stale);
        }
        (self.seen, self.written) = (Some(token), Some(token));
        (self.title, self.text) = (version, version);
        Ok(())
    }
}

#[distributed_lock(key = "document", ttl = "1s", wait = "3s", backend = "redis", guard = lock)]
async fn write(document: &Remote<Document>, version: u32) -> Result<(), Failed> {
    let token = lock.fencing_token();
    let write = move |document: &mut Document| document.write(version, token);
    document.call(format!("write version {version}"), write).await??;
    Ok(())
}

#[distributed_lock(
    key = "document", ttl = "1s", wait = "3s", mode = "shared", backend = "redis", guard = lock
)]
async fn read(document: &Remote<Document>) -> Result<(u32, u32), Failed> {
    let token = lock.fencing_token();
    let (title, _) =
        document.call("read the title", move |document| document.read(token)).await??;
    let (_, text) = document.call("read the text", move |document| document.read(token)).await??;
    Ok((title, text))
}

pub async fn scenario() {
    let document = Remote::new("file store", Document::default());
    shop::on_servers(4, &document, |document, number| async move {
        if number % 2 == 0 {
            let version = u32::try_from(number).expect("a few servers") + 1;
            write(&document, version).await.ok();
        } else if let Ok((title, text)) = read(&document).await {
            assert_eq!(title, text, "a reader saw half a write");
        }
    })
    .await;
}
