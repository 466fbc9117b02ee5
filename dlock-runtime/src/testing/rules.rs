//! The rules, one file per topic.

mod batches;
mod cancellation;
mod crowds;
mod durations;
mod exclusion;
mod fairness;
mod late;
mod loss;
mod neighbours;
mod operators;
mod ownership;
mod permits;
mod reentrancy;
mod renewal;
mod residue;
mod runtimes;
mod scheduling;
mod several;
mod sharing;
mod timing;
mod tokens;
mod waiting;

use super::Rule;

/// Creates rules from functions `async fn(Context) -> Finding`, each named after its function.
macro_rules! rules {
    ($($function:ident),* $(,)?) => {
        rules!(if |_| true; $($function),*)
    };
    (if $concerns:expr; $($function:ident),* $(,)?) => {
        vec![$($crate::testing::Rule {
            name: stringify!($function),
            concerns: $concerns,
            check: |context| Box::pin($function(context)),
        }),*]
    };
}
use rules;

/// Returns all rules in batches. The batches run one after the other, and the rules of a batch run at once. A rule
/// that loads the server so much that it would delay others has its own batch.
pub(super) fn batches() -> Vec<Vec<Rule>> {
    let plain = [
        exclusion::rules(),
        ownership::rules(),
        tokens::rules(),
        timing::rules(),
        waiting::rules(),
        cancellation::rules(),
        loss::rules(),
        reentrancy::rules(),
        several::rules(),
        batches::rules(),
        operators::rules(),
    ];
    let faults = [
        late::rules(),
        renewal::rules(),
        runtimes::rules(),
        neighbours::rules(),
        durations::rules(),
    ];
    let mut batches = vec![
        plain.concat(),
        faults.concat(),
        sharing::rules(),
        permits::rules(),
        fairness::rules(),
        residue::rules(),
        sharing::under_load(),
    ];
    batches.extend(crowds::rules().into_iter().chain(scheduling::rules()).map(|rule| vec![rule]));
    batches
}
