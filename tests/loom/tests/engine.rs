//! Runs every check, each as a test of its own.

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let trial = |(name, check): (&'static str, fn())| {
        Trial::test(name, move || {
            check();
            Ok(())
        })
    };
    let trials = dlock_loom::checks::all().into_iter().map(trial).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
