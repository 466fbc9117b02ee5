//! The rules, a file for each concern.

mod cancellation;
mod exclusion;
mod loss;
mod ownership;
mod reentrancy;
mod several;
mod timing;
mod tokens;
mod waiting;

use super::Rule;

/// A rule from an `async fn(Context) -> Finding` of the same name.
macro_rules! rules {
    ($($function:ident),* $(,)?) => {
        vec![$($crate::testing::Rule {
            name: stringify!($function),
            check: |context| Box::pin($function(context)),
        }),*]
    };
}
use rules;

pub(super) fn all() -> Vec<Rule> {
    [
        exclusion::rules(),
        ownership::rules(),
        tokens::rules(),
        timing::rules(),
        waiting::rules(),
        cancellation::rules(),
        loss::rules(),
        reentrancy::rules(),
        several::rules(),
    ]
    .concat()
}
