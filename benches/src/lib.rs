//! The core of the benchmark: contenders that take turns on the same servers, their ratios, and the
//! reports that show them. What is measured is in `benches/peers`.

pub mod contender;
pub mod contest;
pub mod distance;
pub mod figure;
pub mod machine;
pub mod outcome;
pub mod program;
pub mod report;
pub mod row;
pub mod usage;
