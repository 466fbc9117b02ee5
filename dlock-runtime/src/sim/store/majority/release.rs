//! Ending what nodes have granted: releases, and what a failed round leaves behind.

use std::time::Duration;

use super::client::MajorityClient;
use super::{MAX_LEASE, bits, micros};
use crate::backend::{Claim, Release, Released};
use crate::error::BackendError;
use crate::key::LockKey;
use crate::lock_table::majority::model::Asker;
use crate::lock_table::majority::round::Round;
use crate::sim::store::{What, digest};

/// How much longer than the ttl a tombstone is kept.
const TOMBSTONE: Duration = Duration::from_mins(1);

/// How long a round that was granted nothing waits for the nodes to confirm that.
const GRACE: Duration = Duration::from_millis(2);

/// How a node answers a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Released,
    NotHeld,
    /// Not held on a node that must not count.
    Uncounted,
}

impl MajorityClient {
    /// Releases a lease on all nodes, until a majority has.
    pub(super) async fn release_everywhere(
        &self,
        claim: &Claim,
        release: Release,
    ) -> Result<Released, BackendError> {
        let (number, key, owner) = (self.next_round(), claim.key.clone(), bits(claim.owner));
        let stays = micros(claim.ttl + TOMBSTONE);
        let what = What { name: "release", digest: digest(claim), may_repeat: false };
        let asked = self.ask_nodes(
            0..self.nodes(),
            (what, Self::limit(claim.ttl)),
            move |state, run, visit| {
                let asker = Asker { owner, round: number, run };
                let tombstone = Some((stays, release.late_acquire));
                let (is_found, counts) = state
                    .script(&key, visit, |node| (node.release(asker, tombstone), node.counts(run)));
                match (is_found, counts) {
                    (true, _) => {
                        state.notify(&key, visit);
                        Ended::Released
                    }
                    (false, true) => Ended::NotHeld,
                    (false, false) => Ended::Uncounted,
                }
            },
            |answers| {
                let is_released = |(_, answer): &&_| matches!(answer, Ok(Ended::Released));
                answers.iter().filter(is_released).count() >= self.majority()
            },
        );
        let answers: Vec<_> =
            asked.await.into_iter().filter_map(|(_, answer)| answer.ok()).collect();
        if answers.len() < self.majority() {
            return Err(Self::too_few());
        }
        // Nodes that are silent, or may have forgotten the lock, may have been part of the majority that held it.
        let not_held = answers.iter().filter(|answer| **answer == Ended::NotHeld).count();
        let may_have_held = self.nodes() - not_held >= self.majority();
        Ok(if may_have_held { Released::Released } else { Released::NotHeld })
    }

    /// Undoes what a failed round may have been granted. Nodes that did not answer are asked to grant nothing any more.
    pub(super) async fn retract(
        &self,
        claim: &Claim,
        number: u64,
        round: &Round,
    ) -> Result<(), BackendError> {
        let may_hold: Vec<_> = round.may_hold().collect();
        let granted: Vec<_> =
            may_hold.iter().filter(|(_, granted)| *granted).map(|(node, _)| *node).collect();
        let (key, owner) = (claim.key.clone(), bits(claim.owner));
        let stays = micros(claim.ttl + TOMBSTONE);
        let limit = if granted.is_empty() { GRACE } else { Self::limit(claim.ttl) };
        let what = What { name: "retract", digest: digest(claim), may_repeat: false };
        let has_granted = granted.clone();
        let confirmed = |answers: &[(usize, Result<bool, BackendError>)]| {
            let is_confirmed = |node: &&usize| {
                answers.iter().any(|(other, answer)| other == *node && answer.is_ok())
            };
            granted.iter().filter(is_confirmed).count() == granted.len()
        };
        // The nodes differ in whether they leave a tombstone, so each group is asked by itself.
        let ask = |nodes: Vec<usize>, leaves: bool| {
            let key = key.clone();
            self.ask_nodes(
                nodes,
                (what, limit),
                move |state, run, visit| {
                    let asker = Asker { owner, round: number, run };
                    let tombstone = leaves.then_some((stays, true));
                    state.script(&key, visit, |node| node.release(asker, tombstone))
                },
                confirmed,
            )
        };
        let silent = may_hold.iter().filter(|(_, granted)| !granted).map(|(node, _)| *node);
        let (from_granted, _) = tokio::join!(ask(has_granted, false), ask(silent.collect(), true));
        if confirmed(&from_granted) { Ok(()) } else { Err(Self::too_few()) }
    }

    /// Ends the lease of whoever has the key, on every node. A tombstone keeps renewals from setting it again.
    pub(super) async fn end_everywhere(&self, key: &LockKey) -> Result<bool, BackendError> {
        /// Larger than the round of any attempt.
        const LAST_ROUND: u64 = u64::MAX / 2;
        let key = key.clone();
        let stays = micros(MAX_LEASE + TOMBSTONE);
        let what = What { name: "force-release", digest: 0, may_repeat: false };
        let asked = self.ask_nodes(
            0..self.nodes(),
            (what, Self::limit(MAX_LEASE)),
            move |state, run, visit| {
                let is_ended = state.script(&key, visit, |node| {
                    let Some(owner) = node.holder() else { return false };
                    node.release(Asker { owner, round: LAST_ROUND, run }, Some((stays, true)))
                });
                if is_ended {
                    state.notify(&key, visit);
                }
                is_ended
            },
            |_| false,
        );
        let answers: Vec<_> =
            asked.await.into_iter().filter_map(|(_, answer)| answer.ok()).collect();
        if answers.len() < self.majority() {
            return Err(Self::too_few());
        }
        Ok(answers.contains(&true))
    }
}
