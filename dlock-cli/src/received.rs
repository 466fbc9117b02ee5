//! Signals that do not simply end this program.

use std::io;
use std::task::Poll;

use nix::sys::signal::Signal;
use tokio::signal::unix::{self, SignalKind};

use crate::exit::Failure;
use crate::signals::{OF_A_JOB, is_ignored};

pub struct Signals {
    received: Vec<(Signal, unix::Signal)>,
    /// If ends of children were ignored, nobody could wait for them.
    _children: unix::Signal,
}

impl Signals {
    /// All that a job receives, for its command. `with_stop`: also Ctrl-Z.
    pub fn of_a_job(with_stop: bool) -> Result<Self, Failure> {
        let stop = with_stop.then_some(Signal::SIGTSTP);
        Self::listen(OF_A_JOB.into_iter().chain([Signal::SIGWINCH]).chain(stop))
    }

    /// These, except for those that were ignored when this program was started.
    pub fn listen(all: impl Iterator<Item = Signal>) -> Result<Self, Failure> {
        let listen =
            |signal: Signal| Ok((signal, unix::signal(SignalKind::from_raw(signal as i32))?));
        let received: io::Result<_> =
            all.filter(|signal| !is_ignored(*signal)).map(listen).collect();
        let children = unix::signal(SignalKind::child());
        let failed = |error| Failure::unavailable(format!("cannot receive signals: {error}"));
        Ok(Self { received: received.map_err(failed)?, _children: children.map_err(failed)? })
    }

    /// Cancel safe.
    pub async fn next(&mut self) -> Signal {
        std::future::poll_fn(|cx| {
            for (signal, stream) in &mut self.received {
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
