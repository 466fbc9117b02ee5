//! The rows of the benchmark: what they compare, what they need, what they are to reach.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use serde::Serialize;

use crate::figure::Unit;
use crate::outcome::Outcome;

/// How much time a run takes.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many times each contender runs.
    pub rounds: u32,
    /// For how long each time.
    pub slice: Duration,
    /// A short run: fewer leases and keys, shorter windows.
    pub is_quick: bool,
    /// For how long leases are held.
    pub window: Duration,
    /// A million keys for what is left in the store.
    pub all_leftovers: bool,
}

/// The parts of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Nobody else wants the lock.
    Alone,
    /// The same, with a server that is further away.
    Distant,
    /// Everybody wants the same lock.
    Contended,
    /// Many locks are held or waited for, and nothing changes.
    Idle,
    /// What stays in a store when all locks are released.
    Leftovers,
}

impl Family {
    /// All families, in the order of the report.
    pub const ALL: [Self; 5] =
        [Self::Alone, Self::Distant, Self::Contended, Self::Idle, Self::Leftovers];

    /// The heading.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Alone => "A key for each task",
            Self::Distant => "A key for each task, 2 ms away",
            Self::Contended => "One key for all",
            Self::Idle => "Held and waiting",
            Self::Leftovers => "Left in the store",
        }
    }
}

/// What a row is to reach.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    /// dlock does at least this many times the cycles of the contender with this name.
    Ratio {
        /// The other contender.
        to: &'static str,
        /// The least.
        least: f64,
    },
    /// A figure of dlock's is at most this.
    AtMost {
        /// The figure.
        figure: &'static str,
        /// The most.
        most: f64,
        /// Its unit.
        unit: Unit,
    },
}

type Run = Box<dyn Fn(Plan) -> BoxFuture<'static, Outcome> + Send + Sync>;

/// One row.
pub struct Row {
    /// Its name on the command line.
    pub id: String,
    /// What it measures.
    pub title: String,
    /// The part of the report.
    pub family: Family,
    /// The programs that must be installed.
    pub needs: Vec<&'static str>,
    /// What it is to reach.
    pub goals: Vec<Goal>,
    run: Run,
}

impl fmt::Debug for Row {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Row").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Row {
    /// A row that is measured by this.
    pub fn new<Running>(
        family: Family,
        id: impl Into<String>,
        title: impl Into<String>,
        run: impl Fn(Plan) -> Running + Send + Sync + 'static,
    ) -> Self
    where
        Running: Future<Output = Outcome> + Send + 'static,
    {
        let run: Run = Box::new(move |plan| run(plan).boxed());
        let (id, title) = (id.into(), title.into());
        Self { id, title, family, needs: vec![], goals: vec![], run }
    }

    /// A program that it needs.
    #[must_use]
    pub fn needs(mut self, program: &'static str) -> Self {
        self.needs.push(program);
        self
    }

    /// At least so many times the cycles of another contender.
    #[must_use]
    pub fn at_least(mut self, least: f64, to: &'static str) -> Self {
        self.goals.push(Goal::Ratio { to, least });
        self
    }

    /// At most this value of a figure.
    #[must_use]
    pub fn at_most(mut self, most: f64, unit: Unit, figure: &'static str) -> Self {
        self.goals.push(Goal::AtMost { figure, most, unit });
        self
    }

    /// Measures it.
    #[must_use]
    pub fn measure(&self, plan: Plan) -> BoxFuture<'static, Outcome> {
        (self.run)(plan)
    }
}
