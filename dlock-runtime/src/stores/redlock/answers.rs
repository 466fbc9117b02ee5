//! What several nodes have answered to one request.

use redis::{FromRedisValue, Value};

use super::failures::Failures;
use crate::error::BackendError;
use crate::stores::redis::requests::read;

/// What the nodes have answered. An error counts as no answer.
#[derive(Debug)]
pub(super) struct Answers<T> {
    /// One result for each node, in the order in which they arrived.
    heard: Vec<(usize, Result<T, BackendError>)>,
    /// The nodes without a result, once no more results are waited for.
    silent: Vec<usize>,
}

impl<T> Answers<T> {
    /// The answers of so many nodes, before the first one.
    pub(super) fn of(nodes: usize) -> Self {
        Self { heard: Vec::with_capacity(nodes), silent: vec![] }
    }

    /// Adds a result.
    pub(super) fn add(&mut self, node: usize, answer: Result<T, BackendError>) {
        self.heard.push((node, answer));
    }

    /// Notes the nodes that are not waited for any more.
    pub(super) fn end(&mut self, silent: Vec<usize>) {
        self.silent = silent;
    }

    /// The same failure of all nodes.
    pub(super) fn failed(nodes: usize, error: &BackendError) -> Self {
        let heard = (0..nodes).map(|node| (node, Err(error.clone()))).collect();
        Self { heard, silent: vec![] }
    }

    /// The number of results, errors included.
    pub(super) fn results(&self) -> usize {
        self.heard.len()
    }

    /// The results, errors included, in the order in which they arrived.
    pub(super) fn all(&self) -> impl Iterator<Item = (usize, Result<&T, &BackendError>)> {
        self.heard.iter().map(|(node, answer)| (*node, answer.as_ref()))
    }

    /// The number of nodes that have answered.
    pub(super) fn len(&self) -> usize {
        self.iter().count()
    }

    /// The number of answers of one kind.
    pub(super) fn count(&self, is_counted: impl Fn(&T) -> bool) -> usize {
        self.iter().filter(|(_, answer)| is_counted(answer)).count()
    }

    /// The answers, each with its node.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        self.heard.iter().filter_map(|(node, answer)| Some((*node, answer.as_ref().ok()?)))
    }

    /// The errors, in the order in which they arrived.
    pub(super) fn errors(&self) -> impl Iterator<Item = &BackendError> {
        self.heard.iter().filter_map(|(_, answer)| answer.as_ref().err())
    }

    pub(super) fn into_errors(self) -> impl Iterator<Item = BackendError> {
        self.heard.into_iter().filter_map(|(_, answer)| answer.err())
    }

    #[cfg(test)]
    pub(super) fn silent(&self) -> &[usize] {
        &self.silent
    }

    /// Has this node answered?
    pub(super) fn has(&self, node: usize) -> bool {
        self.iter().any(|(other, _)| other == node)
    }

    /// The result that arrived last; `None` before the first one.
    pub(super) fn newest(&self) -> Option<(usize, Result<&T, &BackendError>)> {
        self.heard.last().map(|(node, answer)| (*node, answer.as_ref()))
    }

    /// Splits the answers from the reasons why the other nodes gave none.
    pub(super) fn into_parts(self) -> (Vec<T>, Failures) {
        let (mut answers, mut errors) = (vec![], vec![]);
        for (_, answer) in self.heard {
            match answer {
                Ok(answer) => answers.push(answer),
                Err(error) => errors.push(error),
            }
        }
        (answers, Failures::new(self.silent, errors))
    }
}

impl Answers<Value> {
    /// Reads the answers of a script.
    pub(super) fn read<T: FromRedisValue>(self) -> Answers<T> {
        let heard = self.heard.into_iter();
        let heard = heard.map(|(node, answer)| (node, answer.and_then(read))).collect();
        Answers { heard, silent: self.silent }
    }
}

impl<T> Default for Answers<T> {
    fn default() -> Self {
        Self { heard: vec![], silent: vec![] }
    }
}
