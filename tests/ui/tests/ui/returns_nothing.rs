use dlock_runtime::distributed_lock;

#[distributed_lock(key = "product:<id>")]
async fn purchase(id: u64) {
    println!("{id}");
}

fn main() {}
