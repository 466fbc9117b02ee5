//! Compile errors as users see them: one small file per mistake, with the exact message.
//!
//! The messages depend on the compiler, which `rust-toolchain.toml` pins. After an intended change,
//! regenerate them with `TRYBUILD=overwrite` and review the difference.
//!
//! Code that compiles is tested separately, in `pass`. As long as no such file is among the cases,
//! trybuild checks all of them with a single `cargo check`.

#[test]
fn mistakes_are_explained() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
