//! One lock covers the check, another one what is done about it.

use dlock_runtime::distributed_lock;
use dlock_runtime::sim::Remote;

use crate::user_bugs::hall::{self, Hall};
use crate::user_bugs::shop::{self, Failed};

#[distributed_lock(key = "seat:<seat>", ttl = "1s", wait = "2s", backend = "redis")]
async fn is_free(hall: &Remote<Hall>, seat: u32) -> Result<bool, Failed> {
    Ok(hall.call(format!("is seat {seat} free?"), move |hall| hall.is_free(seat)).await?)
}

#[distributed_lock(key = "seat:<seat>", ttl = "1s", wait = "2s", backend = "redis")]
async fn give(hall: &Remote<Hall>, seat: u32, guest: usize) -> Result<(), Failed> {
    let give = move |hall: &mut Hall| hall.give(seat, guest);
    Ok(hall.call(format!("give seat {seat} to guest {guest}"), give).await?)
}

async fn book(hall: &Remote<Hall>, guest: usize) -> Result<(), Failed> {
    for seat in 1..4 {
        if is_free(hall, seat).await? {
            return give(hall, seat, guest).await;
        }
    }
    Ok(())
}

pub async fn scenario() {
    let hall = hall::open();
    shop::on_servers(3, &hall, |hall, guest| async move { book(&hall, guest).await }).await;
    hall::check(&hall);
}
