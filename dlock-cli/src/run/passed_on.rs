//! The signals that `dlock run` receives for its command.

use std::io;
use std::task::Poll;

use nix::sys::signal::Signal;
use tokio::signal::unix::{self, SignalKind};

use crate::exit::Failure;
use crate::signals::{OF_A_JOB, is_ignored};

pub struct Signals {
    passed_on: Vec<(Signal, unix::Signal)>,
    /// If ends of children were ignored, nobody could wait for them.
    _children: unix::Signal,
}

impl Signals {
    /// `with_stop`: also Ctrl-Z.
    pub fn listen(with_stop: bool) -> Result<Self, Failure> {
        let stop = with_stop.then_some(Signal::SIGTSTP);
        let all = OF_A_JOB.into_iter().chain([Signal::SIGWINCH]).chain(stop);
        let listen =
            |signal: Signal| Ok((signal, unix::signal(SignalKind::from_raw(signal as i32))?));
        let passed_on: io::Result<_> =
            all.filter(|signal| !is_ignored(*signal)).map(listen).collect();
        let children = unix::signal(SignalKind::child());
        let failed = |error| Failure::unavailable(format!("cannot receive signals: {error}"));
        Ok(Self { passed_on: passed_on.map_err(failed)?, _children: children.map_err(failed)? })
    }

    /// Cancel safe.
    pub async fn next(&mut self) -> Signal {
        std::future::poll_fn(|cx| {
            for (signal, stream) in &mut self.passed_on {
                if stream.poll_recv(cx).is_ready() {
                    return Poll::Ready(*signal);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// The next one that ends a program.
    pub async fn next_end(&mut self) -> Signal {
        loop {
            let signal = self.next().await;
            match signal {
                Signal::SIGWINCH => {}
                Signal::SIGTSTP => _ = nix::sys::signal::raise(Signal::SIGSTOP),
                _ => return signal,
            }
        }
    }
}
