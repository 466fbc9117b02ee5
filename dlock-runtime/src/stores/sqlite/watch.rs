//! Notices releases by other processes.

use std::time::Duration;

use super::Sqlite;
use crate::backend::{Answer, Watch};
use crate::error::BackendError;
use crate::key::LockKey;

/// Polls the file's version with growing pauses, because SQLite sends no notifications.
pub(super) struct FileWatch {
    pub(super) sqlite: Sqlite,
    pub(super) key: LockKey,
    pub(super) version: i64,
    /// The holders of the key at the last poll.
    pub(super) seen: Vec<u64>,
}

impl FileWatch {
    const FIRST_PAUSE: Duration = Duration::from_micros(500);
    const LONGEST_PAUSE: Duration = Duration::from_millis(10);

    async fn wait(&mut self) -> Result<(), BackendError> {
        let mut pause = Self::FIRST_PAUSE;
        loop {
            let version = self.sqlite.version().await?;
            if version != self.version {
                // Something changed, perhaps another key: read the holders of this one.
                let holders = self.sqlite.holders(&self.key).await?;
                self.version = version;
                let one_less = self.seen.iter().any(|one| !holders.contains(one));
                self.seen = holders;
                if one_less || self.seen.is_empty() {
                    return Ok(());
                }
            }
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.7..=1.0))).await;
            pause = (pause * 2).min(Self::LONGEST_PAUSE);
        }
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
