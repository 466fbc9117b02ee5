use dlock_runtime::{LockError, distributed_lock};

struct Shop(String);

impl Shop {
    fn into_name(self) -> String {
        self.0
    }

    #[distributed_lock(key = "shop:<self.into_name()>")]
    async fn close(self) -> Result<usize, LockError> {
        Ok(self.0.len())
    }
}

fn main() {}
