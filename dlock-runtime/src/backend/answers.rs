//! The answers to a request that carries several independent claims.

use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use super::Answer;
use crate::error::BackendError;

type One<T> = Result<T, BackendError>;

/// One answer for each of several independent claims.
///
/// The claims share a request, or a moment, but nothing else: each is granted, refused or failed by itself, and the
/// answer to one does not wait for the answer to another unless the store sends them together. A panic of the backend
/// counts as a failure of the claims that it has not answered.
#[must_use = "answers do nothing unless they are awaited"]
pub struct Answers<'a, T> {
    /// Answers that are ready, the last of them first.
    ready: Vec<(usize, One<T>)>,
    pending: Pending<'a, T>,
}

enum Pending<'a, T> {
    Nothing,
    /// All answers arrive at once.
    Together(Pin<Box<dyn Future<Output = Vec<One<T>>> + Send + 'a>>),
    /// Each answer arrives by itself.
    Each(FuturesUnordered<Numbered<'a, T>>),
}

/// The answer to the claim at index `at`.
struct Numbered<'a, T> {
    at: usize,
    answer: Answer<'a, One<T>>,
}

impl<'a, T: Send + Unpin> Answers<'a, T> {
    /// Creates answers that are ready, in the order of the claims.
    pub fn ready(answers: impl IntoIterator<Item = Result<T, BackendError>>) -> Self {
        let mut ready: Vec<_> = answers.into_iter().enumerate().collect();
        ready.reverse();
        Self { ready, pending: Pending::Nothing }
    }

    /// Creates the answers to one request that answers all claims together, in their order.
    pub fn from_future(
        future: impl Future<Output = Vec<Result<T, BackendError>>> + Send + 'a,
    ) -> Self {
        Self { ready: Vec::new(), pending: Pending::Together(Box::pin(future)) }
    }

    /// Sends one request for each claim, all at the same time.
    pub fn each<C>(
        claims: &'a [C],
        mut ask: impl FnMut(&'a C) -> Answer<'a, Result<T, BackendError>>,
    ) -> Self {
        let mut answers =
            Self { ready: Vec::with_capacity(claims.len()), pending: Pending::Nothing };
        for (at, claim) in claims.iter().enumerate() {
            match catch_unwind(AssertUnwindSafe(|| ask(claim))) {
                Ok(answer) => answers.add(Numbered { at, answer }),
                Err(_panic) => answers.ready.push((at, Err(panicked()))),
            }
        }
        answers.ready.reverse();
        answers
    }

    fn add(&mut self, mut numbered: Numbered<'a, T>) {
        if let Some(answer) = numbered.answer.take_ready() {
            self.ready.push((numbered.at, answer));
        } else if let Pending::Each(pending) = &mut self.pending {
            pending.push(numbered);
        } else {
            self.pending = Pending::Each(FuturesUnordered::from_iter([numbered]));
        }
    }

    /// Returns whether all answers are ready, so that nothing of the request is left to execute.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self.pending, Pending::Nothing)
    }

    /// Returns the next answer, with the index of its claim, or `None` after the last one. The order is that of
    /// arrival. A claim that the backend left out has no answer.
    ///
    /// # Cancel safety
    /// Cancel safe: an answer is lost only with `self`.
    pub async fn next(&mut self) -> Option<(usize, Result<T, BackendError>)> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Returns the next answer if it has arrived already, without asking the store for more.
    pub(crate) fn next_ready(&mut self) -> Option<(usize, Result<T, BackendError>)> {
        self.ready.pop()
    }

    /// Returns the answers in the order of these claims. A claim that the backend left out has failed.
    ///
    /// # Cancel safety
    /// Dropping the future drops the answers. The store may still execute the request.
    pub async fn all(mut self, claims: usize) -> Vec<Result<T, BackendError>> {
        let mut all: Vec<Option<One<T>>> = (0..claims).map(|_| None).collect();
        while let Some((at, answer)) = self.next().await {
            if let Some(slot) = all.get_mut(at) {
                *slot = Some(answer);
            }
        }
        all.into_iter().map(|answer| answer.unwrap_or_else(|| Err(left_out()))).collect()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<(usize, One<T>)>> {
        if let Some(next) = self.ready.pop() {
            return Poll::Ready(Some(next));
        }
        match &mut self.pending {
            Pending::Nothing => Poll::Ready(None),
            Pending::Each(each) => each.poll_next_unpin(cx),
            Pending::Together(future) => {
                let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
                let Ok(polled) = polled else {
                    self.pending = Pending::Nothing;
                    return Poll::Ready(None);
                };
                let answers = std::task::ready!(polled);
                *self = Self::ready(answers);
                Poll::Ready(self.ready.pop())
            }
        }
    }
}

impl<T: Unpin> Future for Numbered<'_, T> {
    type Output = (usize, One<T>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let at = self.at;
        let answer = Pin::new(&mut self.answer);
        match catch_unwind(AssertUnwindSafe(|| answer.poll(cx))) {
            Ok(polled) => polled.map(|answer| (at, answer)),
            Err(_panic) => Poll::Ready((at, Err(panicked()))),
        }
    }
}

/// Why a claim without an answer has failed.
fn left_out() -> BackendError {
    BackendError::transient("the backend did not answer one of several claims")
}

fn panicked() -> BackendError {
    BackendError::transient("the backend panicked")
}

impl<T> fmt::Debug for Answers<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ready = matches!(self.pending, Pending::Nothing);
        f.write_str(if ready { "Answers(ready)" } else { "Answers(pending)" })
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    fn kept(numbers: &[u32], at: u32) -> Answer<'_, One<u32>> {
        match numbers[at as usize] {
            0 => Answer::from_future(pending()),
            1 => panic!("a bug in the backend"),
            2 => Answer::from_future(async { panic!("a bug in the backend") }),
            3 => Answer::ready(Err(BackendError::transient("down"))),
            4 => Answer::from_future(ready(Ok(40))),
            other => Answer::ready(Ok(other * 10)),
        }
    }

    #[tokio::test]
    async fn answers_keep_the_order_of_their_claims() {
        let numbers = [5, 4, 3, 2, 1, 6];
        let answers = Answers::each(&[0, 1, 2, 3, 4, 5], |at| kept(&numbers, *at));
        assert!(!answers.is_ready());
        let all: Vec<_> = answers.all(6).await.into_iter().map(Result::ok).collect();
        assert_eq!(all, [Some(50), Some(40), None, None, None, Some(60)]);
    }

    #[tokio::test]
    async fn an_answer_that_never_comes_delays_no_other() {
        let numbers = [0, 4, 5];
        let mut answers = Answers::each(&[0, 1, 2], |at| kept(&numbers, *at));
        assert_eq!(answers.next().await.unwrap().0, 2);
        assert_eq!(answers.next().await.unwrap().0, 1);
        assert!(futures_util::poll!(std::pin::pin!(answers.next())).is_pending());
    }

    #[tokio::test]
    async fn a_claim_that_was_left_out_has_failed() {
        let short = Answers::from_future(ready(vec![Ok(1)]));
        let all: Vec<_> = short.all(2).await.into_iter().map(Result::ok).collect();
        assert_eq!(all, [Some(1), None]);
        let panicking = Answers::<u32>::from_future(async { panic!("a bug in the backend") });
        assert!(panicking.all(2).await.iter().all(Result::is_err));
    }
}
