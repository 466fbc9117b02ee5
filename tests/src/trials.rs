//! Tests that are registered at run time. A test whose server is not installed is shown as ignored,
//! with the reason, or fails if servers are required (`DLOCK_REQUIRE_SERVERS=1`, set by
//! `tests/run`).

use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};

use tokio::time::timeout;

use crate::servers::installed;

/// The time limit of each test.
const LIMIT: Duration = Duration::from_mins(5);

/// The tests of one binary.
#[derive(Default)]
pub struct Trials {
    all: Vec<Trial>,
    left_out: Vec<(String, &'static str)>,
    module: Option<&'static str>,
    threads: Option<usize>,
    before: Option<fn()>,
}

impl std::fmt::Debug for Trials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trials").field("left_out", &self.left_out).finish_non_exhaustive()
    }
}

impl Trials {
    /// Creates a collection whose tests each call `before` first. `before` has no time limit, and
    /// does not run if no test does.
    #[must_use]
    pub fn after(before: fn()) -> Self {
        Self { before: Some(before), ..Self::default() }
    }

    /// Adds a test that needs no server.
    pub fn add<F>(&mut self, name: impl Into<String>, test: fn() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let before = self.before;
        self.all.push(Trial::test(self.full(name), move || {
            if let Some(before) = before {
                before();
            }
            run(test)
        }));
    }

    /// Adds a test that needs this program.
    pub fn needs<F>(&mut self, program: &'static str, name: impl Into<String>, test: fn() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if installed(program) {
            self.add(name, test);
            return;
        }
        let name = self.full(name);
        if std::env::var_os("DLOCK_REQUIRE_SERVERS").is_some() {
            let problem = format!("{program} is not installed");
            self.all.push(Trial::test(name, move || Err(Failed::from(problem))));
        } else {
            self.left_out.push((name.clone(), program));
            let ignored = Trial::test(name, || Ok(())).with_kind(format!("needs {program}"));
            self.all.push(ignored.with_ignored_flag(true));
        }
    }

    /// Adds a module's tests, with the module's name as a prefix.
    pub fn module(&mut self, name: &'static str, add: fn(&mut Self)) {
        self.module = Some(name);
        add(self);
        self.module = None;
    }

    /// Runs this many tests at a time unless the command line sets a number. For tests that wait
    /// more than they compute.
    pub fn side_by_side(&mut self, threads: usize) {
        self.threads = Some(threads);
    }

    fn full(&self, name: impl Into<String>) -> String {
        let name = name.into();
        match self.module {
            Some(module) => format!("{module}::{name}"),
            None => name,
        }
    }

    /// Runs the tests.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let mut arguments = Arguments::from_args();
        arguments.test_threads = arguments.test_threads.or(self.threads);
        let conclusion = libtest_mimic::run(&arguments, self.all);
        if !self.left_out.is_empty() && !arguments.list {
            let mut programs: Vec<_> = self.left_out.iter().map(|(_, program)| *program).collect();
            programs.sort_unstable();
            programs.dedup();
            println!(
                "skipped {} tests because these are not installed: {} (tests/run installs them)",
                self.left_out.len(),
                programs.join(", ")
            );
        }
        conclusion.exit_code()
    }
}

fn run<F: Future<Output = ()> + Send + 'static>(test: fn() -> F) -> Result<(), Failed> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(async { timeout(LIMIT, tokio::spawn(test())).await });
    ended.map_err(|_| format!("the test did not finish within {LIMIT:?}"))??;
    Ok(())
}
