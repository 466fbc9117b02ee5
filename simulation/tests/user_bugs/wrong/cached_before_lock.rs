//! Under the lock, the service looks at a plan of the hall that it has loaded before.

use dlock_runtime::distributed_lock;
use dlock_runtime::sim::Remote;

use crate::user_bugs::hall::{self, Hall};
use crate::user_bugs::shop::{self, Failed};

struct BoxOffice {
    hall: Remote<Hall>,
    /// Loaded when the service starts.
    free: Vec<u32>,
}

impl BoxOffice {
    async fn open(hall: &Remote<Hall>) -> Result<Self, Failed> {
        let load = |hall: &mut Hall| (1..4).filter(|seat| hall.is_free(*seat)).collect();
        let free = hall.call("load the plan", load).await?;
        Ok(Self { hall: hall.clone(), free })
    }

    #[distributed_lock(key = "seat:<seat>", ttl = "1s", wait = "2s", backend = "redis")]
    async fn book(&self, seat: u32, guest: usize) -> Result<(), Failed> {
        if self.free.contains(&seat) {
            let give = move |hall: &mut Hall| hall.give(seat, guest);
            self.hall.call(format!("give seat {seat} to guest {guest}"), give).await?;
        }
        Ok(())
    }
}

pub async fn scenario() {
    let hall = hall::open();
    shop::on_servers(3, &hall, |hall, guest| async move {
        let office = BoxOffice::open(&hall).await?;
        office.book(1, guest).await
    })
    .await;
    hall::check(&hall);
}
