//! One lock covers the check and what is done about it, and both present the fencing token.

use dlock_runtime::distributed_lock;
use dlock_runtime::sim::Remote;

use crate::user_bugs::hall::{self, Hall};
use crate::user_bugs::shop::{self, Failed};

#[distributed_lock(
    key = "seat:<seat>", ttl = "1s", wait = "3s", backend = "redis", guard = lock
)]
async fn book(hall: &Remote<Hall>, seat: u32, guest: usize) -> Result<bool, Failed> {
    let token = lock.fencing_token();
    let check = move |hall: &mut Hall| hall.fence(seat, token).map(|()| hall.is_free(seat));
    if !hall.call(format!("is seat {seat} free?"), check).await?? {
        return Ok(false);
    }
    let give = move |hall: &mut Hall| hall.fence(seat, token).map(|()| hall.give(seat, guest));
    hall.call(format!("give seat {seat} to guest {guest}"), give).await??;
    Ok(true)
}

pub async fn scenario() {
    let hall = hall::open();
    shop::on_servers(3, &hall, |hall, guest| async move {
        for seat in 1..4 {
            if book(&hall, seat, guest).await.unwrap_or(false) {
                break;
            }
        }
    })
    .await;
    hall::check(&hall);
}
