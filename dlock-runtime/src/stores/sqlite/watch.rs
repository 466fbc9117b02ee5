//! Notices releases by other processes.

use std::time::Duration;

use super::Sqlite;
use crate::backend::{Answer, Watch};
use crate::error::BackendError;
use crate::key::LockKey;

/// Looks at the file's version when the file was written to, and from time to time.
pub(super) struct FileWatch {
    pub(super) sqlite: Sqlite,
    pub(super) key: LockKey,
    pub(super) version: i64,
    /// The holders of the key when it was last looked at.
    pub(super) seen: Vec<u64>,
    pub(super) pauses: Pauses,
}

/// How long to wait before the next look if nothing is heard.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pauses {
    first: Duration,
    /// They double up to this.
    longest: Duration,
}

/// The shortest pause between two looks that found nothing, so that a file which is written to all the time does not
/// occupy a core.
const SHORTEST: Duration = Duration::from_micros(500);

impl Pauses {
    /// Where writes are notified, looks without a notification only bound the harm if one is lost.
    pub(super) const fn new(is_notified: bool) -> Self {
        Self { first: SHORTEST, longest: Duration::from_millis(if is_notified { 100 } else { 10 }) }
    }
}

impl FileWatch {
    async fn wait(&mut self) -> Result<(), BackendError> {
        let sqlite = self.sqlite.clone();
        let mut pause = self.pauses.first;
        loop {
            // Before the look, so that no write after it is missed.
            let written = sqlite.next_write();
            if self.look().await? {
                return Ok(());
            }
            let limit = pause.mul_f64(rand::random_range(0.7..=1.0));
            if tokio::time::timeout(limit, written).await.is_err() {
                pause = (pause * 2).min(self.pauses.longest);
            } else if self.look().await? {
                return Ok(());
            } else {
                // Another key, or the notification came before the commit was complete.
                tokio::time::sleep(SHORTEST).await;
                pause = SHORTEST;
            }
        }
    }

    /// Whether a holder is gone.
    async fn look(&mut self) -> Result<bool, BackendError> {
        let version = self.sqlite.version().await?;
        if version == self.version {
            return Ok(false);
        }
        // Something changed, perhaps another key: read the holders of this one.
        let holders = self.sqlite.holders(&self.key).await?;
        self.version = version;
        let one_less = self.seen.iter().any(|one| !holders.contains(one));
        self.seen = holders;
        Ok(one_less || self.seen.is_empty())
    }
}

impl Watch for FileWatch {
    fn changed(&mut self) -> Answer<'_, ()> {
        Answer::from_future(async {
            if self.wait().await.is_err() {
                // The file cannot be read now. The engine still polls on its own.
                std::future::pending::<()>().await;
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{AsyncBackend as _, Claim, Release};

    /// Nothing is looked at before the first notification.
    const AFTER_AN_HOUR: Pauses =
        Pauses { first: Duration::from_hours(1), longest: Duration::from_hours(1) };

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_release_by_another_process_is_notified() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("locks.db"), folder.path().join("link.db"));
        let theirs = Sqlite::connect(&format!("sqlite:{}", file.display())).await.unwrap();
        std::os::unix::fs::symlink(file, &link).unwrap();
        let ours = Sqlite::connect(&format!("sqlite:{}", link.display())).await.unwrap();
        for round in 0..200 {
            let claim = Claim::new("k".into(), Duration::from_mins(1));
            theirs.try_acquire(&claim).await.unwrap();
            let mut watch = ours.file_watch(&claim.key).await.unwrap();
            watch.pauses = AFTER_AN_HOUR;
            let release = async {
                // Sometimes before the first look, sometimes after it.
                for _ in 0..round % 7 {
                    tokio::task::yield_now().await;
                }
                theirs.release(&claim, Release::default()).await.unwrap();
            };
            let both = async { tokio::join!(watch.wait(), release).0 };
            let limit = Duration::from_secs(20);
            tokio::time::timeout(limit, both).await.expect("it is notified").unwrap();
        }
    }
}
