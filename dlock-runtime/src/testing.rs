//! The conformance suite: checks every safety rule of dlock against any [`Backend`].
//!
//! One call runs it. The bundled backends are tested in the same way:
//!
//! ```
//! use dlock_runtime::{backend::Memory, testing::Suite};
//!
//! # #[tokio::main]
//! # async fn main() {
//! let store = Memory::new();
//! let report = Suite::new(move || {
//!     let store = store.clone();
//!     async move { Ok(store) }
//! })
//! .only(&["only_the_owner_releases", "tokens_grow_with_every_grant"])
//! .run()
//! .await;
//! report.assert_passed();
//! # }
//! ```
//!
//! The suite calls the connector many times. Every backend it returns stands for another process that
//! uses the same store. The suite does not test faults of real processes and servers (SIGKILL, SIGSTOP,
//! a restart during a hold). The package `tests` of the repository shows how to test those.

mod assumed;
mod context;
mod intercepted;
mod rules;
mod steps;

use std::fmt;
use std::sync::Arc;

use futures_util::future::{BoxFuture, join_all};

pub use self::assumed::assume_locked;
pub(crate) use self::assumed::is_assumed;
pub use self::context::Context;
use self::context::LIMIT;
pub use self::intercepted::{Call, Intercepted};
pub use self::steps::{Steps, step};
use crate::backend::{Backend, Capabilities};
use crate::error::BackendError;

/// The result of a rule. An error describes what is wrong.
pub(crate) type Finding = Result<(), String>;

pub(crate) type Connector =
    Arc<dyn Fn() -> BoxFuture<'static, Result<Box<dyn Backend>, BackendError>> + Send + Sync>;

/// A rule of the suite.
#[derive(Clone, Copy)]
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    /// Returns true if the rule applies to a backend with these capabilities.
    pub(crate) concerns: fn(&Capabilities) -> bool,
    pub(crate) check: fn(Context) -> BoxFuture<'static, Finding>,
}

/// The conformance suite for one store.
#[must_use = "a suite does nothing before `run`"]
pub struct Suite {
    connector: Connector,
    only: Option<Vec<String>>,
}

impl Suite {
    /// Creates a suite for the store that the connector connects to.
    pub fn new<C, F, B>(connector: C) -> Self
    where
        C: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<B, BackendError>> + Send + 'static,
        B: Backend,
    {
        let connector: Connector = Arc::new(move || {
            let connecting = connector();
            Box::pin(async move {
                let backend: Box<dyn Backend> = Box::new(connecting.await?);
                Ok(backend)
            })
        });
        Self { connector, only: None }
    }

    /// Restricts the suite to the rules with these names.
    pub fn only(mut self, names: &[&str]) -> Self {
        self.only = Some(names.iter().map(|&name| name.to_owned()).collect());
        self
    }

    /// Returns the names of all rules.
    #[must_use]
    pub fn rules() -> Vec<&'static str> {
        rules::batches().concat().into_iter().map(|rule| rule.name).collect()
    }

    /// Runs the rules that apply to this backend, several at a time, each with its own keys.
    ///
    /// The rules about shared locks, permits and fairness run only if the backend declares the capability, see
    /// [`Capabilities`].
    pub async fn run(self) -> Report {
        let capabilities = match (self.connector)().await {
            Ok(backend) => backend.capabilities(),
            Err(error) => {
                let finding = Err(format!("could not connect: {error}"));
                return Report { findings: vec![("connecting", finding)] };
            }
        };
        let mut findings = Vec::new();
        for batch in rules::batches() {
            let wanted =
                batch.into_iter().filter(|rule| (rule.concerns)(&capabilities)).filter(|rule| {
                    match &self.only {
                        Some(names) => names.iter().any(|name| name == rule.name),
                        None => true,
                    }
                });
            findings.extend(join_all(wanted.map(|rule| self.check(rule))).await);
        }
        Report { findings }
    }

    async fn check(&self, rule: Rule) -> (&'static str, Finding) {
        let context = Context::new(rule.name, Arc::clone(&self.connector));
        // In its own task, so that a panic is a finding and no rule inherits the task-locals of another.
        let task = tokio::spawn((rule.check)(context));
        let abort = task.abort_handle();
        let finding = match tokio::time::timeout(LIMIT, task).await {
            Ok(Ok(finding)) => finding,
            Ok(Err(failed)) => Err(format!("panicked: {failed}")),
            Err(_) => {
                abort.abort();
                Err(format!("did not finish within {LIMIT:?}"))
            }
        };
        (rule.name, finding)
    }
}

impl fmt::Debug for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Suite").field("only", &self.only).finish_non_exhaustive()
    }
}

/// The findings of the suite.
#[derive(Clone, Debug)]
pub struct Report {
    findings: Vec<(&'static str, Finding)>,
}

impl Report {
    /// Returns the broken rules, each with a description of what is wrong.
    pub fn broken(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.findings
            .iter()
            .filter_map(|(name, finding)| Some((*name, finding.as_ref().err()?.as_str())))
    }

    /// Returns the number of checked rules.
    #[must_use]
    pub fn checked(&self) -> usize {
        self.findings.len()
    }

    /// Asserts that at least one rule was checked and none is broken.
    ///
    /// # Panics
    /// If a rule is broken, with a list of all broken rules, or if no rule was checked.
    pub fn assert_passed(&self) {
        assert!(self.checked() > 0, "no rule was checked");
        assert!(self.broken().next().is_none(), "{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let broken = self.broken().count();
        write!(f, "{} rules checked, {broken} broken", self.checked())?;
        for (name, finding) in self.broken() {
            write!(f, "\n  {name}: {finding}")?;
        }
        Ok(())
    }
}
