//! dlock under simulation: random programs on simulated stores, and the promises that they must not break.

pub mod functions;
pub mod late_renewals;
pub mod ledger;
pub mod lost_holds;
pub mod passing;
pub mod programs;
pub mod waiting_sets;
