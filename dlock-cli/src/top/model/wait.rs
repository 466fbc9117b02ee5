//! Who waits, from one sample to the next.

use dlock_runtime::ClientInfo;
use dlock_runtime::backend::{LockState, Waiter};

use super::site_of;

/// One that waits.
#[derive(Clone, Debug)]
pub struct Wait<'a> {
    /// The same in all samples of this wait.
    pub id: String,
    /// The site that waits.
    pub site: &'a str,
}

/// Those that wait in this sample.
pub fn of(lock: &LockState) -> Vec<Wait<'_>> {
    let waiters = lock.waiters.iter().enumerate();
    waiters.map(|(position, waiter)| wait(waiter, position)).collect()
}

/// Waiters that do not use dlock have no owner id.
fn wait(waiter: &Waiter, position: usize) -> Wait<'_> {
    let client = waiter.client_info.as_ref();
    let owner = waiter.owner.map(|owner| owner.to_string());
    let id = owner.or_else(|| client.map(ClientInfo::to_text));
    Wait { id: id.unwrap_or_else(|| position.to_string()), site: site_of(client) }
}
