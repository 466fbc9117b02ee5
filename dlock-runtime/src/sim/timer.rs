//! Tokio's timers, each of which tells the simulation when it fires.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;
use tokio::time::error::Elapsed;

use super::world;

/// The simulation's note of when a timer fires. Dropping it withdraws the note.
#[derive(Debug)]
struct Note(Option<u32>);

impl Note {
    fn of(deadline: Instant) -> Self {
        Self(world::try_with(|world| world.note_timer(deadline)).flatten())
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        if let Some(note) = self.0 {
            world::try_with(|world| world.withdraw_timer(note));
        }
    }
}

/// [`tokio::time::Sleep`] with a note for the simulation.
#[derive(Debug)]
pub(crate) struct Sleep {
    sleep: Pin<Box<tokio::time::Sleep>>,
    _note: Note,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().poll(cx)
    }
}

pub(crate) fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { sleep: Box::pin(tokio::time::sleep_until(deadline)), _note: Note::of(deadline) }
}

pub(crate) fn sleep(duration: Duration) -> Sleep {
    let sleep = Box::pin(tokio::time::sleep(duration));
    let note = Note::of(sleep.deadline());
    Sleep { sleep, _note: note }
}

pub(crate) async fn timeout_at<F: Future>(
    deadline: Instant,
    future: F,
) -> Result<F::Output, Elapsed> {
    let _note = Note::of(deadline);
    tokio::time::timeout_at(deadline, future).await
}

pub(crate) async fn timeout<F: Future>(limit: Duration, future: F) -> Result<F::Output, Elapsed> {
    let timeout = tokio::time::timeout(limit, future);
    let _note = Instant::now().checked_add(limit).map(Note::of);
    timeout.await
}
