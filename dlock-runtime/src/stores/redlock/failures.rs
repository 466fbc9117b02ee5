//! Why too few nodes count for a majority, as one error.

use std::sync::Arc;
use std::time::Duration;

use super::node::Node;
use super::round::majority;
use crate::error::BackendError;

/// Why nodes did not count.
#[derive(Debug)]
pub(super) struct Failures {
    silent: Vec<usize>,
    errors: Vec<BackendError>,
    /// Nodes in quarantine, each with the time until it counts.
    quarantined: Vec<(usize, Duration)>,
}

impl Failures {
    pub(super) fn new(silent: Vec<usize>, errors: Vec<BackendError>) -> Self {
        Self { silent, errors, quarantined: vec![] }
    }

    pub(super) fn with_quarantined(mut self, quarantined: Vec<(usize, Duration)>) -> Self {
        self.quarantined = quarantined;
        self
    }

    /// One error that names all reasons. It is permanent if so many nodes failed permanently that the rest is no
    /// majority.
    pub(super) fn explain(self, nodes: &[Arc<Node>]) -> BackendError {
        let (wanted, all) = (majority(nodes.len()), nodes.len());
        let address = |node: usize| nodes[node].address();
        let mut parts = vec![format!("redlock: no majority ({wanted} of {all} nodes)")];
        let silent = |node: &usize| format!("{} did not answer in time", address(*node));
        parts.extend(self.silent.iter().map(silent));
        parts.extend(self.errors.iter().map(ToString::to_string));
        parts.extend(self.quarantined.iter().map(|(node, left)| {
            let (node, left) = (address(*node), left.as_secs() + 1);
            format!(
                "{node} may have forgotten locks (restarted, emptied or new) and counts in {left} s"
            )
        }));
        if self.quarantined.len() == all {
            parts.push("declare a brand-new deployment once with `?bootstrap=true`".to_owned());
        }
        let message = parts.join("; ");
        let permanent = self.errors.iter().filter(|error| !error.is_transient()).count();
        if all - permanent < wanted {
            BackendError::permanent(message)
        } else {
            BackendError::transient(message)
        }
    }
}
