//! Runs the model checker, and makes its findings readable.

use std::fmt::{self, Write};
use std::time::{Duration, Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// What came of an exploration.
#[derive(Debug)]
pub struct Explored {
    /// The number of different states.
    pub states: usize,
    /// The most steps that were needed to reach one of them.
    pub depth: usize,
    /// How long it took.
    pub took: Duration,
    /// The promises that some schedule breaks.
    pub broken: Vec<Counterexample>,
    /// The situations that no schedule reaches.
    pub unreached: Vec<&'static str>,
}

/// A shortest schedule that breaks a promise.
#[derive(Debug)]
pub struct Counterexample {
    /// The name of the promise.
    pub property: &'static str,
    /// What happens, one step a line.
    pub steps: Vec<String>,
    /// The state in which the promise is broken.
    pub last: String,
}

impl fmt::Display for Counterexample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "broken: {}", self.property)?;
        for (at, step) in self.steps.iter().enumerate() {
            writeln!(f, "{:4}. {step}", at + 1)?;
        }
        write!(f, "{}", self.last)
    }
}

impl fmt::Display for Explored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.took.as_secs_f64();
        writeln!(f, "{} states, depth {}, {seconds:.1} s", self.states, self.depth)?;
        self.broken.iter().try_for_each(|broken| writeln!(f, "{broken}"))?;
        self.unreached.iter().try_for_each(|name| writeln!(f, "never reached: {name}"))
    }
}

/// Explores every schedule of the model.
///
/// # Panics
/// The checker gave up before it had seen every state.
pub fn explore<M>(model: &M) -> Explored
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + fmt::Display + fmt::Debug + std::hash::Hash + PartialEq + Send + Sync,
    M::Action: Clone + fmt::Debug + fmt::Display + PartialEq + Send + Sync,
{
    // Never satisfied, so that it goes on after it has found what it looks for.
    run(model, HasDiscoveries::AllOf(["everything"].into_iter().collect()), true)
}

/// Explores schedules, shortest first, until this promise is broken.
pub fn explore_until_broken<M>(model: &M, property: &'static str) -> Explored
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + fmt::Display + fmt::Debug + std::hash::Hash + PartialEq + Send + Sync,
    M::Action: Clone + fmt::Debug + fmt::Display + PartialEq + Send + Sync,
{
    run(model, HasDiscoveries::AllOf([property].into_iter().collect()), false)
}

fn run<M>(model: &M, until: HasDiscoveries, is_exhaustive: bool) -> Explored
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + fmt::Display + fmt::Debug + std::hash::Hash + PartialEq + Send + Sync,
    M::Action: Clone + fmt::Debug + fmt::Display + PartialEq + Send + Sync,
{
    let began = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let checker = model.clone().checker().threads(threads).finish_when(until).spawn_bfs().join();
    assert!(!is_exhaustive || checker.is_done(), "the checker gave up");
    let discoveries = checker.discoveries();
    let mut explored = Explored {
        states: checker.unique_state_count(),
        depth: checker.max_depth(),
        took: began.elapsed(),
        broken: vec![],
        unreached: vec![],
    };
    for property in model.properties() {
        match (&property.expectation, discoveries.get(property.name)) {
            (Expectation::Sometimes, None) if is_exhaustive => {
                explored.unreached.push(property.name);
            }
            (Expectation::Always, Some(path)) => {
                explored.broken.push(counterexample(property.name, path.clone().into_vec()));
            }
            _ => {}
        }
    }
    explored
}

fn counterexample<S: fmt::Display, A: fmt::Display>(
    property: &'static str,
    path: Vec<(S, Option<A>)>,
) -> Counterexample {
    let mut last = String::new();
    if let Some((state, _)) = path.last() {
        let _ = write!(last, "{state}");
    }
    let steps = path.into_iter().filter_map(|(_, action)| Some(action?.to_string())).collect();
    Counterexample { property, steps, last }
}
