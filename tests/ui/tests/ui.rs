//! What a user reads who has made a mistake: one small file for each, with the exact message.
//!
//! The messages depend on the compiler, which `rust-toolchain.toml` pins. After a deliberate change
//! write them anew with `TRYBUILD=overwrite`, and read them.
//!
//! What compiles is a test of its own each, in `pass`: without one among the cases, trybuild hands
//! all of them to one `cargo check`.

#[test]
fn mistakes_are_explained() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
