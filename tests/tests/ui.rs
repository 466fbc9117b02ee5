//! What a user reads who has made a mistake: one small file for each, with the exact message.
//!
//! The messages depend on the compiler, which `rust-toolchain.toml` pins. After a deliberate change
//! write them anew with `TRYBUILD=overwrite`, and read them.

#[test]
fn mistakes_are_explained() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/*.rs");
}
