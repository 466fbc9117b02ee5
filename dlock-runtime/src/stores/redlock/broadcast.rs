//! Requests to all nodes: those of independent callers that are ready together go out together, in one message to each
//! node.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;

use super::gathering::{Asking, Gathering, Heard, Terms};
use super::node::Node;
use crate::error::BackendError;
use crate::stores::redis::server::Lane;
use crate::stores::redis::step::Step;
use crate::stores::shared::batcher::Carrier;

/// How long a message counts as in flight at most. After that, those of its callers that have no answer wait on their
/// own, and the next message may be sent: slow nodes delay nobody else.
const PATIENCE: Duration = Duration::from_millis(20);

/// A request to every node.
pub(super) struct Asked {
    pub(super) step: Arc<Step>,
    pub(super) terms: Terms,
    /// How long a node that does not answer owes the request.
    pub(super) owed: Option<Duration>,
}

/// Sends requests to all nodes, over one of the connections to each.
pub(super) struct Broadcast {
    nodes: Arc<[Arc<Node>]>,
    lane: Lane,
}

impl Broadcast {
    pub(super) fn new(nodes: Arc<[Arc<Node>]>, lane: Lane) -> Self {
        Self { nodes, lane }
    }

    /// Sends one message to each node.
    fn send(&self, asked: &[Asked]) -> Vec<Asking> {
        let requests = asked.iter().map(|asked| (Arc::clone(&asked.step), asked.owed));
        let requests: Arc<[_]> = requests.collect();
        let nodes = self.nodes.iter().enumerate();
        let asking = nodes.map(|(number, node)| {
            let (node, requests, lane) = (Arc::clone(node), Arc::clone(&requests), self.lane);
            let answers = async move { node.run_all(lane, &requests).await };
            Asking { node: number, answers: answers.boxed() }
        });
        asking.collect()
    }
}

impl Carrier for Broadcast {
    type Request = Asked;
    type Answer = Heard;

    const MOST: usize = 128;
    const MOST_BYTES: usize = 64 * 1024;
    // More than for a single server, because each message goes to all nodes.
    const ENOUGH: usize = 24;
    const MOST_IN_FLIGHT: usize = 4;

    fn limit(&self) -> Duration {
        PATIENCE * 10
    }

    fn size(asked: &Asked) -> usize {
        asked.step.size()
    }

    async fn carry_one(&self, asked: Asked) -> Heard {
        let mut heard = self.carry(vec![asked]).await;
        heard.pop().unwrap_or_else(|| Heard::Failed(BackendError::transient("no answer")))
    }

    async fn carry(&self, asked: Vec<Asked>) -> Vec<Heard> {
        let terms = asked.iter().map(|asked| asked.terms);
        Gathering::new(self.send(&asked), terms).heard_within(PATIENCE).await
    }

    fn failed(error: BackendError) -> Heard {
        Heard::Failed(error)
    }
}
