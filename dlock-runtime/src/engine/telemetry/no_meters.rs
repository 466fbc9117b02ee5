//! Without the feature `metrics`, nothing is recorded.

use std::sync::Arc;
use std::time::Duration;

use super::{Labels, Operation, Store};
use crate::error::LostReason;

pub(crate) fn acquired(_: Labels<'_>, _: &'static str, _: Duration) {}

pub(crate) fn hold_began(_: Labels<'_>, _: bool) {}

pub(crate) fn hold_closed(_: Labels<'_>) {}

pub(crate) fn released(_: Labels<'_>, _: Duration) {}

pub(crate) fn lost(_: Labels<'_>, _: LostReason) {}

pub(crate) fn held_too_long(_: Labels<'_>) {}

pub(crate) fn permits_disagree(_: Labels<'_>) {}

pub(crate) fn renewed(_: Labels<'_>) {}

pub(crate) fn renewal_failed(_: Labels<'_>) {}

pub(crate) fn store_failed(_: Store<'_>, _: Operation) {}

pub(crate) fn wait_began(_: Labels<'_>) {}

pub(crate) fn wait_ended(_: Labels<'_>) {}

pub(crate) fn blamed(_: &'static str, _: &Arc<str>, _: &str, _: Duration) {}

pub(crate) fn begin(_: &'static str, _: &Arc<str>) {}
