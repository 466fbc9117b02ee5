use dlock_runtime::assert_locked;

fn set_stock(id: u64) {
    assert_locked!();
    assert_locked!("product:<id");
    assert_locked!("product:<order>");
    assert_locked!("product:<id>", mode = "read");
    assert_locked!("product:<id>", ttl = "5s");
    assert_locked!(7);
}

fn main() {}
